"""One process' hold on a vault and on its state directory: open, recover, capture, close.

`daemon.opening` opens and recovers; what captures comes on top of that here.
"""

import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from streamd import __version__
from streamd.catalog import dirty
from streamd.catalog.db import INDEX_CACHE_KIB, Catalog
from streamd.catalog.inodes import watched
from streamd.catalog.journal import inherit_coverage, next_fid_floor
from streamd.catalog.objects import ObjectState
from streamd.catalog.tree import load_source
from streamd.config.model import Config, SourceConfig
from streamd.daemon.adapting import Adapting
from streamd.daemon.compose import Stores, open_stores, open_vault_of
from streamd.daemon.handover import take
from streamd.daemon.meters import Meters
from streamd.daemon.opening import finish_puts, open_catalog, take_lock
from streamd.daemon.protection import Protection
from streamd.daemon.sources import SourceFactory, own_paths
from streamd.daemon.spooling import ConfigView, connect, open_spool
from streamd.daemon.terms import Terms
from streamd.daemon.traffic import Traffic
from streamd.effects import Clock, Entropy
from streamd.format.vault_config import check_supported
from streamd.maintenance.evict import LocalCopy
from streamd.model.entry import SourceInfo
from streamd.pipeline.budget import Budget
from streamd.pipeline.capture import Pipeline
from streamd.pipeline.commit import Journal, SourceIdentity
from streamd.pipeline.compression import CompressionChoice
from streamd.pipeline.dedup import DedupIndex
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.jobs import Stream
from streamd.pipeline.packer import Packer
from streamd.pipeline.seal import Sealer
from streamd.pipeline.spool import Spool
from streamd.pipeline.upload import Uploader
from streamd.policy.backoff import Backoff
from streamd.policy.effort import PACK_BYTES
from streamd.sources.filesystem.kept import KeptGroups
from streamd.sources.filesystem.mountwatch import MountWatch
from streamd.sources.filesystem.names import OwnerNames
from streamd.storage.rate import ByteRate
from streamd.storage.retrying import RetryingBlobStore
from streamd.vault.vault import Vault
from streamd.vault.writer import VaultWriter

THREADS: Final = 4
UPLOAD_GIVE_UP_SECONDS: Final = 20.0  # then the uploader says so and goes on trying
BUDGET_SHARE: Final = 0.5  # of what sending leaves: the rest is packs, catalog cache, results
PACK_MEMORY_BYTES: Final = 64 << 20  # of the limit for each pack being uploaded: four times its own
PACKS_IN_FLIGHT_MAX: Final = 32


class Host(msgspec.Struct):
    """Everything a capturing process holds."""

    config: Config
    stores: Stores
    vault: Vault
    writer: VaultWriter
    catalog: Catalog
    journal: Journal
    pipeline: Pipeline
    uploader: Uploader | None
    meters: Meters
    clock: Clock
    entropy: Entropy
    threads: ThreadPoolExecutor
    fids: Iterator[int]
    survey_numbers: Iterator[int]
    mounts: MountWatch
    sources: SourceFactory
    view: ConfigView
    traffic: Traffic
    spool: Spool | None  # the store in front of a container
    copy: LocalCopy | None
    adapting: Adapting
    was_clean: bool = False  # the last daemon stopped in good order

    async def protection(self, name: str, source: SourceConfig, *, now: bool = False) -> Protection:
        """Return the protection of a configured source, not yet running; see `sources.make`."""
        keys = self.vault.keys.domain_keys
        identity = SourceIdentity(name, keys.source_id(name), SourceInfo(name, source.path_bytes))
        state = await self.catalog.write(load_source, name, identity.id)
        await self.catalog.write(inherit_coverage, name, state.info)
        inodes = await self.catalog.read(watched, self.journal.inodes, state.number)
        past = await self.catalog.write(take, name)
        made, thread = self.sources.make(name, source, now=now)
        self.meters.metrics.add_source(name, source.rpo_seconds)
        is_files = source.kind == "filesystem"
        return Protection(
            stream=Stream(
                made,
                identity,
                InFlight(),
                state.number,
                lambda _, __: None,
                thread,
                inodes=inodes,
            ),
            pipeline=self.pipeline,
            catalog=self.catalog,
            threads=self.threads,
            clock=self.clock,
            entropy=self.entropy,
            meters=self.meters,
            rpo_seconds=source.rpo_seconds,
            fids=self.fids,
            survey_numbers=self.survey_numbers,
            has_remote=self.uploader is not None,
            terms=Terms(
                was_clean=self.was_clean,
                past=past,
                settings=self._settings_of(source),
                is_ending=lambda: self.mounts.is_ended,
                describe=self.sources.describe(source, self.catalog.path, state.number),
                reconcile_seconds=source.reconcile_seconds,
                reread_seconds=source.reread_seconds if is_files else 0,
                canary_seconds=source.canary_seconds if is_files else 0,
                hooks=self.sources.hooks(name, source),
            ),
        )

    def _settings_of(self, source: SourceConfig) -> bytes:
        """Return what decides what is captured of a source: after a change a scan is needed."""
        facts = (__version__, repr(source), own_paths(self.config))
        return hashlib.sha256(repr(facts).encode()).digest()

    async def finish(self) -> None:
        """End the epoch in good order, after the pipeline has drained."""
        result = await self.catalog.write(self.journal.seal)
        await self.pipeline.put_all(result)


