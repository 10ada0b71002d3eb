"""A host put together as the daemon does it, over stores in memory, under virtual time.

    machine = Machine(seed, directory)
    await / simulate(machine.live(...), seed=…)     one process' life; Halt is its crash

What survives a crash is the catalog's directory, the stores, and the file system.
"""

import asyncio
import itertools
import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sim.scripted import ModelFs, Mutator, Node, ScriptedSource, Weather
from simloop import Halt
from stores import FaultyBlobStore, _Forwarding
from vaultbuilder import documents_of

from streamd.catalog import dirty, objects
from streamd.catalog.db import FILE_NAME, Catalog
from streamd.catalog.inodes import watched
from streamd.catalog.journal import next_fid_floor
from streamd.catalog.tree import load_source
from streamd.daemon.protection import Protection
from streamd.format import crypto
from streamd.format.crypto import Kem
from streamd.format.keys import KeyChain
from streamd.model.entry import SourceInfo
from streamd.model.ids import WriterId
from streamd.pipeline.budget import Budget
from streamd.pipeline.capture import Pipeline
from streamd.pipeline.commit import Journal, SourceIdentity
from streamd.pipeline.compression import CompressionChoice
from streamd.pipeline.dedup import DedupIndex
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.jobs import Stream
from streamd.pipeline.packer import Packer
from streamd.pipeline.seal import Sealer
from streamd.pipeline.upload import Uploader
from streamd.policy.backoff import Backoff
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName
from streamd.storage.retrying import RetryingBlobStore
from streamd.vault.vault import Vault, new_host_key
from streamd.vault.writer import VaultWriter

START_US = 1_760_000_000_000_000
RPO_SECONDS = 2.0
KEY_SEED = int(os.environ.get("STREAMD_SIM_KEYS", "0"))


class SeededEntropy:
    """Repeats itself, so that a seed is a run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token(self, size: int) -> bytes:
        return self._rng.randbytes(size)


# What a chunk is called follows from the keys, and decides who is packed with whom.
HOST_KEY = new_host_key(Kem.X25519, SeededEntropy(random.Random(KEY_SEED)))
CONFIG, _ = documents_of(HOST_KEY)


class SimClock:
    """Virtual time over several lives; every question moves it on by a microsecond."""

    def __init__(self) -> None:
        self.base_us = START_US
        self._drift_us = 0

    def now_us(self) -> int:
        self._drift_us += 1
        loop = asyncio._get_running_loop()
        since = int(loop.time() * 1e6) if loop is not None else 0
        return self.base_us + since + self._drift_us

    def monotonic(self) -> float:
        return self.now_us() / 1e6

    def next_life(self, seconds: float) -> None:
        """A loop of this many virtual seconds has ended; the next begins at zero."""
        self.base_us += int(seconds * 1e6) + 1_000_000


class Silent:
    """Listens to everything and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None


class Fuse:
    """Blows after so many steps that matter: transactions, puts, looks. Negative: never."""

    def __init__(self, steps: int = -1) -> None:
        self.left = steps
        self.count = 0

    def burn(self, what: str) -> None:
        self.count += 1
        if self.left == 0:
            raise Halt(what)
        self.left -= 1


SETTLE_LOOKS = 6000  # two a second


@dataclass
class FusedStore(_Forwarding):
    """The disk of a machine that may stop before and after each put. Deaf after that."""

    disk: MemoryBlobStore
    fuse: Fuse
    dead: bool = False

    async def put(self, name, data) -> None:
        assert not self.dead
        self._burn(f"before {name}")
        await self.disk.put(name, data)
        self._burn(f"after {name}")

    def _burn(self, what: str) -> None:
        try:
            self.fuse.burn(what)
        except Halt:
            self.dead = True
            raise


class FusedCatalog(Catalog):
    """A catalog whose machine may stop before, in and after each transaction."""

    fuse = Fuse()

    def write_now(self, work, *args, **kwargs):
        def fused(connection: sqlite3.Connection, *inner, **options):
            result = work(connection, *inner, **options)
            self.fuse.burn(f"in {work}")
            return result

        self.fuse.burn(f"before {work}")
        result = super().write_now(fused, *args, **kwargs)
        self.fuse.burn(f"after {work}")
        return result


@dataclass
class Sample:
    """What was promised at an instant, and what the store held then."""

    at_us: int
    through_us: int
    blobs: dict | None
    destination: str = "local"


