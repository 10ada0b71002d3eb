"""The protection of one source: watch it, look where something changed, hand findings to the
pipeline.

The main tasks: *watch* turns events into dirty places, durable before anything is done about them.
*cut* looks at dirty places at the pace that the RPO asks for. *scan* compares the whole tree with
the catalog:
at the start, after lost events, and now and then, and closes the coverage gaps it was started for.
Steps of surveys of one source take turns.
"""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

from streamd.catalog import dirty, objects
from streamd.catalog.db import Catalog, get_int
from streamd.catalog.dirty import EVER, Depth, DirtyPlace, Problem
from streamd.catalog.tree import TreeLookup, entry_count
from streamd.daemon.meters import Meters
from streamd.effects import MICROSECONDS, Clock, Entropy
from streamd.model.record import Gap, Mark
from streamd.observe.logging import get_logger
from streamd.pipeline.capture import Pipeline
from streamd.pipeline.channel import BULK, LIVE
from streamd.pipeline.findings import Finding, Ready
from streamd.pipeline.jobs import Stream
from streamd.pipeline.survey import Survey
from streamd.policy.backoff import fraction_of
from streamd.policy.cadence import Cadence
from streamd.sources.port import WatchBatch

LIVE_PLACES_MAX: Final = 4000  # in one survey
SCAN_PLACES_MAX: Final = 100_000
SETTLE_ROUNDS_MAX: Final = 20  # one-shot capture: looks at what moved meanwhile
MISSING_RETRY_SECONDS: Final = 5.0
FUZZY_RETRY_SECONDS: Final = 5.0
CLEAN_KEY: Final = "clean"  # in the catalog's meta: the last daemon stopped in good order
RECONCILE_SECONDS: Final = 3600.0
_LOG: Final = get_logger("protection")


@dataclass(slots=True)
class _OpenGap:
    """Since `start_us` something may have been missed below `scope`; a scan will close it."""

    start_us: int
    reason: str
    scope: bytes


@dataclass(slots=True)
class Progress:
    """What `status` shows of a source."""

    state: str = "starting"  # starting | scanning | protected | source-missing
    message: str = ""
    drained_us: int = 0  # every change made before it has been noticed
    local_oldest_us: int | None = None  # oldest change not yet durable in the local vault
    vault_oldest_us: int | None = None  # oldest change not yet in the vault of record
    last_change_us: int = 0
    last_scan_us: int = 0
    dirty_count: int = 0
    problem_count: int = 0
    fuzzy_count: int = 0
    entry_count: int = 0  # in the newest state
    entries_scanned: int = 0
    is_watching: bool = False
    scanned: asyncio.Event = field(default_factory=asyncio.Event)


