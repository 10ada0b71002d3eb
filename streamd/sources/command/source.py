"""The output of a program as a source: one file, which changes when the program is due.

To the engine it is a file whose change time is the last instant at which the program was due. So
nothing has to be remembered: what the catalog has of that instant was captured, and what it has not
is due. The output goes straight into chunks, in pieces, and becomes a version only when the program
ends with status 0 and wrote enough; the version before stays until then.
"""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from streamd.effects import MICROSECONDS, Clock
from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.observe.logging import get_logger
from streamd.policy.backoff import Backoff
from streamd.sources.command.process import GRACE_SECONDS, Process, ProgramFailed
from streamd.sources.filesystem.content import Chunking
from streamd.sources.port import (
    VIRTUAL_ROOT,
    LargeRead,
    Listing,
    Outcome,
    Piece,
    ReadBatch,
    ReadRequest,
    ReadResult,
    Watch,
    WatchBatch,
)

MODE: Final = "schedule"  # how it is "watched"
TICK_SECONDS: Final = 1.0
# What the engine believes of the size: enough for a batch of its own, read in pieces.
_SIZE: Final = 4 * 1024 * 1024 + 1
_INODE: Final = 1
_SECOND_NS: Final = 1_000_000_000
_LOG: Final = get_logger("command")

Ran = Callable[[str, str, float], None]  # source, result, seconds


