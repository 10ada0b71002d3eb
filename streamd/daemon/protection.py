"""The protection of one source: watch it, look where something changed, hand on what was found.

The main tasks: *watch* turns events into dirty places, durable before anything is done about them.
*cut* looks at dirty places at the pace that the RPO asks for. *scan* compares the whole tree with
the catalog: at the start, after lost events, and now and then, and closes the coverage gaps it was
started for. Steps of surveys of one source take turns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from streamd.catalog import dirty
from streamd.catalog.db import Catalog, get_int, put_value
from streamd.catalog.dirty import EVER, LATER, Depth, Problem
from streamd.catalog.walk import WalkLookup
from streamd.daemon.canary import Canary
from streamd.daemon.census import Census, begin_anew
from streamd.daemon.comparer import Comparer
from streamd.daemon.cutting import UNSETTLED, Cutting
from streamd.daemon.gaps import OpenGaps
from streamd.daemon.handover import Handover, boot_id
from streamd.daemon.incidents import IncidentWatch
from streamd.daemon.meters import Meters
from streamd.daemon.missing import MissingRoots, is_deleted
from streamd.daemon.narrowing import Narrower
from streamd.daemon.noticing import Noticing
from streamd.daemon.progress import Progress, standing
from streamd.daemon.rereading import Rereader
from streamd.daemon.surveying import Surveying
from streamd.daemon.terms import Terms
from streamd.daemon.watermarks import Watermarks
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
from streamd.policy.pacing import Pace

SCAN_PLACES_MAX: Final = 100_000
SETTLE_ROUNDS_MAX: Final = 20  # one-shot capture: looks at what moved meanwhile
MISSING_RETRY_SECONDS: Final = 5.0
FUZZY_RETRY_SECONDS: Final = 5.0
FINISH_SECONDS: Final = 5.0  # for noting what was seen last, when the daemon stops
PACED_REASONS: Final = frozenset({"overflow", "mount-changed", "watch-limit", "path-too-long"})
PACE_SECONDS: Final = 0.1  # between two cuts, if the first left something
_LOG: Final = get_logger("protection")


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
        terms: Terms | None = None,
    ) -> None:
        self.stream = stream
        self.name = stream.identity.name
        self.rpo_seconds = rpo_seconds
        self.progress = Progress()
        self._pipeline = pipeline
        self._catalog = catalog
        self._threads = threads
        self._clock, self._entropy = clock, entropy
        self._meters = meters
        self._has_remote = has_remote
        self._terms = terms = terms or Terms()
        self._lookup = WalkLookup(catalog.open_reader(), stream.number, stream.inodes)
        self._turn = asyncio.Lock()
        self._gaps = OpenGaps()
        self._fuzzy, self._fuzzy_found = dict[bytes, int](), asyncio.Event()
        self._noticing = Noticing(
            stream=stream,
            catalog=catalog,
            clock=clock,
            meters=meters,
            progress=self.progress,
            gaps=self._gaps,
            turn=self._turn,
        )
        self._noticing.past, self._noticing.settings = terms.past, terms.settings
        self.watermarks = Watermarks(
            stream.source, self.progress, clock, lambda: self._noticing.covered_us
        )
        self._pace, self._missing = Pace(), MissingRoots()
        self._incidents = IncidentWatch(self.name, meters)
        self.census = Census(stream, catalog, threads, clock, meters)
        self._narrower = self._new_narrower(threads)
        self._surveying = self._new_surveying(threads, fids, survey_numbers)
        self._cutting = Cutting(
            surveying=self._surveying,
            noticing=self._noticing,
            gaps=self._gaps,
            progress=self.progress,
            meters=meters,
            rpo_seconds=rpo_seconds,
        )
        stream.on_committed = self._on_committed
        stream.new_fid = lambda: next(fids)

    def _new_narrower(self, threads: Executor) -> Narrower:
        source, describe = self.stream.source, self._terms.describe
        return Narrower(
            stream=self.stream,
            catalog=self._catalog,
            comparer=Comparer(source, self._lookup, self._turn, threads, describe),
            noticing=self._noticing,
            progress=self.progress,
            meters=self._meters,
            clock=self._clock,
        )

    def _new_surveying(
        self, threads: Executor, fids: Iterator[int], numbers: Iterator[int]
    ) -> Surveying:
        return Surveying(
            stream=self.stream,
            pipeline=self._pipeline,
            catalog=self._catalog,
            threads=threads,
            lookup=self._lookup,
            fids=fids,
            numbers=numbers,
            turn=self._turn,
            deleted_roots=self._deleted_roots,
        )

    @property
    def is_seeding(self) -> bool:
        """Whether this is the first capture of the source, and it has not ended yet."""
        return self._noticing.covered_us == EVER and not self.progress.scanned.is_set()

    def last_event_us(self, path: bytes) -> int:
        """Return when the last event of a path arrived; 0: none is remembered."""
        return self._noticing.recent.last_us(path)

    async def record_gap(self, start_us: int, end_us: int, reason: str) -> None:
        """Record that between these instants not every version was captured."""
        gap = Gap(start_us, end_us, reason, b"")
        await self._pipeline.submit(self.stream, LIVE, Finding(), first_us=0, gaps=[gap])

    def close(self) -> None:
        """Close the reader, after the tasks have ended; threads may still be at work."""
        self._lookup.close()
        if self._terms.hooks is not None:
            self._terms.hooks.close()
        if self.stream.slow is not None:
            self.stream.slow.shutdown(wait=False)

    # -- tasks -----------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Protect until `stop` is set. What is in the pipeline then is finished by others."""
        await self._begin()
        await self._read_coverage()
        self._noticing.gap_reason = "not-watching" if self._terms.was_clean else "unclean-stop"
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._noticing.watch(), name=f"watch:{self.name}")
            scanning = group.create_task(self._scan_loop(), name=f"scan:{self.name}")
            cutting = group.create_task(self._cut_loop(), name=f"cut:{self.name}")
            reconciling = group.create_task(self._reconcile_loop(), name=f"rescan:{self.name}")
            fuzzy = group.create_task(self._fuzzy_loop(), name=f"fuzzy:{self.name}")
            checking = self._start_checks(group)
            await stop.wait()
            if self._terms.is_ending():  # what was read from the kernel must not be lost: note it
                await asyncio.wait({watching}, timeout=FINISH_SECONDS)
            for task in (watching, scanning, cutting, reconciling, fuzzy, *checking):
                task.cancel()

    def _start_checks(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start what proves that nothing is missed, as far as the terms ask for it."""
        terms, tasks = self._terms, []
        if terms.hooks is None and self.stream.slow is None:  # else they belong into a capture
            tasks.append(group.create_task(self._cutting.large.run(), name=f"large:{self.name}"))
        if terms.reread_seconds:
            rereader = Rereader(
                stream=self.stream,
                catalog=self._catalog,
                noticing=self._noticing,
                progress=self.progress,
                meters=self._meters,
                clock=self._clock,
                round_seconds=terms.reread_seconds,
            )
            tasks.append(group.create_task(rereader.run(), name=f"reread:{self.name}"))
        if terms.canary_seconds:
            canary = Canary(
                stream=self.stream,
                catalog=self._catalog,
                clock=self._clock,
                meters=self._meters,
                through=self.watermarks.through_us,
                interval_seconds=terms.canary_seconds,
                rpo_seconds=self.rpo_seconds,
            )
            tasks.append(group.create_task(canary.run(), name=f"canary:{self.name}"))
        return tasks

    async def handover(self) -> Handover | None:
        """Return what the next process needs to go on; None when it has to look for itself.

        For after `run`.
        """
        noticing = self._noticing
        is_whole = self.progress.scanned.is_set() and self._gaps.oldest_us() is None
        if not (noticing.is_finished and is_whole and noticing.trees):
            return None
        if await self._catalog.read(dirty.has_scan, self.stream.number):
            return None
        return Handover(boot_id(), noticing.trees, noticing.settings)

    @property
    def covered_us(self) -> int:
        """Every change made before was noticed, or will be by a scan that is not owed to a gap."""
        oldest = self._gaps.oldest_us()
        drained_us = self.progress.drained_us
        return drained_us if oldest is None else min(oldest, drained_us)

    async def capture_once(self, marks: Sequence[Mark] = ()) -> None:
        """Look at everything once, without watching, until it stands still (or nearly)."""
        await self._begin()
        await self._read_coverage()
        if self._noticing.covered_us != EVER:
            self._gaps.begin(self._noticing.covered_us, "not-watching", b"")
        self.progress.state = "scanning"
        noticing = self._noticing
        roots = dict.fromkeys(self.stream.source.roots, int(Depth.SCAN))
        await noticing.note(roots, noticing.covered_us)
        for _ in range(SETTLE_ROUNDS_MAX):
            await self._hooked(self._scan, scan=True)
            await self._hooked(self._cut, scan=False)
            is_refused = self._terms.hooks is not None and self._terms.hooks.is_refused
            if is_refused or not await self._catalog.read(dirty.count, self.stream.number):
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
        await self._pipeline.quiesce(self.stream.number)
        await self._catalog.write(begin_anew, self.stream.number)
        await self.census.begin()
        await self.refresh()  # what an earlier one has left undone counts from the beginning

    async def _read_coverage(self) -> None:
        covered_us = await self._catalog.read(get_int, f"covered:{self.name}")
        self._noticing.covered_us = covered_us or EVER

    # -- looking ---------------------------------------------------------------------------------

    async def _cut_loop(self) -> None:
        """Look at dirty places: when the source has settled, at the latest at half the RPO."""
        noticing, loop = self._noticing, asyncio.get_running_loop()
        while True:
            await noticing.changed.wait()
            noticing.changed.clear()
            while noticing.first_dirty is not None:
                cutting = self._cutting
                cadence = Cadence(self.rpo_seconds, cutting.seconds, cutting.spared_share)
                due = min(
                    noticing.last_dirty + cadence.settle_seconds,
                    noticing.first_dirty + cadence.latest_seconds,
                )
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                    continue
                noticing.first_dirty = None
                await self._hooked(self._cut, scan=False)
                await self._keep_pace(cadence)

    async def _keep_pace(self, cadence: Cadence) -> None:
        """What a cut left for a later one is as old as it is; but give others a turn."""
        number, loop = self.stream.number, asyncio.get_running_loop()
        oldest_us = await self._catalog.read(dirty.oldest_unpicked_us, number)
        if oldest_us is None:
            return
        waited = max(self._clock.now_us() - oldest_us, 0) / MICROSECONDS
        rest = cadence.latest_seconds
        if self.progress.state != "source-missing":
            rest = min(rest, max(PACE_SECONDS, self._cutting.seconds))
        waited = min(waited, cadence.latest_seconds - rest)
        since = loop.time() - waited
        self._noticing.first_dirty = min(self._noticing.first_dirty or since, since)

    async def _scan_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._noticing.scan_asked.wait()
            if self._noticing.scan_reason in PACED_REASONS:
                await asyncio.sleep(max(self._pace.due_at() - loop.time(), 0))
            self._noticing.scan_asked.clear()
            reason, started = self._noticing.scan_reason, loop.time()
            self._meters.scan_began(self.name)
            if self.progress.state != "source-missing" and reason != "periodic":
                self.progress.state = "scanning"
            self.progress.scan_idle.clear()
            changes = await self._scan_all()
            self.progress.scan_idle.set()
            self.progress.last_scan_us = self._clock.now_us()
            if not self._missing.roots:
                self.progress.state = "protected"
            self.progress.scanned.set()
            await self._catalog.write(put_value, f"covered:{self.name}", self.covered_us)
            self._meters.scan_ended(self.name, reason, loop.time() - started)
            if reason in PACED_REASONS:
                self._pace = self._pace.after(began=started, ended=loop.time())
            _LOG.info(
                "scanned",
                source=self.name,
                reason=reason,
                seconds=round(loop.time() - started, 3),
                changes=changes,
            )

    async def _scan_all(self) -> int:
        """Run scan surveys until none is due; return the changes they found."""
        changes = 0
        while await self._catalog.read(dirty.has_unpicked, self.stream.number, scan=True):
            changes += await self._hooked(self._scan, scan=True)
            if self.progress.state == "source-missing":
                await asyncio.sleep(MISSING_RETRY_SECONDS)
        return changes

    async def _reconcile_loop(self) -> None:
        while True:
            await self.progress.scan_idle.wait()  # the time counts from the end of the one before
            share = fraction_of(self._entropy.token(8))
            await asyncio.sleep(self._terms.reconcile_seconds * (0.75 + share / 2))
            self.progress.scan_idle.clear()
            await self._noticing.ask_scan("periodic", since_us=LATER)

    async def _hooked(self, work: Callable[[], Awaitable[int]], *, scan: bool) -> int:
        hooks = self._terms.hooks
        if hooks is None:
            return await work()
        return await hooks.around(work, self._catalog, self.stream, scan=scan)

    async def _cut(self) -> int:
        """Capture what is dirty as one instant."""
        survey = await self._cutting.cut()
        if survey is not None:
            await self._account(survey)
        return 0 if survey is None else survey.change_count

    async def _scan(self) -> int:
        """Look at what is to be scanned, until what is found is durable; return the changes.

        The places of a root that is gone stay dirty, and another look follows.
        """
        open_gaps = self._gaps.now(besides=UNSETTLED)
        number = self._surveying.begin()
        places = await self._surveying.pick(number, BULK, SCAN_PLACES_MAX)
        if not places:
            return 0
        first_us = min(place.first_us for place in places)
        scanned = {place.path for place in places if place.depth == Depth.SCAN}
        if self.stream.slow is None:  # what is under way is in neither: not here, not there
            await self._pipeline.quiesce(self.stream.number)
        places = await self._narrower.narrow(places, self._noticing.scan_reason)
        if first_us == LATER:  # only now it is known that something waits, if anything does
            first_us = self._clock.now_us()
            places = [place._replace(first_us=first_us) for place in places]
            if places:
                await self._catalog.write(dirty.set_age, self.stream.number, number, first_us)
        survey = await self._surveying.survey(places)
        await self._surveying.look(survey, BULK, first_us=first_us)
        gaps = self._gaps.close([] if survey.missing else open_gaps, self._clock.now_us())
        await self._surveying.end(number, BULK, first_us=first_us, gaps=gaps)
        await self._account(survey)
        if scanned >= set(self.stream.source.roots) and not survey.missing:
            await self.census.scanned(self._narrower.seen + survey.seen)
            await self.census.forget_stale_problems(self._turn)
        return survey.change_count

    async def _deleted_roots(self) -> frozenset[bytes]:
        """Return roots that have been missing for so long, and so, that they count as deleted."""
        found, loop = set(), asyncio.get_running_loop()
        for root in self._missing.due(self._clock.monotonic()):
            async with self._turn:
                ask = partial(is_deleted, root, self._lookup)
                is_gone = await loop.run_in_executor(self._threads, self._lookup.during, ask)
            if is_gone:
                _LOG.warning("source-deleted", source=self.name, root=root)
                found.add(root)
        return frozenset(found)

    async def _account(self, survey: Survey) -> None:
        self.progress.entries_scanned += survey.entry_count
        await self._judge_roots(survey)

    async def _judge_roots(self, survey: Survey) -> None:
        """Say which roots are missing. Nothing is recorded as deleted; another look follows."""
        progress, now_us = self.progress, self._clock.now_us()
        back = self._missing.saw(survey.missing, survey.present, self._clock.monotonic())
        if back:
            _LOG.info("source-back", source=self.name, roots=sorted(back))
            await self._catalog.write(dirty.clear_problems, self.stream.number, sorted(back))
            await self._noticing.ask_scan("source-back")
        for root in survey.missing:
            problem = Problem(root, "source-missing", 0, now_us)
            await self._catalog.write(dirty.set_problem, self.stream.number, problem)
        missing = self._missing.roots
        if deleted := missing - survey.missing:  # recorded as such, and looked for all the same
            await self._noticing.note(dict.fromkeys(deleted, int(Depth.SCAN)), now_us)
        if missing:
            names = ", ".join(sorted(root.decode(errors="replace") for root in missing))
            if progress.state != "source-missing":
                _LOG.error("source-missing", source=self.name, roots=names)
            progress.state, progress.message = "source-missing", f"not there: {names}"
        elif progress.state == "source-missing":
            progress.state = "protected" if progress.scanned.is_set() else "scanning"
            progress.message = ""

    # -- acknowledgement -------------------------------------------------------------------------

    def _on_committed(self, ready: Ready, at_us: int) -> None:
        """The pipeline made a finding durable. Called on the loop."""
        if ready.later:
            self._fuzzy.update(dict.fromkeys(ready.later, int(Depth.ENTRY)))
            self._fuzzy_found.set()
        if self.progress.owed or ready.owed:
            self.progress.owe(ready.owed, (*ready.good_paths, *ready.absent))
        if ready.again or ready.racy or ready.lost:
            self._noticing.stir()
        if ready.is_torn and self.progress.is_watching:
            self._gaps.begin(at_us, UNSETTLED, b"")
            self._meters.unsettled(self.name)
            _LOG.warning("cut-unsettled", source=self.name, reason="an entry had no place")
        if at_us:
            self._meters.point(self.name, at_us)
        self._surveying.committed(ready.survey_done)

    async def _fuzzy_loop(self) -> None:
        """Read files again that would not stand still."""
        while True:
            await self._fuzzy_found.wait()
            await asyncio.sleep(max(FUZZY_RETRY_SECONDS, self.rpo_seconds))
            self._fuzzy_found.clear()
            places, self._fuzzy = self._fuzzy, {}
            if places:
                await self._noticing.note(places, self._clock.now_us())

    async def refresh(self) -> None:
        """Read from the catalog what the watermarks and `status` show."""
        notes_before, progress = self.progress.note_count, self.progress
        progress.take(
            await self._catalog.read(standing, self.stream.number, self.name),
            notes_before=notes_before,
        )
        self._incidents.saw(progress.incident)
        self._meters.standing(
            self.name,
            dirty=progress.dirty_count,
            fuzzy=progress.fuzzy_count,
            entries=progress.entry_count,
        )
        self.census.refresh(progress)
