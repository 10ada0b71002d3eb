"""Three days without the container, in virtual time: nothing is lost, and the line is used when it
is back.

STREAMD_OUTAGE_HOURS (default 24; 72 for acceptance). A host with a change every 15 s a fifth of the
time, and 2 GB of large files a day, behind a line of 50 Mbit/s with 30 ms to the service. Objects are
small here and said to be large, so that a day fits into memory; the uploader, what retries and what
governs it are the real ones.
"""

import asyncio
import os
import random

import pytest
from patience import Patience
from simloop import simulate

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.errors import StreamdError, VaultUnreachable
from streamd.pipeline.upload import Uploader
from streamd.policy.backoff import Backoff
from streamd.storage.governed import GovernedBlobStore
from streamd.storage.governor import Governor
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName
from streamd.storage.retrying import RetryingBlobStore

HOURS = float(os.environ.get("STREAMD_OUTAGE_HOURS", "24"))
LINE_BYTES_PER_SECOND = 50_000_000 / 8
LATENCY_SECONDS = 0.03
SEGMENT_BYTES, PACK_BYTES = 40_000, 16 << 20
PACK_EVERY_SECONDS = 86_400 / (2e9 / PACK_BYTES)
SEGMENT_EVERY_SECONDS = 15 / 0.2


class LoopClock:
    def now_us(self) -> int:
        return int(self.monotonic() * 1e6) + 1

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Tokens:
    def __init__(self) -> None:
        self._random = random.Random(1)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Line(MemoryBlobStore):
    """A container at the end of a line that everybody shares; `down`: nobody answers."""

    def __init__(self) -> None:
        super().__init__(LoopClock())
        self.down = False
        self.order: list[str] = []
        self.attempts = 0
        self._turn = asyncio.Lock()

    async def put(self, name, data) -> None:
        self.attempts += 1
        if self.down:
            await asyncio.sleep(5)
            raise VaultUnreachable("no answer", endpoint="sim")
        await asyncio.sleep(LATENCY_SECONDS)
        left = size_of(name)
        while left > 0:  # in turns, as packets are
            piece = min(left, 256 << 10)
            async with self._turn:
                await asyncio.sleep(piece / LINE_BYTES_PER_SECOND)
            left -= piece
        await super().put(name, data)
        self.order.append(name)


def size_of(name: str) -> int:
    return PACK_BYTES if name.startswith("p") else SEGMENT_BYTES


class Told:
    """Listens to the uploader; remembers only what it must not hear."""

    def __init__(self) -> None:
        self.unexpected: list[StreamdError] = []

    def uploaded(self, row, seconds, delays) -> None:
        pass

    def upload_failed(self, error) -> None:
        if not isinstance(error, VaultUnreachable):
            self.unexpected.append(error)


@pytest.mark.slow
@pytest.mark.timeout(0)  # by progress: the virtual days may take as long as the machine is busy
def test_after_days_without_the_container_the_line_is_full_and_nothing_is_lost(tmp_path) -> None:
    catalog = Catalog(str(tmp_path))
    try:
        with Patience(60) as patience:
            simulate(_outage(catalog, patience))
    finally:
        catalog.close()


async def _outage(catalog: Catalog, patience: Patience) -> None:
    clock, told, line = LoopClock(), Told(), Line()
    local = MemoryBlobStore(clock)
    governor = Governor(clock, Tokens())
    governed = GovernedBlobStore(line, governor, lambda name: name[0] == "p")
    remote = RetryingBlobStore(governed, Backoff(), clock, Tokens(), give_up_after_seconds=20)
    uploader = Uploader(catalog, local, remote, told, clock, gate=governor)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(uploader.run(), name="upload")
        line.down = True
        names = await _live_through(HOURS * 3600, catalog, local, uploader, patience)
        line.down = False
        began, waiting = loop.time(), sum(map(size_of, names))
        left = len(names) + 1
        while (pending := (await catalog.read(objects.backlog))[0]) != 0:
            if pending < left:
                left = pending
                patience.progress()
            uploader.wake()
            await asyncio.sleep(1)
        running.cancel()
    rate = waiting / (loop.time() - began)
    assert rate >= 0.8 * LINE_BYTES_PER_SECOND, f"{rate / LINE_BYTES_PER_SECOND:.0%} of the line"
    assert {info.name async for info in line.scan("")} == set(names)
    assert told.unexpected == []
    segments = [name for name in line.order if name[0] == "j"]
    assert segments == sorted(segments), "the container must hold a prefix of the journal"
    assert _longest_wait(line.order) <= 64, "segments waited while packs went that they do not need"
    assert line.attempts - len(names) < HOURS * 3600 / 10, "a storm of requests during the outage"


async def _live_through(seconds: float, catalog, local, uploader, patience: Patience) -> list[str]:
    """Capture for so long; return the names of all objects. Each segment needs the last pack."""
    loop = asyncio.get_running_loop()
    end, next_pack, names, pack = loop.time() + seconds, 0.0, [], ()
    while loop.time() < end:
        if loop.time() >= next_pack:
            next_pack = loop.time() + PACK_EVERY_SECONDS
            pack = (await _add(catalog, local, f"p{len(names):06}", "P", ()),)
            names.append(f"p{len(names):06}")
        await _add(catalog, local, f"j{len(names):06}", "J", pack)
        names.append(f"j{len(names):06}")
        uploader.wake()
        patience.progress()
        await asyncio.sleep(SEGMENT_EVERY_SECONDS)
    return names


async def _add(catalog, local, name: str, kind: str, needs: tuple[int, ...]) -> int:
    await local.put(BlobName(name), name.encode())
    return await catalog.write(
        objects.add,
        name=name,
        kind=kind,
        size=size_of(name),
        now_us=1,
        state=ObjectState.LOCAL,
        needs=needs,
    )


def _longest_wait(order: list[str]) -> int:
    """Return how many packs in a row went while the next segment could have gone."""
    there: set[str] = set()
    segments = [name for name in sorted(order) if name[0] == "j"]
    packs = [name for name in sorted(order) if name[0] == "p"]
    need = {}
    for name in segments:
        need[name] = max((pack for pack in packs if pack[1:] < name[1:]), default="")
    at, longest, waited = 0, 0, 0
    for name in order:
        there.add(name)
        if name[0] == "j":
            at, waited = at + 1, 0
        elif at < len(segments) and need[segments[at]] in there:
            waited += 1
            longest = max(longest, waited)
    return longest