class CommandSource:
    """Implements `sources.port.Source` for a program. `now` runs it although it is not due."""

    def __init__(
        self,
        name: str,
        file_name: bytes,
        argv: Sequence[str],
        *,
        every_seconds: int,
        timeout_seconds: int,
        size_min: int,
        chunking: Chunking,
        clock: Clock,
        ran: Ran = lambda _source, _result, _seconds: None,
        now: bool = False,
        batch_bytes_max: int = 4 * 1024 * 1024,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._name = name
        self._root = b"/" + file_name
        self.argv = tuple(argv)
        self._every_us = every_seconds * MICROSECONDS
        # Sources do not all run at the full hour, and each always at the same time.
        digest = blake2b(name.encode(), digest_size=8).digest()
        self._phase_us = int.from_bytes(digest, "big") % self._every_us
        self.timeout_seconds = timeout_seconds
        self.size_min = size_min
        self.chunking = chunking
        self.clock = clock
        self._ran = ran
        self._forced_us = clock.now_us() if now else 0
        self.batch_bytes_max = batch_bytes_max
        self._tick_seconds = tick_seconds
        self._backoff = Backoff(base_seconds=60, cap_seconds=every_seconds)
        self._failures = 0
        self._retry_at: float | None = None
        self._reading: CommandRead | None = None
        self._is_stopped = False

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._name

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The one path that there is."""
        return (self._root,)

    @property
    def watch_modes(self) -> Mapping[bytes, str]:
        """It is not watched: it runs by schedule."""
        return {self._root: MODE}

    @property
    def watches(self) -> Mapping[bytes, Watch]:
        """There is nothing to say beside the schedule."""
        return {}

    def hurry(self) -> bool:
        """A program tells nobody of what changes."""
        return False

    def due_us(self) -> int:
        """Return the last instant at which the program was due."""
        now_us = self.clock.now_us()
        due = now_us - (now_us - self._phase_us) % self._every_us
        return max(due, self._forced_us)

    async def watch(self) -> AsyncGenerator[WatchBatch, None]:
        """Say when it is due, and again some time after a failure."""
        self._is_stopped = False
        due_us = self.due_us()
        yield WatchBatch(drained_us=self.clock.now_us())
        try:
            while True:
                await asyncio.sleep(self._tick_seconds)
                batch = WatchBatch(drained_us=self.clock.now_us())
                is_retry = self._retry_at is not None and self.clock.monotonic() >= self._retry_at
                if is_retry or self.due_us() != due_us:
                    self._retry_at, due_us = None, self.due_us()
                    batch.paths[self._root] = False
                    batch.event_count = 1
                yield batch
        finally:
            self.stop()

    def stop(self) -> None:
        """End a run that is under way: it will be due again. For any thread."""
        self._is_stopped = True
        reading = self._reading
        if reading is not None:
            reading.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is to be run any more."""
        return self._is_stopped

    def examine(
        self, directory: bytes, names: Sequence[bytes] | None, *, identities: bool = False
    ) -> Listing:
        """Describe the one file there is."""
        del identities  # `identify` costs nothing
        if directory != VIRTUAL_ROOT:
            return Listing(error=errno.ENOENT)
        if names is not None and self._root not in names:
            return Listing()
        # A second earlier, so that what is captured at once does not look changed in the act.
        at_ns = self.due_us() * 1000 - _SECOND_NS
        status = HostStat(
            type=int(EntryType.REGULAR),
            mode=0o600,
            uid=os.geteuid(),
            gid=os.getegid(),
            size=_SIZE,
            mtime_ns=at_ns,
            ctime_ns=at_ns,
            dev=0,
            ino=_INODE,
            nlink=1,
            rdev=0,
        )
        return Listing(entries={self._root: status})

    def identify(
        self, directory: bytes, names: Sequence[bytes], *, births: bool = False
    ) -> dict[bytes, Identity]:
        """Say that it is always the same file."""
        del births
        if directory != VIRTUAL_ROOT or self._root not in names:
            return {}
        return {self._root: Identity(0, _INODE, 0, 0)}

    def read(self, requests: Sequence[ReadRequest]) -> ReadBatch:
        """Say that there is nothing to be read in one go."""
        results = [ReadResult(Outcome.TYPE_CHANGED, request.expected) for request in requests]
        return ReadBatch(memoryview(b""), results, 0)

    def open_large(self, request: ReadRequest) -> LargeRead:
        """Prepare a run; the program starts with the first `next`."""
        self._reading = CommandRead(self, request)
        return self._reading

    def ended(self, failure: str, seconds: float) -> None:
        """A run ended; called by the reading thread."""
        if not failure:
            self._failures, self._retry_at = 0, None
            self._ran(self._name, "ok", seconds)
            return
        wait = self._backoff.bound_seconds(self._failures)
        self._failures += 1
        self._retry_at = self.clock.monotonic() + wait
        self._ran(self._name, "failed", seconds)
        _LOG.error(
            "command-failed",
            source=self._name,
            program=self.argv[0],
            what=failure,
            retry_seconds=round(wait),
        )


class CommandRead:
    """A `LargeRead` of one run. Used by one thread at a time, but for `stop` and `close`."""

    def __init__(self, source: CommandSource, request: ReadRequest) -> None:
        self._source = source
        self._request = request
        self._process: Process | None = None
        self._tail = b""  # data of a chunk that is not finished yet
        self._size = 0
        self._started = 0.0
        self._failure = ""
        self._is_at_end = False
        self._busy = threading.Lock()
        self._is_stopped = source.is_stopped

    def next(self) -> tuple[memoryview, list[Piece]] | None:
        """Return an arena and its pieces; None at the end, which `finish` judges."""
        with self._busy:
            part = self._next()
            if self._is_stopped:
                self._let_go(0.0)
            return part

    def _next(self) -> tuple[memoryview, list[Piece]] | None:
        if self._is_at_end or self._failure or self._is_stopped:
            return None
        source = self._source
        try:
            if self._process is None:
                self._started = source.clock.monotonic()
                self._process = Process(
                    source.argv,
                    {"STREAMD_SOURCE": source.name},
                    seconds=source.timeout_seconds,
                    clock=source.clock,
                )
            if self._is_to_stop():  # said while it started
                self.stop()
            return self._fill(self._process)
        except ProgramFailed as error:
            self._failure = str(error)
            return None

    def _is_to_stop(self) -> bool:
        return self._is_stopped or self._source.is_stopped

    def _fill(self, process: Process) -> tuple[memoryview, list[Piece]] | None:
        chunking = self._source.chunking
        used = len(self._tail)
        arena = memoryview(bytearray(max(self._source.batch_bytes_max, used + 1)))
        arena[:used] = self._tail
        self._tail = b""
        count = process.read_into(arena[used:])
        self._size += count
        self._is_at_end = used + count < len(arena)
        used += count
        pieces = chunking.cut(arena, 0, used, final=self._is_at_end)
        end = pieces[-1].offset + pieces[-1].size if pieces else 0
        if not pieces and used:  # a chunk larger than the arena: no boundary will come
            pieces, end = chunking.cut(arena, 0, used, final=True), used
        self._tail = bytes(arena[end:used])
        return (arena[:end], pieces) if pieces else None

    def finish(self) -> ReadResult:
        """Say how the run ended: a version, a failure, or nothing at all if it was stopped."""
        with self._busy:
            try:
                return self._conclude()
            finally:
                self._let_go(GRACE_SECONDS)

    def _conclude(self) -> ReadResult:
        try:
            if not self._failure and self._process is not None and not self._is_stopped:
                self._process.finish()
                if self._size < self._source.size_min:
                    self._failure = f"wrote {self._size} bytes, min_size is {self._source.size_min}"
        except ProgramFailed as error:
            self._failure = str(error)
        expected = self._request.expected
        if self._is_stopped:
            return ReadResult(Outcome.TYPE_CHANGED, expected)
        self._source.ended(self._failure, self._source.clock.monotonic() - self._started)
        if self._failure:
            return ReadResult(Outcome.COMMAND_FAILED, expected, detail=self._failure)
        return ReadResult(Outcome.OK, expected, content_size=self._size, is_derived=True)

    def stop(self) -> None:
        """End the run without a result."""
        self._is_stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Give up early; harmless after `finish`."""
        if self._process is not None:
            self._process.kill()
        if self._busy.acquire(blocking=False):
            try:
                self._let_go(0.0)
            finally:
                self._busy.release()
        else:
            self._is_stopped = True  # the thread that reads lets go of it

    def _let_go(self, grace_seconds: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close(grace_seconds)