class Protection:
    """Keeps one source protected. `run` it in a TaskGroup, or `capture_once`."""

    def __init__(
        self,
        *,
        stream: Stream,
        pipeline: Pipeline,
        catalog: Catalog,
        threads: Executor,
        clock: Clock,
        entropy: Entropy,
        meters: Meters,
        rpo_seconds: float,
        fids: Iterator[int],
        survey_numbers: Iterator[int],
        has_remote: bool,
        was_clean: bool = False,
    ) -> None:
        self.stream = stream
        self.name = stream.identity.name
        self.rpo_seconds = rpo_seconds
        self.progress = Progress()
        self._pipeline = pipeline
        self._catalog = catalog
        self._threads = threads
        self._clock = clock
        self._entropy = entropy
        self._meters = meters
        self._fids = fids
        self._has_remote = has_remote
        self._was_clean = was_clean
        self._reader = catalog.open_reader()
        self._lookup = TreeLookup(self._reader, stream.number)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._scan_asked = asyncio.Event()
        self._scan_reason = "start"
        self._first_dirty: float | None = None  # loop time of the oldest unpicked change
        self._last_dirty = 0.0
        self._gaps: list[_OpenGap] = []
        self._fuzzy: dict[bytes, int] = {}
        self._fuzzy_found = asyncio.Event()
        self._note_count = 0
        self._covered_us = EVER  # changes before were noticed by an earlier protection
        self._born_us = clock.now_us()
        self._survey_numbers = survey_numbers
        self._done: dict[int, asyncio.Event] = {}
        stream.on_committed = self._on_committed
        stream.new_fid = lambda: next(fids)

    def close(self) -> None:
        """Close the reader, after the tasks have ended."""
        self._reader.close()

    # -- tasks -----------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Protect until `stop` is set. What is in the pipeline then is finished by others."""
        await self._begin()
        await self._open_start_gap("not-watching" if self._was_clean else "unclean-stop")
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(), name=f"watch:{self.name}")
            scanning = group.create_task(self._scan_loop(), name=f"scan:{self.name}")
            cutting = group.create_task(self._cut_loop(), name=f"cut:{self.name}")
            reconciling = group.create_task(self._reconcile_loop(), name=f"rescan:{self.name}")
            fuzzy = group.create_task(self._fuzzy_loop(), name=f"fuzzy:{self.name}")
            await stop.wait()
            for task in (watching, scanning, cutting, reconciling, fuzzy):
                task.cancel()

    async def capture_once(self, marks: Sequence[Mark] = ()) -> None:
        """Look at everything once, without watching, until it stands still (or nearly)."""
        await self._begin()
        await self._open_start_gap("not-watching")
        self.progress.state = "scanning"
        await self._note(dict.fromkeys(self.stream.source.roots, Depth.SCAN), self._covered_us)
        for _ in range(SETTLE_ROUNDS_MAX):
            await self._survey(BULK)
            await self._survey(LIVE)
            if not await self._catalog.read(dirty.count, self.stream.number):
                break
        if marks:
            await self._pipeline.submit(
                self.stream, BULK, Finding(), first_us=0, marks=marks, gaps=()
            )
        if self.progress.state == "scanning":
            self.progress.state = "protected"
        self.progress.drained_us = self._clock.now_us()

    async def _begin(self) -> None:
        """Start from firm ground: nothing of an earlier protection of this source is under way."""
        await self._pipeline.quiesce()
        await self._catalog.write(dirty.release, self.stream.number)
        await self.refresh()  # what an earlier one has left undone counts from the beginning

    async def _open_start_gap(self, reason: str) -> None:
        covered_us = await self._catalog.read(get_int, f"covered:{self.name}")
        if covered_us:
            self._covered_us = covered_us
            self._gaps.append(_OpenGap(covered_us, reason, b""))

    # -- noticing --------------------------------------------------------------------------------

    async def _watch(self) -> None:
        first = True
        async for batch in self.stream.source.watch():
            if first:  # what was before counts as dirty before the barrier moves
                first = False
                self.progress.is_watching = True
                self._meters.watching(self.name, self.stream.source.watch_modes)
                await self.ask_scan("start", since_us=self._covered_us)
            await self._take(batch)

    async def _take(self, batch: WatchBatch) -> None:
        """Make the events of a batch durable as dirty places; then move the barrier.

        What is in this batch happened after the barrier of the one before: that is its age.
        """
        since_us = self.progress.drained_us or self._covered_us
        places: dict[bytes, int] = {
            path: Depth.BELOW if deep else Depth.ENTRY for path, deep in batch.paths.items()
        }
        if batch.inodes:
            for path in await self._names_of(batch.inodes):
                places.setdefault(path, Depth.ENTRY)
        if batch.event_count:
            self._meters.events(self.name, batch.event_count)
        if batch.gap:
            self._gaps.append(_OpenGap(since_us, batch.gap, batch.scope))
            self._meters.overflow(self.name)
            _LOG.warning("events-lost", source=self.name, reason=batch.gap, scope=batch.scope)
            await self.ask_scan(batch.gap, batch.scope, since_us=since_us)
        if places:
            await self._note(places, since_us)
        self.progress.drained_us = max(self.progress.drained_us, batch.drained_us)

    async def _names_of(self, inodes: set[tuple[int, int]]) -> list[bytes]:
        """Return the paths of files known by number only, those under way included."""
        async with self._turn:  # between two steps: all that a survey has looked at is in flight
            in_flight = self.stream.in_flight
            found = [path for dev, ino in inodes for path in in_flight.paths_of(dev, ino)]
        return found + await self._catalog.read(self._paths_of, inodes)

    def _paths_of(
        self, connection: sqlite3.Connection, inodes: set[tuple[int, int]]
    ) -> list[bytes]:
        lookup = TreeLookup(connection, self.stream.number)
        rows = [lookup.by_inode(dev, ino) for dev, ino in inodes]
        return [path for row in rows if row is not None for path in lookup.paths_of(row.fid)]

    async def _note(self, places: dict[bytes, int], since_us: int) -> None:
        """Have a look at places, in which nothing was missed before `since_us`."""
        progress = self.progress
        self._note_count += 1
        await self._catalog.write(dirty.note, self.stream.number, places, since_us)
        self._note_count += 1  # an answer to a question asked meanwhile may not know of it
        progress.local_oldest_us = min(progress.local_oldest_us or since_us, since_us)
        progress.vault_oldest_us = min(progress.vault_oldest_us or since_us, since_us)
        progress.last_change_us = self._clock.now_us()
        now = asyncio.get_running_loop().time()
        if self._first_dirty is None:
            self._first_dirty = now
        self._last_dirty = now
        self._changed.set()

    async def ask_scan(self, reason: str, scope: bytes = b"", *, since_us: int = 0) -> None:
        """Have everything (or everything below `scope`) compared with the catalog.

        Nothing was missed before `since_us`; 0: nothing at all, as far as is known.
        """
        places = [scope] if scope else list(self.stream.source.roots)
        await self._note(dict.fromkeys(places, Depth.SCAN), since_us or self._clock.now_us())
        self._scan_reason = reason
        self._scan_asked.set()

    # -- looking ---------------------------------------------------------------------------------

    async def _cut_loop(self) -> None:
        """Look at dirty places: when the source has settled, at the latest at half the RPO."""
        cadence = Cadence(self.rpo_seconds)
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._first_dirty is not None:
                cadence = Cadence(self.rpo_seconds)
                due = min(
                    self._last_dirty + cadence.settle_seconds,
                    self._first_dirty + cadence.latest_seconds,
                )
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                    continue
                self._first_dirty = None
                await self._survey(LIVE)
                more = await self._catalog.read(dirty.has_unpicked, self.stream.number, scan=False)
                if more and self._first_dirty is None:
                    self._first_dirty = loop.time()

    async def _scan_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._scan_asked.wait()
            self._scan_asked.clear()
            reason, started = self._scan_reason, loop.time()
            self._meters.scan_began(self.name)
            if self.progress.state != "source-missing":
                self.progress.state = "scanning"
            missed = await self._scan_all()
            self.progress.last_scan_us = self._clock.now_us()
            self.progress.state = "protected"
            self.progress.scanned.set()
            self._meters.scan_ended(self.name, reason, loop.time() - started, missed)
            _LOG.info(
                "scanned",
                source=self.name,
                reason=reason,
                seconds=round(loop.time() - started, 3),
                changes=missed,
            )

    async def _scan_all(self) -> int:
        """Run scan surveys until none is due; return the changes they found."""
        changes = 0
        while await self._catalog.read(dirty.has_unpicked, self.stream.number, scan=True):
            changes += await self._survey(BULK)
            if self.progress.state == "source-missing":
                await asyncio.sleep(MISSING_RETRY_SECONDS)
        return changes

    async def _reconcile_loop(self) -> None:
        while True:
            share = fraction_of(self._entropy.token(8))
            await asyncio.sleep(RECONCILE_SECONDS * (0.75 + share / 2))
            await self.ask_scan("periodic")

    async def _survey(self, lane: int) -> int:
        """Pick dirty places, look at them, wait until what was found is durable.

        Returns the number of changes found. A source whose root is gone is left alone: the places
        stay dirty, and another look follows.
        """
        open_gaps = list(self._gaps) if lane == BULK else []
        number = next(self._survey_numbers)
        limit = LIVE_PLACES_MAX if lane == LIVE else SCAN_PLACES_MAX
        places: list[DirtyPlace] = await self._catalog.write(
            dirty.pick, self.stream.number, number, scan=lane == BULK, limit=limit
        )
        if not places:
            return 0
        first_us = min(place.first_us for place in places)
        survey = Survey(
            self.stream.source,
            self._lookup,
            self.stream.in_flight,
            places,
            lambda: next(self._fids),
        )
        await self._hand_in(survey, lane, first_us, number, open_gaps)
        self.progress.entries_scanned += survey.entry_count
        await self._judge_roots(survey)
        return survey.change_count

    async def _hand_in(
        self, survey: Survey, lane: int, first_us: int, number: int, open_gaps: list[_OpenGap]
    ) -> None:
        loop = asyncio.get_running_loop()
        findings = survey.findings()
        done = self._done[number] = asyncio.Event()
        try:
            while True:
                async with self._turn:
                    finding = await loop.run_in_executor(self._threads, next, findings, None)
                if finding is None:
                    break
                await self._pipeline.submit(self.stream, lane, finding, first_us=first_us)
            gaps = self._closing([] if survey.missing else open_gaps)
            await self._pipeline.submit(
                self.stream, lane, Finding(), first_us=first_us, survey_done=number, gaps=gaps
            )
            await self._pipeline.packer.flush()
            await done.wait()
        finally:
            self._done.pop(number, None)

    async def _judge_roots(self, survey: Survey) -> None:
        """Say which roots are missing. Nothing is recorded as deleted; another look follows."""
        progress = self.progress
        if survey.missing:
            names = ", ".join(sorted(root.decode(errors="replace") for root in survey.missing))
            if progress.state != "source-missing":
                _LOG.error("source-missing", source=self.name, roots=names)
            progress.state, progress.message = "source-missing", f"not there: {names}"
            now_us = self._clock.now_us()
            for root in survey.missing:
                problem = Problem(root, "source-missing", 0, now_us)
                await self._catalog.write(dirty.set_problem, self.stream.number, problem)
            return
        if progress.state == "source-missing":
            _LOG.info("source-back", source=self.name)
            progress.state = "protected" if progress.scanned.is_set() else "scanning"
            progress.message = ""
            await self._catalog.write(
                dirty.clear_problems, self.stream.number, self.stream.source.roots
            )

    # -- gaps ------------------------------------------------------------------------------------

    def _closing(self, open_before: list[_OpenGap]) -> list[Gap]:
        """A scan has been everywhere: the gaps that were open when it began end now."""
        now_us = self._clock.now_us()
        self._gaps = [gap for gap in self._gaps if gap not in open_before]
        return [Gap(gap.start_us, now_us, gap.reason, gap.scope) for gap in open_before]

    # -- acknowledgement -------------------------------------------------------------------------

    def _on_committed(self, ready: Ready, at_us: int) -> None:
        """The pipeline made a finding durable. Called on the loop."""
        if ready.later:
            self._fuzzy.update(dict.fromkeys(ready.later, int(Depth.ENTRY)))
            self._fuzzy_found.set()
        if ready.again or ready.lost:
            self._first_dirty = self._first_dirty or asyncio.get_running_loop().time()
            self._last_dirty = asyncio.get_running_loop().time()
            self._changed.set()
        if at_us:
            self._meters.point(self.name, at_us)
        done = self._done.get(ready.survey_done)
        if done is not None:
            done.set()

    async def _fuzzy_loop(self) -> None:
        """Read files again that would not stand still."""
        while True:
            await self._fuzzy_found.wait()
            await asyncio.sleep(max(FUZZY_RETRY_SECONDS, self.rpo_seconds))
            self._fuzzy_found.clear()
            places, self._fuzzy = self._fuzzy, {}
            if places:
                await self._note(places, self._clock.now_us())

    async def refresh(self) -> None:
        """Read from the catalog what the watermarks and `status` show."""

        notes_before = self._note_count
        local, waiting, count, problems, entries = await self._catalog.read(self._look)
        progress = self.progress
        if notes_before == self._note_count:  # else the answer may be older than the question
            progress.local_oldest_us = local
            ages = [at for at in (local, waiting) if at is not None]
            progress.vault_oldest_us = min(ages) if ages else None
        progress.dirty_count, progress.entry_count = count, entries
        progress.problem_count = sum(problems.values())
        progress.fuzzy_count = problems.get("fuzzy", 0)
        self._meters.standing(self.name, dirty=count, fuzzy=progress.fuzzy_count, entries=entries)

    def _look(
        self, connection: sqlite3.Connection
    ) -> tuple[int | None, int | None, int, dict[str, int], int]:
        number = self.stream.number
        unput = objects.oldest_unput_us(connection, number)
        ages = [at for at in (dirty.oldest_us(connection, number), unput) if at is not None]
        return (
            min(ages) if ages else None,
            objects.oldest_waiting_us(connection, number),
            dirty.count(connection, number),
            dirty.problems_by_reason(connection, number),
            entry_count(connection, number),
        )

    def lag_seconds(self, destination: str) -> float:
        """Return the age of the oldest change that is not durable at `destination`; 0: none.

        What never was captured ages from when it could have been.
        """
        progress = self.progress
        oldest = progress.local_oldest_us if destination == "local" else progress.vault_oldest_us
        if oldest is None:
            return 0.0
        oldest = self._born_us if oldest == EVER else oldest
        return max(self._clock.now_us() - oldest, 0) / MICROSECONDS

    def protected_through_us(self, destination: str) -> int:
        """Return the watermark: every change made before it is durable at `destination`."""
        progress = self.progress
        oldest = progress.local_oldest_us if destination == "local" else progress.vault_oldest_us
        return progress.drained_us if oldest is None else min(oldest, progress.drained_us)
