"""Carrying out a survey of one source: places are picked, looked at step by step, and handed in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from streamd.catalog import dirty
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import DirtyPlace
from streamd.catalog.walk import WalkLookup
from streamd.model.host import Identity
from streamd.model.record import Gap
from streamd.pipeline import survey as survey_module
from streamd.pipeline.capture import Pipeline
from streamd.pipeline.channel import BULK, LONE
from streamd.pipeline.cut import Cut
from streamd.pipeline.findings import Finding
from streamd.pipeline.jobs import Stream
from streamd.pipeline.standing_alone import LoneLook
from streamd.pipeline.survey import Survey
from streamd.pipeline.visit import join
from streamd.sources.port import VIRTUAL_ROOT


class Surveying:
    """What live cuts and scans of a source have in common. `turn`: one step at a time."""

    def __init__(
        self,
        *,
        stream: Stream,
        pipeline: Pipeline,
        catalog: Catalog,
        threads: Executor,
        lookup: WalkLookup,
        fids: Iterator[int],
        numbers: Iterator[int],
        turn: asyncio.Lock,
        deleted_roots: Callable[[], Awaitable[frozenset[bytes]]],
    ) -> None:
        self._deleted_roots = deleted_roots
        self.stream = stream
        self._pipeline = pipeline
        self._catalog = catalog
        self._threads = threads
        self._lookup = lookup
        self._fids = fids
        self._numbers = numbers
        self._turn = turn
        self._done: dict[int, asyncio.Event] = {}

    def begin(self) -> int:
        """Return the number of a new survey."""
        return next(self._numbers)

    async def pick(self, number: int, lane: int, limit: int) -> list[DirtyPlace]:
        """Take dirty places for a survey, those that became dirty since if it has some already."""
        return await self._catalog.write(
            dirty.pick, self.stream.number, number, scan=lane == BULK, limit=limit
        )

    async def hand_over(self, places: Sequence[tuple[DirtyPlace, int, int]]) -> None:
        """Have other surveys go on with places that one has picked: place, number, former one."""
        await self._catalog.write(dirty.hand_over, self.stream.number, places)

    async def survey(self, places: Sequence[DirtyPlace], *, leaves_large: bool = False) -> Survey:
        """Return a survey of places; `look` carries it out."""
        stream = self.stream
        return Survey(
            stream.source,
            self._lookup,
            stream.in_flight,
            places,
            lambda: next(self._fids),
            deleted_roots=await self._deleted_roots(),
            leaves_large=leaves_large,
        )

    async def capture_alone(self, place: DirtyPlace, number: int) -> bool:
        """Capture a large file by itself, as survey `number`. Say whether it was captured."""
        stream = self.stream
        lone = LoneLook(
            stream.source,
            self._lookup,
            stream.in_flight,
            place,
            lambda: next(self._fids),
            size_min=survey_module.ALONE_MIN,
        )
        await self._hand_in(lone.findings(), LONE, first_us=place.first_us)
        await self.end(number, LONE, first_us=place.first_us)
        async with self._turn:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._lookup.during, lone.was_captured
            )

    async def look(
        self, survey: Survey, lane: int, *, first_us: int, cut: Cut | None = None
    ) -> None:
        """Look at the places of a survey and hand in what is found."""
        await self._hand_in(survey.findings(), lane, first_us=first_us, cut=cut)

    async def _hand_in(
        self, findings: Iterator[Finding], lane: int, *, first_us: int, cut: Cut | None = None
    ) -> None:
        loop, step = asyncio.get_running_loop(), partial(next, findings, None)
        while True:
            async with self._turn:
                finding = await loop.run_in_executor(self._threads, self._lookup.during, step)
            if finding is None:
                return
            await self._pipeline.submit(self.stream, lane, finding, first_us=first_us, cut=cut)

    def let_go(self, cut: Cut) -> None:
        """Have what is there of a cut committed: its end will not come."""
        self._pipeline.let_go(cut)

    async def end(self, number: int, lane: int, *, first_us: int, gaps: Sequence[Gap] = ()) -> None:
        """Say that a survey was everywhere; return when what it found is durable."""
        done = self._done[number] = asyncio.Event()
        try:
            await self._pipeline.submit(
                self.stream, lane, Finding(), first_us=first_us, survey_done=number, gaps=gaps
            )
            await self._pipeline.packer.flush()
            await done.wait()
        finally:
            self._done.pop(number, None)

    def committed(self, number: int) -> None:
        """The end of a survey is durable."""
        done = self._done.get(number)
        if done is not None:
            done.set()

    async def moves(
        self, survey: Survey, fids: Sequence[int]
    ) -> tuple[set[bytes], dict[bytes, int]]:
        """Return where directories moved, from and to, and the names that some files now have."""

        def ask() -> tuple[set[bytes], dict[bytes, int]]:
            trail, lookup = survey.trail, self._lookup
            moves = trail.moves(lookup)
            names = {name: fid for fid in fids for name in trail.names_left(lookup, fid)}
            return {*moves.keys(), *moves.values()}, names

        async with self._turn:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._lookup.during, ask
            )

    async def are_there(self, files: dict[bytes, Identity]) -> bool:
        """Say whether these files still are at these paths."""
        async with self._turn:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._are_there, files
            )

    def _are_there(self, files: dict[bytes, Identity]) -> bool:
        source, by_directory = self.stream.source, dict[bytes, list[bytes]]()
        for path in files:
            directory, _, name = path.rpartition(b"/")
            if path in source.roots:
                directory, name = VIRTUAL_ROOT, path
            by_directory.setdefault(directory, []).append(name)
        for directory, names in by_directory.items():
            seen = source.identify(directory, names)
            for name in names:
                now, was = seen.get(name), files[join(directory, name)]
                if now is None or (now.dev, now.ino) != (was.dev, was.ino):
                    return False
                if was.generation not in {0, now.generation}:
                    return False
        return True