class Machine:
    """What survives, and the lives on it."""

    def __init__(
        self,
        seed: int,
        directory: Path,
        *,
        weather: Weather | None = None,
        fault_rate: float = 0.0,
        remote: bool = False,
        roots: tuple[bytes, ...] = (b"/r",),
        template: bytes | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.directory = directory
        self.clock = SimClock()
        self.fs = ModelFs(self.clock.now_us, roots)
        self.mutator = Mutator(self.fs, self.rng)
        self.weather = weather or Weather()
        self.fault_rate = fault_rate
        self.store = MemoryBlobStore(self.clock)
        self.remote = MemoryBlobStore(self.clock) if remote else None
        self.samples: list[Sample] = []
        self.before_reuse: Sample | None = None
        self.known_as: dict[int, Node] = {}  # files of the vault, and which of the model they are
        self.fuse = Fuse()
        self.entropy = SeededEntropy(random.Random(seed + 1))
        self.host: SimHost | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        if template is not None:
            (directory / FILE_NAME).write_bytes(template)

    def vault(self, store=None) -> Vault:
        keys = KeyChain(HOST_KEY)
        verify = {WriterId(HOST_KEY.writer): crypto.verify_key_of(HOST_KEY.signing_key)}
        return Vault(store or self.store, keys, CONFIG, verify)

    def bury(self) -> None:
        """What the operating system does when a process is gone; its time has passed."""
        if self.host is not None:
            self.host.close()
            self.host = None
        if self.loop is not None:
            self.clock.next_life(self.loop.time())
            self.loop = None


class SimHost:
    """One process: recovered and put together like daemon.host does it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.host = self
        self.catalog = FusedCatalog.__new__(FusedCatalog)
        self.catalog.fuse = Fuse()  # opening is one statement: nothing to interrupt
        Catalog.__init__(self.catalog, str(machine.directory))
        self.catalog.fuse = machine.fuse
        self.fused = FusedStore(machine.store, machine.fuse)
        self.source = ScriptedSource(
            machine.fs,
            hasher=machine.vault().keys.domain_keys.chunk_id,
            now_us=machine.clock.now_us,
            rng=machine.rng,
            weather=machine.weather,
            mutate=machine.mutator.step,
        )
        self.source.before_look = lambda: machine.fuse.burn("look")
        self.protections: list[Protection] = []

    async def open(self) -> None:
        machine, clock, entropy = self.machine, self.machine.clock, self.machine.entropy
        vault = machine.vault(self.fused)
        self.writer = VaultWriter(vault, clock, entropy)
        self.journal = Journal(self.writer, clock, has_remote=machine.remote is not None)
        for row, data in await self.catalog.read(objects.unput):
            await self.fused.put(BlobName(row.name), data)
            await self.catalog.write(self.journal.mark_put, [row.number])
        self.fids = itertools.count(await self.catalog.write(next_fid_floor))
        self.survey_numbers = itertools.count(1)
        await self.catalog.write(dirty.release_all)
        self.index = DedupIndex(self.catalog.open_reader)
        self.faulty = FaultyBlobStore(
            self.fused,
            seed=machine.rng.randrange(1 << 30),
            rate=machine.fault_rate,
            delay_seconds_max=0.3 if machine.fault_rate else 0.0,
        )
        self.pipeline = Pipeline(
            catalog=self.catalog,
            journal=self.journal,
            store=RetryingBlobStore(self.faulty, Backoff(cap_seconds=2), clock, entropy),
            sealer=Sealer(
                self.writer,
                self.index,
                CompressionChoice("auto").now,
                lambda _: b"u",
                lambda _: b"g",
            ),
            index=self.index,
            packer=lambda publish: Packer(self.writer, publish, None, target_bytes=600),
            budget=Budget(40_000),
            threads=None,
            clock=clock,
            observer=Silent(),
        )
        self.uploader = None
        if machine.remote is not None:
            self.link = FaultyBlobStore(
                machine.remote,
                seed=machine.rng.randrange(1 << 30),
                rate=machine.fault_rate,
                delay_seconds_max=1.0,
            )
            self.uploader = Uploader(self.catalog, self.fused, self.link, Silent(), clock)
            self.pipeline.on_durable = self.uploader.wake

    async def protection(self) -> Protection:
        keys = self.machine.vault().keys.domain_keys
        info = SourceInfo("sim", self.machine.fs.roots)
        identity = SourceIdentity("sim", keys.source_id("sim"), info)
        state = await self.catalog.write(load_source, "sim", identity.id)
        protection = Protection(
            stream=Stream(
                self.source,
                identity,
                InFlight(),
                state.number,
                lambda _, __: None,
                inodes=await self.catalog.read(watched, self.journal.inodes, state.number),
            ),
            pipeline=self.pipeline,
            catalog=self.catalog,
            threads=None,
            clock=self.machine.clock,
            entropy=self.machine.entropy,
            meters=Silent(),
            rpo_seconds=RPO_SECONDS,
            fids=self.fids,
            survey_numbers=self.survey_numbers,
            has_remote=self.uploader is not None,
        )
        self.protections.append(protection)
        return protection

    def close(self) -> None:
        self.source.unwatch()
        for protection in self.protections:
            protection.close()
        if hasattr(self, "index"):
            self.index.close()
        self.catalog.close()

    # -- a life ----------------------------------------------------------------------------------

    async def live(self, body) -> None:
        """Run everything while `body(host)` runs; then stop in good order."""
        self.machine.loop = asyncio.get_running_loop()
        await self.open()
        async with asyncio.TaskGroup() as services:
            helpers = [services.create_task(self._refresh(), name="state")]
            if self.uploader is not None:
                helpers.append(services.create_task(self.uploader.run(), name="upload"))
            async with asyncio.TaskGroup() as group:
                pipeline = group.create_task(self.pipeline.run(), name="pipeline")
                self.group = group
                await self.start_source()
                await body(self)
                await self.stop_source()
                async with asyncio.timeout(120):
                    await self.pipeline.drain()
                    await pipeline
                    result = await self.catalog.write(self.journal.seal)
                    await self.pipeline.put_all(result)
            if self.uploader is not None:
                self.link.rate = 0.0
                await self.uploader.finish()
            for helper in helpers:
                helper.cancel()
        self.close()
        self.machine.host = None

    async def start_source(self) -> None:
        self.stop = asyncio.Event()
        self.active = await self.protection()
        self.running = self.group.create_task(self.active.run(self.stop), name="source")

    async def stop_source(self) -> None:
        self.stop.set()
        await asyncio.wait([self.running])
        await self.group.create_task(self.cover(), name="coverage")

    async def cover(self) -> None:
        """Write the coverage down, as the daemon does now and then."""
        if self.active.progress.scanned.is_set():
            covered = {"sim": self.active.progress.drained_us}
            await self.catalog.write(self.journal.remember_coverage, covered)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            if self.protections:
                await self.protections[-1].refresh()

    # -- what the body does ----------------------------------------------------------------------

    async def mutate(self, count: int, pause_max: float = 0.5) -> None:
        machine = self.machine
        for _ in range(count):
            await asyncio.sleep(machine.rng.random() ** 3 * pause_max)
            machine.mutator.step()

    async def sample(self) -> None:
        """Note what is promised, now and then, and sometimes what is there."""
        machine = self.machine
        while True:
            await asyncio.sleep(machine.rng.random() * 2)
            self.sample_now(with_blobs=machine.rng.random() < 0.15)

    def sample_now(self, *, with_blobs: bool) -> None:
        machine, protection = self.machine, self.active
        now_us = machine.clock.now_us()
        for destination, store in (("local", machine.store), ("vault", machine.remote)):
            if store is not None:
                machine.samples.append(
                    Sample(
                        now_us,
                        protection.watermarks.through_us(destination),
                        dict(store._blobs) if with_blobs else None,
                        destination,
                    )
                )

    async def settle(self) -> None:
        """Wait until nothing is dirty for a while, or say that it never comes to rest."""
        quiet = 0
        for _ in range(SETTLE_LOOKS):  # scans for lost events keep up to five minutes' distance
            await asyncio.sleep(0.5)
            count = await self.catalog.read(dirty.count, self.active.stream.number)
            torn = await self.catalog.read(dirty.problems, self.active.stream.number)
            is_idle = (
                not (count or torn)  # a file read again may be torn again, between two questions
                and self.pipeline._idle.is_set()
                and self.active.progress.scanned.is_set()
            )
            quiet = quiet + 1 if is_idle else 0
            if quiet > 14:
                return
        rows = await self.catalog.read(lambda c: c.execute("select * from dirty").fetchall())
        raise AssertionError(f"it never settles: {rows}")
