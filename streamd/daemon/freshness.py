"""Keeping what metrics and `status` show fresh, without waking up when there is nothing new.

A wake-up costs a fifth of a millisecond of processor time, with all that the kernel does for it:
a daemon that looks at everything a few times a second takes a percent of a core for nothing.
Whatever is shown follows from the catalog, so an idle daemon waits until somebody writes there.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from streamd.catalog.db import Catalog
from streamd.daemon.adapting import LOOK_SECONDS, Adapting
from streamd.daemon.meters import Meters
from streamd.pipeline.capture import Pipeline

if TYPE_CHECKING:
    from streamd.daemon.protection import Protection

REST_SECONDS: Final = 30.0  # so often nevertheless
LAG_SECONDS: Final = 0.25
LAG_REST_SECONDS: Final = 5.0


class Freshness:
    """Refreshes what is shown. `active` returns the sources that are protected now, by name."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        pipeline: Pipeline,
        adapting: Adapting,
        meters: Meters,
        active: "Callable[[], Mapping[str, Protection]]",
    ) -> None:
        self._pipeline = pipeline
        self._adapting = adapting
        self._meters = meters
        self._active = active
        self._written = asyncio.Event()
        catalog.on_write = self._written.set

    @property
    def is_busy(self) -> bool:
        """Whether what is shown changes without anything being written in the catalog."""
        pipeline = self._pipeline
        if pipeline.budget.used_bytes or pipeline.backlog_bytes or pipeline.intake.item_count:
            return True
        return any(one.census.is_behind for one in self._active().values())

    async def run(self) -> None:
        """Refresh twice a second while there is something new, until cancelled."""
        while True:
            self._written.clear()
            for protection in list(self._active().values()):
                await protection.refresh()
            self._meters.queues(self._pipeline, self._pipeline.budget)
            await self._adapting.look()
            await asyncio.sleep(LOOK_SECONDS)
            if not self.is_busy:
                await self._something_new()

    async def _something_new(self) -> None:
        try:
            async with asyncio.timeout(REST_SECONDS):
                await self._written.wait()
        except TimeoutError:
            return

    async def measure_lag(self) -> None:
        """Measure how late the loop wakes us, seldom while it has nothing to do."""
        loop = asyncio.get_running_loop()
        while True:
            interval = LAG_SECONDS if self.is_busy else LAG_REST_SECONDS
            due = loop.time() + interval
            await asyncio.sleep(interval)
            self._meters.loop_was_late(max(loop.time() - due, 0.0))
            for protection in self._active().values():
                protection.watermarks.look()
