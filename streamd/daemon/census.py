"""Which class each entry of a source is in, counted for `status` and the metrics."""

import asyncio
import sqlite3
from collections import Counter
from concurrent.futures import Executor
from errno import ENOENT, ENOTDIR
from typing import Final

import msgspec

from streamd.catalog import dirty
from streamd.catalog.census import census, know_names
from streamd.catalog.db import Catalog, get_bytes, put_value
from streamd.catalog.dirty import Problem
from streamd.daemon.meters import Meters
from streamd.daemon.progress import Progress
from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.pipeline.jobs import Stream
from streamd.pipeline.visit import join, split
from streamd.policy import classes
from streamd.sources.port import VIRTUAL_ROOT, Source

PAUSE_SECONDS: Final = 2.0
_LOG: Final = get_logger("census")
_SHARE: Final = 100  # counting takes a hundredth of the time at most


class Reconcile(msgspec.Struct, array_like=True, frozen=True):
    """What the last full scan saw: the sum of all classes is what is below the source."""

    at_us: int = 0
    entries: int = 0  # seen, and to be protected
    excluded: int = 0
    too_large: int = 0
    unreadable: int = 0  # not even its stat

    @property
    def total(self) -> int:
        """Everything seen."""
        return self.entries + self.excluded + self.too_large + self.unreadable


def reconcile_key(source: str) -> str:
    """Return the key in the catalog under which the last scan's numbers stand."""
    return f"reconcile:{source}"


def begin_anew(connection: sqlite3.Connection, source: int) -> None:
    """Nobody looks at this source any more, and somebody is about to."""
    dirty.release(connection, source)
    know_names(connection, source)


def stale_problems(source: Source, found: list[Problem]) -> list[bytes]:
    """Return the paths of problems of entries that are not there any more. Blocking."""
    by_directory: dict[bytes, list[bytes]] = {}
    for problem in found:
        at = split(problem.path, source.roots)
        if at is not None and at[0] != VIRTUAL_ROOT:  # whether a root is there is judged elsewhere
            by_directory.setdefault(at[0], []).append(at[1])
    stale = []
    for directory, names in by_directory.items():
        listing = source.examine(directory, names)
        if listing.error not in {0, ENOENT, ENOTDIR}:
            continue
        there = listing.entries.keys() | listing.failed.keys() | listing.too_large
        stale += [join(directory, name) for name in names if name not in there]
    return stale


class Census:
    """Counts one source now and then, beside what it does."""

    def __init__(
        self,
        stream: Stream,
        catalog: Catalog,
        threads: Executor,
        clock: Clock,
        meters: Meters,
    ) -> None:
        self._name = stream.identity.name
        self._number = stream.number
        self._source = stream.source
        self._catalog = catalog
        self._threads = threads
        self._clock = clock
        self._meters = meters
        self._next_at = 0.0
        self._is_counting = False
        self._counted: tuple[object, ...] = ()
        self._basis: tuple[object, ...] = ()  # as last seen; counted again when it is another one
        self.reconcile = Reconcile()
        self.counts: dict[str, int] = {}

    async def begin(self) -> None:
        """Read what the last scan saw."""
        known = await self._catalog.read(get_bytes, reconcile_key(self._name))
        if known:
            self.reconcile = msgspec.msgpack.decode(known, type=Reconcile)

    async def scanned(self, seen: Counter[str]) -> None:
        """A scan has seen everything: so many entries of each class."""
        self.reconcile = Reconcile(
            self._clock.now_us(),
            seen[classes.PROTECTED],
            seen[classes.EXCLUDED],
            seen[classes.TOO_LARGE],
            seen[classes.UNREADABLE],
        )
        key, value = reconcile_key(self._name), msgspec.msgpack.encode(self.reconcile)
        await self._catalog.write(put_value, key, value)

    async def forget_stale_problems(self, turn: asyncio.Lock) -> None:
        """After a scan: what is not there any more has no problem. Looks when it has the `turn`."""
        found = await self._catalog.read(dirty.problems, self._number)
        if found:
            loop = asyncio.get_running_loop()
            async with turn:
                stale = await loop.run_in_executor(
                    self._threads, stale_problems, self._source, found
                )
            await self._catalog.write(dirty.clear_problems, self._number, stale)

    @property
    def is_behind(self) -> bool:
        """Whether something changed that is not counted yet."""
        return self._is_counting or self._basis != self._counted

    def refresh(self, progress: Progress) -> None:
        """Begin to count, if something changed and that was not just done. Called on the loop."""
        now = self._clock.monotonic()
        basis = (
            progress.dirty_count,
            progress.problem_count,
            progress.entry_count,
            progress.note_count,
            self.reconcile,
        )
        self._basis = basis
        if self._is_counting or basis == self._counted or now < self._next_at:
            return

        def done(future: "asyncio.Future[dict[str, int]]") -> None:
            self._is_counting = False
            took = self._clock.monotonic() - now
            self._next_at = now + max(PAUSE_SECONDS, took * _SHARE)
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:  # the numbers shown are older ones, and are counted again
                _LOG.warning("not-counted", source=self._name, what=str(error))
                return
            self.counts, self._counted = future.result(), basis
            self._meters.classes(self._name, self.counts)

        self._is_counting = True
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._threads, self._count).add_done_callback(done)

    def _count(self) -> dict[str, int]:
        reader = self._catalog.open_reader()
        try:
            return census(
                reader, self._number, self._source.roots, excluded=self.reconcile.excluded
            )
        finally:
            reader.close()
