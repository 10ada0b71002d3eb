"""Live cuts: what became dirty is looked at and committed as one instant of the source.

    barrier ─▶ pick ─▶ pass: look, read ─▶ can all of it have been true at once? ─▶ commit
                 ▲                            │ no: nothing of it is recorded,
                 └── barrier, what is new ────┘ and another pass is made

Watchers tell of a change from inside the system call that makes it, and in order; so once their
queue is empty, whatever happened before is in the dirty set. `policy.settling` says what can be
wrong with a pass and why nothing else can. A second pass reads only what changed since the first,
so it is short, and little happens meanwhile. When that does not settle in time, the last pass is
recorded all the same, and a gap that says so lasts until the next cut that is settled.
"""

import asyncio
from collections.abc import Container
from typing import Final

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.daemon.gaps import OpenGaps
from streamd.daemon.large_files import LargeFiles
from streamd.daemon.meters import Meters
from streamd.daemon.noticing import Noticing
from streamd.daemon.progress import Progress
from streamd.daemon.surveying import Surveying
from streamd.model.host import Identity
from streamd.observe.logging import get_logger
from streamd.pipeline.channel import LIVE
from streamd.pipeline.cut import Cut
from streamd.pipeline.survey import Survey
from streamd.policy import settling
from streamd.policy.cadence import spared_share

LIVE_PLACES_MAX: Final = 4000  # in one pick
PASSES_MAX: Final = 8
UNSETTLED: Final = "unsettled"  # reason of a gap
_LOG: Final = get_logger("protection")


class Cutting:
    """Makes the live cuts of one source, one at a time."""

    def __init__(
        self,
        *,
        surveying: Surveying,
        noticing: Noticing,
        gaps: OpenGaps,
        progress: Progress,
        meters: Meters,
        rpo_seconds: float,
    ) -> None:
        self.large = LargeFiles(
            surveying, meters, slow_seconds=rpo_seconds, on_captured=self._on_captured
        )
        self._surveying = surveying
        self._noticing = noticing
        self._gaps = gaps
        self._progress = progress
        self._meters = meters
        self._name = surveying.stream.identity.name
        self._seconds_max = rpo_seconds / 2  # then no further pass
        self.seconds = 0.0  # what the last cut took
        self.spared_share = 1.0  # of that, if the one before had waited for it
        self._sizes: dict[int, int] = {}  # of the files that were read for it
        self._mixed: dict[bytes, float] = {}  # of unsettled cuts -> when: to be looked at again

    async def cut(self) -> Survey | None:
        """Look at what is dirty, until what is found is durable; None: nothing is dirty."""
        started = asyncio.get_running_loop().time()
        is_promised = self._is_promised()
        since_us = await self._noticing.barrier() if is_promised else None
        number = self._surveying.begin()
        picked = await self._surveying.pick(number, LIVE, LIVE_PLACES_MAX)
        if not picked:
            return None
        began_us = self._progress.drained_us
        begun = _Begun(number, picked, is_promised=is_promised)
        begun.begin(since_us)
        unsettled = self._gaps.of(UNSETTLED)
        cut = Cut()
        try:
            survey, doubt = await self._pass_on(begun, cut)
            is_clear = await self._is_clear(begun, survey, cut)
            if survey.trail.large:
                await self.large.take_over(survey.trail.large.values())
        except BaseException:
            self._surveying.let_go(cut)
            raise
        if doubt:
            self._mixed |= dict.fromkeys(begun.mixed, asyncio.get_running_loop().time())
            # A part may have been recorded long before the end.
            start_us = began_us if cut.is_broken else self._progress.drained_us
            self._gaps.begin(start_us, UNSETTLED, b"")
            self._meters.unsettled(self._name)
            _LOG.warning("cut-unsettled", source=self._name, reason=doubt)
        closed = []
        if is_clear and not doubt:
            closed = self._gaps.close(unsettled, self._progress.drained_us)
        await self._surveying.end(number, LIVE, first_us=begun.first_us, gaps=closed)
        self.seconds = asyncio.get_running_loop().time() - started
        self.spared_share = spared_share(self._sizes, cut.sizes)
        self._sizes = cut.sizes
        return survey

    async def _on_captured(self, path: bytes) -> None:
        """A large file was captured by itself. If a gap waits for that, a cut has to close it."""
        if path in self._mixed:
            await self._noticing.note({path: int(Depth.ENTRY)}, self._progress.drained_us)

    async def _is_clear(self, begun: "_Begun", survey: Survey, cut: Cut) -> bool:
        """Say whether all that earlier cuts may have mixed was looked at since.

        A large file counts when it was captured by itself: a cut leaves it to that.
        """
        if not self._mixed:
            return True
        await cut.was_read()
        left = {*survey.trail.slipped, *survey.trail.large}
        left.update(place.path for place in cut.slipped())
        for path, since in list(self._mixed.items()):
            was_seen = path not in left and begun.was_looked_at(path, survey.trail.absent)
            if was_seen or self.large.captured.get(path, -1.0) > since:
                del self._mixed[path]
        return not self._mixed

    def _is_promised(self) -> bool:
        """Whether an instant now would be told as exact: no other gap is open."""
        if self._gaps.is_open(besides=UNSETTLED) or not self._progress.scanned.is_set():
            return False
        return self._progress.is_watching and self._surveying.stream.source.hurry()

    async def _pass_on(self, begun: "_Begun", cut: Cut) -> tuple[Survey, str]:
        """Make passes until one is settled; return the last, and what is in doubt about it."""
        surveying, loop = self._surveying, asyncio.get_running_loop()
        started, count = loop.time(), 0
        while True:
            is_left = self.large.is_open and begun.leaves_large
            survey = await surveying.survey(list(begun.places.values()), leaves_large=is_left)
            await surveying.look(survey, LIVE, first_us=begun.first_us, cut=cut)
            count += 1
            if survey.missing:
                return survey, ""
            if not begun.is_promised:
                return survey, await self._large_doubt(begun, survey)
            await cut.was_read()
            doubt = await self._doubt(begun, survey, cut)
            is_late = count == PASSES_MAX or loop.time() - started > self._seconds_max
            if not doubt or cut.is_broken or is_late:
                return survey, doubt
            self._meters.pass_again(self._name)
            begun.add([*cut.slipped(), *cut.unread(), *survey.trail.deferred])
            cut.void(lambda parked: surveying.stream.in_flight.settle(parked.ready.settled))
            begun.begin(await self._noticing.barrier())
            begun.pick(await surveying.pick(begun.number, LIVE, LIVE_PLACES_MAX))

    async def _doubt(self, begun: "_Begun", survey: Survey, cut: Cut) -> str:
        """Say why the pass that was just read may mix instants; empty: it does not."""
        young = {
            entry.fid: Identity(stat.dev, stat.ino, entry.generation, 0)
            for entry, stat in cut.young(begun.since_us)
            if max(stat.nlink, entry.stat.nlink) > 1
        }
        moved, names = await self._surveying.moves(survey, list(young))
        slipped = [*survey.trail.slipped, *(place.path for place in cut.slipped())]
        if begun.since_us == 0:
            return "events are late"
        if (cut.is_broken or begun.is_full) and (moved or names):
            return "too large to be committed at once"
        begun.mixed = settling.mixed([*slipped, *survey.trail.large], moved)
        if begun.mixed:
            # A large file that moves with its directory has to be read with all that moves.
            begun.leaves_large = begun.leaves_large and begun.mixed.isdisjoint(survey.trail.large)
            return "moved while it was looked at"
        if cut.unread():
            return "gone while it was read"
        files = {name: young[fid] for name, fid in names.items()}
        if files and not await self._surveying.are_there(files):
            return "renamed while it was read"
        return ""

    async def _large_doubt(self, begun: "_Begun", survey: Survey) -> str:
        """Say the same of a cut of which nothing is promised now: it may be when it has ended."""
        if not survey.trail.large:
            return ""
        moved, _ = await self._surveying.moves(survey, ())
        begun.mixed = settling.mixed(survey.trail.large, moved)
        return "a large file moved" if begun.mixed else ""