@asynccontextmanager
async def open_host(
    config: Config,
    *,
    clock: Clock,
    entropy: Entropy,
    meters: Meters,
    kept: KeptGroups | None = None,
) -> AsyncIterator[Host]:
    """Open everything, recover, and lend it. Raises AlreadyRunning and what opening raises.

    `kept` are the watches that the last process has left with the service manager.
    """
    lock = take_lock(config.daemon.state)
    sending = ByteRate(clock, None)
    stores = open_stores(
        config,
        observer=meters,
        give_up_after_seconds=UPLOAD_GIVE_UP_SECONDS,
        clock=clock,
        sending=sending,
    )
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="streamd")
    try:
        await stores.local.sweep_tmp()
        vault = await open_vault_of(config, stores)
        check_supported(vault.config, vault.config.features.write)
        catalog = await open_catalog(config.daemon.state, vault, stores, clock)
        try:
            await catalog.mind_role(may_read=vault.keys.host.is_full)
            mounts = MountWatch(clock, kept=kept, own_directories=own_paths(config))
            host = await _assemble(
                config, stores, vault, catalog, clock, entropy, meters, threads, sending, mounts
            )
            await host.traffic.start(host.view)
            yield host
        finally:
            await catalog.aclose()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        await stores.aclose()
        os.close(lock)


async def _assemble(  # noqa: PLR0917 - the parts
    config: Config,
    stores: Stores,
    vault: Vault,
    catalog: Catalog,
    clock: Clock,
    entropy: Entropy,
    meters: Meters,
    threads: ThreadPoolExecutor,
    sending: ByteRate,
    mounts: MountWatch,
) -> Host:
    writer = VaultWriter(vault, clock, entropy)
    journal = Journal(writer, clock, has_remote=stores.remote is not None)
    put_state = ObjectState.VAULT if stores.remote is None else ObjectState.LOCAL
    await finish_puts(catalog, stores, put_state)
    await catalog.write(dirty.release_all)
    index = DedupIndex(partial(catalog.open_reader, cache_kib=INDEX_CACHE_KIB))
    adapting = _adapting(config, stores, catalog, clock, meters, sending)
    view = ConfigView(config)
    spool, copy = open_spool(view, stores, catalog, clock, meters)
    pipeline = Pipeline(
        catalog=catalog,
        journal=journal,
        store=RetryingBlobStore(spool or stores.local, Backoff(cap_seconds=10), clock, entropy),
        sealer=_sealer(writer, index, adapting.compression, OwnerNames(clock)),
        index=index,
        packer=lambda publish: Packer(writer, publish, threads, adapting.pack_bytes),
        budget=_budget(config, stores),
        threads=threads,
        clock=clock,
        observer=meters,
    )
    uploader = _uploader(config, stores, catalog, pipeline, meters, clock)
    adapting.connect(pipeline)
    traffic = Traffic(catalog, clock, sending, uploader)
    connect(spool, copy, view, traffic, uploader, meters)
    return Host(
        config=config,
        stores=stores,
        vault=vault,
        writer=writer,
        catalog=catalog,
        journal=journal,
        pipeline=pipeline,
        uploader=uploader,
        meters=meters,
        clock=clock,
        entropy=entropy,
        threads=threads,
        fids=itertools.count(await catalog.write(next_fid_floor)),
        survey_numbers=itertools.count(1),
        mounts=mounts,
        sources=SourceFactory(config, vault.keys.domain_keys, clock, meters, mounts),
        view=view,
        traffic=traffic,
        spool=spool,
        copy=copy,
        adapting=adapting,
    )


def _sealer(
    writer: VaultWriter, index: DedupIndex, how: CompressionChoice, names: OwnerNames
) -> Sealer:
    return Sealer(writer, index, how.now, names.user, names.group, how.sealed)


def _adapting(
    config: Config,
    stores: Stores,
    catalog: Catalog,
    clock: Clock,
    meters: Meters,
    sending: ByteRate,
) -> Adapting:
    return Adapting(
        catalog=catalog,
        clock=clock,
        meters=meters,
        sending=sending,
        governor=None if stores.uplink is None else stores.uplink.governor,
        memory_limit_bytes=config.pipeline.memory_limit_bytes,
        compression=CompressionChoice(config.pipeline.compression, threads=THREADS),
    )


def _uploader(
    config: Config,
    stores: Stores,
    catalog: Catalog,
    pipeline: Pipeline,
    meters: Meters,
    clock: Clock,
) -> Uploader | None:
    """Return what copies to the container; None if the directory is the vault itself."""
    if stores.remote is None:
        meters.has_remote = False
        return None
    uploader = Uploader(
        catalog,
        stores.local,
        stores.remote,
        meters,
        clock,
        gate=None if stores.uplink is None else stores.uplink.governor,
        packs_in_flight=packs_in_flight(config.pipeline.memory_limit_bytes),
    )
    pipeline.on_durable = uploader.wake
    return uploader


def _budget(config: Config, stores: Stores) -> Budget:
    limit_bytes = config.pipeline.memory_limit_bytes
    return Budget(budget_bytes(limit_bytes, sends=stores.remote is not None))


def packs_in_flight(memory_limit_bytes: int) -> int:
    """Return how many packs the uploader may hold: a quarter of the limit, 1 to 32."""
    return max(1, min(memory_limit_bytes // PACK_MEMORY_BYTES, PACKS_IN_FLIGHT_MAX))


def budget_bytes(memory_limit_bytes: int, *, sends: bool) -> int:
    """Return how much content may be in flight: half of the limit.

    Where packs are sent as well, those that the uploader holds come off the limit first.
    """
    sent_bytes = packs_in_flight(memory_limit_bytes) * PACK_BYTES if sends else 0
    return int((memory_limit_bytes - sent_bytes) * BUDGET_SHARE)
