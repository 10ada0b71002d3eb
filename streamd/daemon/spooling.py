"""The bounds of the local copy, as the daemon keeps them: composition, and what is said of it.

While capture waits for room, what changes and changes again is captured once: its versions in
between are lost. So such a time becomes a gap of every source, as soon as it is over.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from streamd.config.model import Config
from streamd.daemon.compose import Stores
from streamd.effects import MICROSECONDS, Clock
from streamd.maintenance.evict import LocalCopy
from streamd.pipeline.spool import Spool, SpoolObserver
from streamd.policy.spool import Bounds

if TYPE_CHECKING:
    from streamd.catalog.db import Catalog
    from streamd.daemon.host import Host
    from streamd.daemon.meters import Meters
    from streamd.daemon.running import Supervisor
    from streamd.daemon.traffic import Traffic
    from streamd.pipeline.upload import Uploader

REASON: Final = "spool-full"  # of the gap
_LOOK_SECONDS: Final = 1.0


class ConfigView:
    """The configuration in force, for those who ask each time: a reload replaces `now`."""

    def __init__(self, config: Config) -> None:
        self.now: Callable[[], Config] = lambda: config

    def __call__(self) -> Config:
        """Return the configuration in force."""
        return self.now()

    def local_seed(self) -> str:
        """Return `local.seed`; `copy` where there is no copy."""
        local = self.now().local
        return "copy" if local is None else local.seed


def open_spool(
    view: ConfigView,
    stores: Stores,
    catalog: "Catalog",
    clock: Clock,
    observer: SpoolObserver,
) -> tuple[Spool, LocalCopy] | tuple[None, None]:
    """Return the store in front of a container and its copy; neither for a directory vault."""
    local = view().local
    if stores.remote is None or local is None:
        return None, None

    def bounds() -> Bounds:
        now = view().local or local
        return Bounds(max_size_bytes=now.max_size_bytes, min_free=now.min_free)

    copy = LocalCopy(catalog, stores.local, local.path)
    return Spool(stores.local, stores.remote, copy, bounds, clock, observer), copy


def connect(
    spool: Spool | None,
    copy: LocalCopy | None,
    view: ConfigView,
    traffic: "Traffic",
    uploader: "Uploader | None",
    meters: "Meters",
) -> None:
    """Let the spool know who may send, and others what it does."""
    if spool is None or copy is None or uploader is None:
        return
    spool.may_bypass = lambda: view.local_seed() != "copy" and not traffic.is_paused
    spool.on_bypass = uploader.wake
    copy.on_evicted = meters.evicted


async def record_full_times(host: "Host", supervisor: "Supervisor") -> None:
    """Record a gap for each time in which capture waited for room longer than a source's RPO."""
    assert host.spool is not None
    began_us = 0
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        full_us = host.spool.full_since_us
        if full_us and not began_us:
            began_us = full_us
        elif began_us and not full_us:
            now_us = host.clock.now_us()
            for protection in supervisor.active().values():
                if now_us - began_us > protection.rpo_seconds * MICROSECONDS:
                    await protection.record_gap(began_us, now_us, REASON)
            began_us = 0
