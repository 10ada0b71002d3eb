"""Before a scan looks at everything: where does anything differ? And had an event said so?"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from streamd.catalog import dirty
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.daemon.comparer import Comparer, Result
from streamd.daemon.meters import Meters
from streamd.daemon.noticing import Noticing
from streamd.daemon.progress import Progress
from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.pipeline.comparing import Difference, Kind
from streamd.pipeline.jobs import Stream
from streamd.policy.announced import PATHS_MAX, Announced

BARRIER_SECONDS: Final = 15.0  # how long to wait for events of what was just seen
_SHOWN_MAX: Final = 5
_EXPECTED: Final = frozenset({Kind.AGAIN, Kind.UNREADABLE, Kind.FORMER, Kind.TOO_LARGE})
_LOG: Final = get_logger("rescan")


class Narrower:
    """Reduces the places of a scan to those where something differs from the catalog."""

    def __init__(
        self,
        *,
        stream: Stream,
        catalog: Catalog,
        comparer: Comparer,
        noticing: Noticing,
        progress: Progress,
        meters: Meters,
        clock: Clock,
    ) -> None:
        self._stream = stream
        self._name = stream.identity.name
        self._catalog = catalog
        self._comparer = comparer
        self._noticing = noticing
        self._progress = progress
        self._meters = meters
        self._clock = clock
        self.seen: Counter[str] = Counter()  # by class, what need not be surveyed any more

    async def narrow(self, places: Sequence[DirtyPlace], reason: str) -> list[DirtyPlace]:
        """Return where a survey has to look so that nothing at or below `places` is missed.

        Those places themselves when there is nothing to compare with, or everything differs.
        """
        self.seen = Counter()
        size = self._progress.entry_count
        if not size:
            return list(places)
        announced = self._noticing.announced = Announced()
        began = self._clock.monotonic()
        try:
            await self._add_open(announced)
            result = await self._comparer.run(
                [place.path for place in places],
                size=size,
                is_gentle=reason == "periodic",
                is_alone=not self._progress.is_watching,
            )
            self._progress.entries_scanned += result.entry_count
            if result.is_too_much:
                _LOG.info("comparison-given-up", source=self._name, why="too much differs")
                return list(places)
            if self._progress.is_watching:
                await self._count_missed(result, announced, reason)
        finally:
            self._noticing.announced = None
        self.seen = result.seen
        _LOG.info(
            "compared",
            source=self._name,
            reason=reason,
            entries=result.entry_count,
            seconds=round(self._clock.monotonic() - began, 3),
            differences=len(result.differences),
            processes=result.processes,
        )
        return self._places(result.differences, min(place.first_us for place in places))

    def _places(self, differences: Sequence[Difference], first_us: int) -> list[DirtyPlace]:
        depths: dict[bytes, Depth] = {}
        for each in differences:
            depth = Depth.BELOW if each.is_deep else Depth.ENTRY
            if each.kind == Kind.FORMER or (
                each.is_deep and each.path in self._stream.source.roots
            ):
                depth = Depth.SCAN  # roots that are not there are for the scan to wait for
            depths[each.path] = max(depth, depths.get(each.path, Depth.ENTRY))
        return [DirtyPlace(path, depth, first_us) for path, depth in depths.items()]

    async def _add_open(self, announced: Announced) -> None:
        """What waits, or is being looked at, was noticed."""
        rows = await self._catalog.read(dirty.open_places, self._stream.number, PATHS_MAX)
        for path, deep in rows:
            announced.add(path, is_deep=deep > Depth.ENTRY)

    async def _count_missed(self, result: Result, announced: Announced, reason: str) -> None:
        """Count differences that no event has announced, when there has been time for it."""
        suspects = [each for each in result.differences if each.kind not in _EXPECTED]
        missed: list[Difference] = []
        if suspects and await self._all_noticed(self._clock.now_us()):
            await self._add_open(announced)
            problems = await self._catalog.read(dirty.problems, self._stream.number)
            known = {problem.path for problem in problems}
            for each in sorted(suspects, key=lambda one: one.kind == Kind.DIRECTORY):
                is_directory = each.kind == Kind.DIRECTORY
                if each.path in known or announced.covers(each.path, is_directory=is_directory):
                    continue
                missed.append(each)
                announced.add(each.path, is_deep=each.is_deep)  # one change, not several
        self._meters.missed(self._name, reason, len(missed))
        if missed:
            shown = [each.path.decode(errors="replace") for each in missed[:_SHOWN_MAX]]
            _LOG.warning(
                "changes-missed", source=self._name, reason=reason, count=len(missed), paths=shown
            )

    async def _all_noticed(self, until_us: int) -> bool:
        """Wait until every event up to an instant is noted; False when that takes too long."""
        try:
            async with asyncio.timeout(BARRIER_SECONDS):
                while self._progress.drained_us < until_us:
                    self._noticing.drained.clear()
                    await self._noticing.drained.wait()
        except TimeoutError:
            _LOG.info("missed-not-counted", source=self._name, why="watching is behind")
            return False
        return True
