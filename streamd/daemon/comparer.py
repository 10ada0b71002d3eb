"""Having a source compared with the catalog: in worker processes when it is big, else here."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

import msgspec
from msgspec import field

import streamd
from streamd.catalog.walk import WalkLookup
from streamd.daemon.compare_worker import FRAME_HEAD, End, Frame, Task
from streamd.observe.logging import get_logger
from streamd.pipeline.comparing import DIFFERENCES_MAX, Comparison, Difference
from streamd.sources.port import Source

PROCESS_ENTRIES_MIN: Final = 20_000  # below, a process costs more than it spares
ALONE_ENTRIES_MIN: Final = 400_000  # the same where this process has nothing else to do
SECOND_ENTRIES_MIN: Final = 200_000  # from here on two share the work
# The worker is the same streamd, however this one was found.
_PACKAGE_FOLDER: Final = os.path.dirname(os.path.dirname(os.path.abspath(streamd.__file__)))
_STEP_DIRECTORIES: Final = 50  # in one turn
_FRAME_BYTES_MAX: Final = 64 << 20
_LOG: Final = get_logger("rescan")


class Result(msgspec.Struct):
    """What a comparison found."""

    differences: list[Difference] = field(default_factory=list)
    entry_count: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # by class
    processes: int = 0  # that did it; 0: this one

    @property
    def is_too_much(self) -> bool:
        """Whether it gave up because everything seems to be different."""
        return len(self.differences) > DIFFERENCES_MAX


class WorkFailed(Exception):
    """A worker process ended before its work was done. Never leaves this module."""


class Comparer:
    """Compares one source. `describe` makes the task for processes; None: they cannot see it."""

    def __init__(
        self,
        source: Source,
        lookup: WalkLookup,
        turn: asyncio.Lock,
        threads: Executor | None,
        describe: Callable[[Sequence[bytes], bool], Task] | None = None,
    ) -> None:
        self._source = source
        self._lookup = lookup
        self._turn = turn
        self._threads = threads
        self._describe = describe

    async def run(
        self, scopes: Sequence[bytes], *, size: int, is_gentle: bool, is_alone: bool = False
    ) -> Result:
        """Compare everything at and below `scopes`; `size` is about how many entries there are.

        `is_alone`: nothing else is to be done here meanwhile.
        """
        least = ALONE_ENTRIES_MIN if is_alone else PROCESS_ENTRIES_MIN
        if self._describe is not None and size >= least:
            parts = 2 if size >= SECOND_ENTRIES_MIN and (os.cpu_count() or 1) > 1 else 1
            task = self._describe(scopes, is_gentle)
            try:
                return await _in_processes(task, parts)
            except WorkFailed as error:
                _LOG.warning("worker-failed", source=self._source.name, what=str(error))
        return await self._here(scopes)

    async def _here(self, scopes: Sequence[bytes]) -> Result:
        loop, result = asyncio.get_running_loop(), Result()
        comparison = Comparison(
            self._source.examine,
            self._lookup,
            self._source.roots,
            examine_known=getattr(self._source, "examine_known", None),  # of the file system
        )
        steps = comparison.differences(scopes)

        def step() -> bool:
            for _ in range(_STEP_DIRECTORIES):
                found = next(steps, None)
                if found is None:
                    return False
                result.differences += found
            return not result.is_too_much

        goes_on = True
        while goes_on:
            async with self._turn:
                goes_on = await loop.run_in_executor(self._threads, self._lookup.during, step)
        result.entry_count, result.seen = comparison.entry_count, comparison.seen
        return result


async def _in_processes(task: Task, parts: int) -> Result:
    """Have it done by `parts` processes side by side. Raises WorkFailed."""
    result = Result(processes=parts)
    try:
        async with asyncio.TaskGroup() as group:
            for part in range(parts):
                share = msgspec.structs.replace(task, part=part, parts=parts)
                group.create_task(_one_process(share, result), name=f"compare.{part}")
    except* WorkFailed as failures:
        raise WorkFailed(str(failures.exceptions[0])) from failures
    return result


async def _one_process(task: Task, result: Result) -> None:
    paths = [_PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "streamd.daemon.compare_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except OSError as error:
        raise WorkFailed(f"no process: {error.strerror}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.msgpack.encode(task))
        process.stdin.close()
        await _collect(process.stdout, result)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _collect(stream: asyncio.StreamReader, result: Result) -> None:
    while True:
        try:
            (size,) = FRAME_HEAD.unpack(await stream.readexactly(FRAME_HEAD.size))
            if size > _FRAME_BYTES_MAX:
                raise WorkFailed("a frame is too long")
            frame: Frame = msgspec.msgpack.decode(await stream.readexactly(size), type=Frame)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError) as error:
            raise WorkFailed("a worker ended early") from error
        if isinstance(frame, End):
            result.entry_count += frame.entry_count
            result.seen.update(frame.seen)
            return
        result.differences += [Difference(*each) for each in frame.found]
        if result.is_too_much:
            return