class _Begun:
    """A cut that has begun: its places, and since when they are being looked at."""

    def __init__(self, number: int, picked: list[DirtyPlace], *, is_promised: bool) -> None:
        self.number = number
        self.is_promised = is_promised
        self.places: dict[bytes, DirtyPlace] = {}
        self.first_us = picked[0].first_us
        self.leaves_large = True  # those that changed are not waited for
        self.mixed: frozenset[bytes] = frozenset()  # what may be shown where it never was
        self.is_full = False  # more was dirty than the last pick took: not all is looked at
        self.since_us = 0  # everything before was noticed when its last pass began; 0: not known
        self.pick(picked)

    def begin(self, since_us: int | None) -> None:
        """A pass begins."""
        self.since_us = since_us or 0

    def was_looked_at(self, path: bytes, absent: Container[bytes]) -> bool:
        """Say whether the last pass has looked at a path, or found that it is not there."""
        if path in self.places:
            return True
        ways = (each for each in settling.above(path) if each in self.places)
        return any(self.places[each].deep or each in absent for each in ways)

    def pick(self, picked: list[DirtyPlace]) -> None:
        """Look at what was dirty, too."""
        self.is_full = len(picked) >= LIVE_PLACES_MAX
        self.add(picked)

    def add(self, more: list[DirtyPlace]) -> None:
        """Look at these too, and as deep as anybody asked for."""
        for place in more:
            known = self.places.get(place.path, place)
            depth, age = max(known.depth, place.depth), min(known.first_us, place.first_us)
            self.places[place.path] = DirtyPlace(place.path, depth, age)
            self.first_us = min(self.first_us, place.first_us)
