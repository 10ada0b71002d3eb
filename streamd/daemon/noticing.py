"""Noticing: events become dirty places, durable before anything is done about them."""

import asyncio
import sqlite3
from typing import Final

from streamd.catalog import dirty
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import EVER, Depth
from streamd.catalog.lookup import TreeLookup
from streamd.daemon.gaps import OpenGaps
from streamd.daemon.handover import Handover
from streamd.daemon.meters import Meters
from streamd.daemon.progress import Progress
from streamd.daemon.recent import RecentEvents
from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.pipeline.jobs import Stream
from streamd.policy.announced import Announced
from streamd.sources.port import WatchBatch

BARRIER_SECONDS: Final = 2.0
_LOG: Final = get_logger("protection")


class Noticing:
    """Takes notes of what has to be looked at in one source, and says when there is something.

    `turn` is held between two steps of a survey: all that it has looked at is in flight then.
    """

    def __init__(
        self,
        *,
        stream: Stream,
        catalog: Catalog,
        clock: Clock,
        meters: Meters,
        progress: Progress,
        gaps: OpenGaps,
        turn: asyncio.Lock,
    ) -> None:
        self._stream = stream
        self._name = stream.identity.name
        self._catalog = catalog
        self._clock = clock
        self._meters = meters
        self._progress = progress
        self.recent = RecentEvents()
        self._gaps = gaps
        self._turn = turn
        self.changed = asyncio.Event()
        self.first_dirty: float | None = None  # loop time of the oldest unpicked change
        self.last_dirty = 0.0
        self.scan_asked = asyncio.Event()
        self.scan_reason = "start"
        self.covered_us = EVER  # changes before were noticed by an earlier protection
        self.gap_reason = ""  # why there is a gap from then on, unless the watch can be resumed
        self.past: Handover | None = None  # what the last process left, if it can be relied on
        self.settings = b""  # as in Handover
        self.trees = b""  # what is watched where, as last said
        self.announced: Announced | None = None  # what was noticed, while somebody wants to know
        self.drained = asyncio.Event()  # set with every batch
        self.is_finished = False  # watching ended in good order: all that was seen is noted

    async def watch(self) -> None:
        """Follow the source's events, until watching ends for the whole process."""
        first = True
        async for batch in self._stream.source.watch():
            self.trees = batch.trees or self.trees
            if first:  # what was before counts as dirty before the barrier moves
                first = False
                await self._begin(batch)
            await self._take(batch)
        self.is_finished = True

    async def _begin(self, batch: WatchBatch) -> None:
        """Watching has begun: what may have been missed before is to be looked for."""
        self._progress.is_watching = True
        self._meters.watching(self._name, self._stream.source.watch_modes)
        past, covered_us = self.past, self.covered_us
        if past is None or not batch.resumed or past.trees != batch.trees:
            if covered_us != EVER:
                self._gaps.begin(covered_us, self.gap_reason, b"")
            await self.ask_scan("start", since_us=covered_us)
            return
        self._progress.drained_us = covered_us
        if past.settings != self.settings:  # what was not protected before must be found
            await self.ask_scan("settings-changed", since_us=covered_us)
        else:
            self._progress.state = "protected"
            self._progress.scanned.set()
            self._progress.scan_idle.set()
        await self._note_unfinished(covered_us)
        _LOG.info("resumed", source=self._name, without_scan=past.settings == self.settings)

    async def _note_unfinished(self, since_us: int) -> None:
        """Have files looked at again that would not stand still when the last process read them."""
        problems = await self._catalog.read(dirty.problems, self._stream.number)
        places = {one.path: int(Depth.ENTRY) for one in problems if one.path}
        if places:
            await self.note(places, since_us)

    async def _take(self, batch: WatchBatch) -> None:
        """Make the events of a batch durable as dirty places; then move the barrier.

        What is in this batch happened after the barrier of the one before: that is its age.
        """
        since_us = self._progress.drained_us or self.covered_us
        places: dict[bytes, int] = {
            path: Depth.BELOW if deep else Depth.ENTRY for path, deep in batch.paths.items()
        }
        if batch.inodes:
            for path in await self._names_of(batch.inodes):
                places.setdefault(path, Depth.ENTRY)
        if batch.event_count:
            self._meters.events(self._name, batch.event_count)
        if batch.gap:
            self._gaps.begin(since_us, batch.gap, batch.scope)
            self._meters.overflow(self._name)
            _LOG.warning("events-lost", source=self._name, reason=batch.gap, scope=batch.scope)
            await self.ask_scan(batch.gap, batch.scope, since_us=since_us)
        if places:
            self.recent.saw(places, self._clock.now_us())
            await self.note(places, since_us)
        self._progress.drained_us = max(self._progress.drained_us, batch.drained_us)
        self.drained.set()

    async def barrier(self) -> int | None:
        """Wait until everything that happened before this call is noted; return the instant.

        None: that cannot be had, for nobody tells what happens, or not in time.
        """
        now_us = self._clock.now_us()
        try:
            async with asyncio.timeout(BARRIER_SECONDS):
                while self._progress.drained_us < now_us:
                    self.drained.clear()
                    if not self._stream.source.hurry():
                        return None
                    await self.drained.wait()
        except TimeoutError:
            return None
        return now_us

    async def _names_of(self, inodes: set[tuple[int, int]]) -> list[bytes]:
        """Return the paths of files known by number only, those under way included."""
        async with self._turn:  # between two steps: all that a survey has looked at is in flight
            in_flight = self._stream.in_flight
            found = [path for dev, ino in inodes for path in in_flight.paths_of(dev, ino)]
        return found + await self._catalog.read(self._paths_of, inodes)

    def _paths_of(
        self, connection: sqlite3.Connection, inodes: set[tuple[int, int]]
    ) -> list[bytes]:
        lookup = TreeLookup(connection, self._stream.number)
        rows = [lookup.by_inode(dev, ino) for dev, ino in inodes]
        return [path for row in rows if row is not None for path in lookup.paths_of(row.fid)]

    async def note(self, places: dict[bytes, int], since_us: int) -> None:
        """Have a look at places, in which nothing was missed before `since_us`."""
        progress = self._progress
        if self.announced is not None:
            for path, depth in places.items():
                if depth < Depth.SCAN:
                    self.announced.add(path, is_deep=depth > Depth.ENTRY)
        progress.note_count += 1
        await self._catalog.write(dirty.note, self._stream.number, places, since_us)
        progress.note_count += 1  # an answer to a question asked meanwhile may not know of it
        progress.waits_since(since_us)
        progress.last_change_us = self._clock.now_us()
        self.stir()

    def stir(self) -> None:
        """There is something to look at."""
        now = asyncio.get_running_loop().time()
        if self.first_dirty is None:
            self.first_dirty = now
        self.last_dirty = now
        self.changed.set()

    async def ask_scan(self, reason: str, scope: bytes = b"", *, since_us: int = 0) -> None:
        """Have everything (or everything below `scope`) compared with the catalog.

        Nothing was missed before `since_us`; 0: nothing at all, as far as is known.
        """
        places = [scope] if scope else list(self._stream.source.roots)
        await self.note(dict.fromkeys(places, Depth.SCAN), since_us or self._clock.now_us())
        self.scan_reason = reason
        self.scan_asked.set()
