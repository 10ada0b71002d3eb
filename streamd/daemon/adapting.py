"""Fitting compression and packs to what is short: looks at the queues, and at the uplink's pace."""

import asyncio
from typing import TYPE_CHECKING, Final

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.daemon.meters import Meters
from streamd.effects import Clock
from streamd.pipeline.capture import SEALING_MAX, Pipeline
from streamd.pipeline.channel import BULK, LIVE
from streamd.pipeline.compression import CompressionChoice
from streamd.policy.effort import PACK_BYTES, Signals, pack_bytes
from streamd.storage.rate import ByteRate

if TYPE_CHECKING:
    from streamd.storage.governor import Governor

LOOK_SECONDS: Final = 0.5
_SHARE: Final = 0.3  # of a new look at the uplink; a pause between two packs is no new pace
_PACKS_IN_LIMIT: Final = 16  # of the memory limit, for one pack: several are in memory at a time


class Adapting:
    """Knows the pace of the uplink, and answers the compression and the packer.

    `look` at it every LOOK_SECONDS. The pace is seen only while something waits to be sent:
    otherwise it is ours, and not the line's.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        clock: Clock,
        meters: Meters,
        sending: ByteRate,
        governor: "Governor | None",
        memory_limit_bytes: int,
        compression: CompressionChoice,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._meters = meters
        self._sending = sending
        self._governor = governor
        self._limit_bytes = memory_limit_bytes // _PACKS_IN_LIMIT
        self.compression = compression
        self._pipeline: Pipeline | None = None
        self._seen: tuple[float, int] | None = None  # when, and bytes sent until then
        self.uplink_bytes_per_second = 0.0

    def connect(self, pipeline: Pipeline) -> None:
        """Look at the queues of `pipeline` from now on."""
        self._pipeline = pipeline
        self.compression.queues = self.queues

    def queues(self) -> Signals:
        """Return how full everything is. Called by the threads that seal."""
        pipeline = self._pipeline
        if pipeline is None:
            return Signals()
        sealing = min(1.0, pipeline.sealing_count / (2 * SEALING_MAX))
        return Signals(
            waiting=max(pipeline.intake.fullness(BULK), sealing),
            waiting_live=pipeline.intake.fullness(LIVE),
            behind=pipeline.packer.full.fullness(BULK),
            pile_bytes=pipeline.backlog_bytes,
            uplink_bytes_per_second=self.uplink_bytes_per_second,
        )

    def pack_bytes(self) -> int:
        """Return how large the pack being filled should become."""
        if self._governor is None:
            return PACK_BYTES
        return pack_bytes(
            uplink_bytes_per_second=self.uplink_bytes_per_second,
            at_once=self._governor.window,
            round_trip_seconds=self._governor.round_trip_seconds,
            limit_bytes=self._limit_bytes,
        )

    async def look(self) -> None:
        """Take in how much waits for the uplink, and how fast it goes."""
        pending, pending_bytes = await self._catalog.read(objects.backlog)
        if self._pipeline is not None:
            self._pipeline.backlog_bytes = pending_bytes
        self._meters.backlog(pending, pending_bytes)
        now, moved = self._clock.monotonic(), self._sending.moved_bytes
        before, self._seen = self._seen, (now, moved) if pending else None
        if before is not None and pending and now > before[0]:
            rate = (moved - before[1]) / (now - before[0])
            known = self.uplink_bytes_per_second
            self.uplink_bytes_per_second = known + _SHARE * (rate - known) if known else rate
        self._meters.adapted(
            self.compression.bytes_by_setting, self.pack_bytes(), self.uplink_bytes_per_second
        )

    async def run(self) -> None:
        """Look until cancelled: where nobody else does, in a capture by hand."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
