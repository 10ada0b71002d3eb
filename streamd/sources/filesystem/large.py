"""Reading one large file in pieces, with chunks that run on from piece to piece."""

import errno
import os
import subprocess
from collections.abc import Iterator
from typing import Final

from streamd.effects import Clock
from streamd.policy.following import Follower, Notes, decode
from streamd.sources.filesystem import native, sqlite
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.arena import is_unused, new_buffer
from streamd.sources.filesystem.attributes import read_xattrs
from streamd.sources.filesystem.cloning import Cloner
from streamd.sources.filesystem.coherence import TRIES, is_coherent, pause, settle
from streamd.sources.filesystem.content import (
    Chunking,
    Extent,
    extents,
    read_cached,
    read_fully,
)
from streamd.sources.filesystem.listing import host_stat
from streamd.sources.filesystem.opening import open_directory
from streamd.sources.filesystem.reading import (
    confirmed,
    failure,
    is_expected,
    joined_stat,
    open_file,
    side_result,
)
from streamd.sources.filesystem.scope import TreeScope, split
from streamd.sources.filesystem.sqlite import SqliteCopier, SqliteFailed
from streamd.sources.port import Outcome, Piece, ReadRequest, ReadResult

_BUFFERS_MAX: Final = 4
_PIECES_MAX: Final = 4096  # of one arena, so that shredded files do not fill the memory


class LargeFile:
    """A `LargeRead` of a file in a tree. Never raises OSError: `finish` tells what happened."""

    def __init__(
        self,
        scope: TreeScope,
        chunking: Chunking,
        clock: Clock,
        request: ReadRequest,
        *,
        batch_bytes_max: int,
        cloner: Cloner,
        answering: Answering,
        copier: SqliteCopier | None = None,
    ) -> None:
        self._answering = answering
        self._chunking = chunking
        self._clock = clock
        self._request = request
        self._size_max = batch_bytes_max
        self._cloner = cloner
        self._copier = copier
        self._copying: subprocess.Popen[bytes] | None = None
        self._is_begun = self._is_frozen = self._is_derived = self._is_side = False
        self._is_closed = False
        self._dir_fd = -1  # open as long as the file is
        self._live = -1  # the file itself; `_fd` is what is read: it, a clone or a copy of it
        self._buffers: list[bytearray] = []  # used in turn, as whoever seals lets go of them
        self._follower = Follower(decode(request.cuts)) if request.cuts else None
        self._notes = Notes()
        self._tail = b""  # data of a chunk that is not finished yet
        self._extents: Iterator[Extent] = iter(())
        self._extent = Extent(0, 0, hole=False)
        self._done = 0  # bytes of the file accounted for, the tail included
        self._is_cached = True  # all that was read so far was in the kernel's memory before
        self._tail_count = 0  # chunks at the end that are not cut by content
        self._fd = -1
        self._failure: ReadResult | None = None
        try:
            with answering.turn(request.path):
                self._open(scope)
        except OSError as error:
            self._fail(error)

    def _open(self, scope: TreeScope) -> None:
        directory, self._name = split(self._request.path)
        self._dir_fd = open_directory(scope, directory)
        self._fd = self._live = open_file(self._name, self._dir_fd)
        self._before, self._writer = settle(self._fd, self._clock.now_us(), probe=True)
        self._stat = host_stat(self._before)
        if not is_expected(self._fd, self._before, self._request):
            self._failure = ReadResult(Outcome.TYPE_CHANGED, self._request.expected)
            return
        self._extents = extents(self._fd, self._before.st_size)

    def _begin(self) -> bool:
        """Choose what to read: a database's copy, a clone, or the file. May take long.

        Returns whether there is anything to read.
        """
        self._is_begun = True
        if self._copier is not None:
            if sqlite.is_side_file(self._dir_fd, self._name):
                self._is_side = True
                return False
            self._stat = joined_stat(self._dir_fd, self._name, self._stat)
            wal_size = self._stat.size - self._before.st_size
            header = os.pread(self._fd, sqlite.HEADER_SIZE, 0)
            if wal_size and sqlite.is_wal_database(header):
                return self._copy_database(self._copier, wal_size)
        self._freeze()
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return True

    def _copy_database(self, copier: SqliteCopier, wal_size: int) -> bool:
        try:
            fd = copier.copy(self._dir_fd, self._name, self._before, wal_size, self._started)
        except SqliteFailed as error:
            expected = self._request.expected
            self._failure = ReadResult(Outcome.SQLITE_FAILED, expected, detail=str(error))
            return False
        self._is_derived = True
        self._read_from(fd)
        return True

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        self._copying = process
        if self._is_closed:
            process.kill()

    def _freeze(self) -> None:
        """Read from a clone if there can be one whose stat is known."""
        for attempt in range(TRIES):
            before = os.fstat(self._live)
            clone = self._cloner.clone(self._live, self._dir_fd)
            if clone is None:
                return
            if _is_unchanged(before, os.fstat(self._live)) or attempt + 1 == TRIES:
                # If it never stands still: one state all the same, and the next look will see
                # that its stat is an older one.
                self._stat = host_stat(before)
                if self._copier is not None:
                    self._stat = joined_stat(self._dir_fd, self._name, self._stat)
                self._is_frozen = True
                self._read_from(clone)
                return
            os.close(clone)
            pause(attempt)

    def _read_from(self, fd: int) -> None:
        self._fd = fd
        self._extents = extents(fd, os.fstat(fd).st_size)

    def next(self) -> tuple[memoryview, list[Piece]] | None:
        """Return an arena and its pieces; None at the end.

        The arena may be kept: its memory is used again only when nobody refers to it any more.
        """
        if self._failure is not None or self._fd < 0:
            return None
        try:
            with self._answering.turn(self._request.path):
                if not self._is_begun and not self._begin():
                    return None
                arena, pieces = self._fill()
        except OSError as error:
            self._fail(error)
            return None
        for chunk_id, offset, size in pieces:
            self._notes.add(chunk_id, 0 if chunk_id is None else arena[offset], size)
        return (arena, pieces) if pieces else None

    def _fill(self) -> tuple[memoryview, list[Piece]]:
        arena = self._take_buffer()
        used = len(self._tail)
        arena[:used] = self._tail
        self._tail = b""
        start = 0  # of the data not cut yet
        pieces: list[Piece] = []
        while len(pieces) < _PIECES_MAX:
            if not self._extent.size and not self._next_extent():
                at, tail = self._done - (used - start), self._request.tail
                ends = self._chunks(arena, start, used, final=True)
                ends, count = self._chunking.follow(arena, ends, at=at, tail=tail)
                self._tail_count = (
                    count or self._tail_count
                )  # at the end there is nothing once more
                return arena[:used], pieces + ends
            if self._extent.hole:
                pieces += self._chunks(arena, start, used, final=True)
                pieces.append(Piece(None, used, self._extent.size))
                start = used
                self._done += self._extent.size
                self._extent = self._extent._replace(size=0)
                continue
            used += self._read_into(arena[used:])
            if self._extent.size:  # the arena is full
                break
        return self._cut(arena, start, used, pieces)

    def _cut(
        self, arena: memoryview, start: int, used: int, pieces: list[Piece]
    ) -> tuple[memoryview, list[Piece]]:
        """Cut what is complete and carry the rest over."""
        found = self._chunks(arena, start, used, final=False)
        end = found[-1].offset + found[-1].size if found else start
        pieces += found
        if not pieces:  # a chunk larger than the arena: no boundary will come
            return arena[:used], self._chunks(arena, start, used, final=True)
        self._tail = bytes(arena[end:used])
        return arena[:end], pieces

    def _chunks(self, arena: memoryview, start: int, end: int, *, final: bool) -> list[Piece]:
        """Return the chunks of what is at `start` to `end`: the last that was read."""
        if self._follower is None:
            return self._chunking.cut(arena, start, end, final=final)
        at = self._done - (end - start)
        return self._chunking.cut_along(self._follower, arena, start, end, at=at, final=final)

    def _next_extent(self) -> bool:
        self._extent = next(self._extents, Extent(0, 0, hole=False))
        return self._extent.size > 0

    def _read_into(self, room: memoryview) -> int:
        """Read the next part of the current run of data; a file that ends early ends the run."""
        offset, size, _ = self._extent
        wanted = min(size, len(room))
        count = read_cached(self._fd, room[:wanted], offset) if self._is_cached else 0
        if count < wanted:
            count += read_fully(self._fd, room[count:wanted], offset + count)
            # What we had the kernel read is of no use to anybody. What it had before is: whoever
            # wrote the file, or reads it. Once it had to read, it has read ahead as well.
            self._is_cached = False
            os.posix_fadvise(self._fd, offset, count, os.POSIX_FADV_DONTNEED)
        self._done += count
        if count < wanted:
            self._extents = iter(())
            self._extent = Extent(0, 0, hole=False)
        else:
            self._extent = Extent(offset + count, size - count, hole=False)
        return count

    def _take_buffer(self) -> memoryview:
        size = max(self._size_max, len(self._tail) + 1)
        for buffer in self._buffers:
            if len(buffer) == size and is_unused(buffer):
                return memoryview(buffer)
        buffer = new_buffer(size)
        self._buffers = [*self._buffers[1 - _BUFFERS_MAX :], buffer]
        return memoryview(buffer)

    def finish(self) -> ReadResult:
        """Say how it went, without pieces, and close."""
        try:
            with self._answering.turn(self._request.path):
                return self._failure or confirmed(self._request, self._conclude())
        except OSError as error:
            return failure(self._request, error)
        finally:
            self.close()

    def _conclude(self) -> ReadResult:
        if self._fd < 0:
            return failure(self._request, OSError(errno.EBADF, "closed before it was finished"))
        if self._is_side:
            return side_result(self._live, os.fstat(self._live), native.BirthClock())
        xattrs = read_xattrs(self._live)
        after = os.fstat(self._live)
        is_whole = self._is_derived or self._is_frozen
        if is_whole:
            coherent = self._done == os.fstat(self._fd).st_size
        else:
            now_us = self._clock.now_us()
            coherent = (
                is_coherent(self._live, self._before, after, now_us, writer=self._writer)
                and self._done == after.st_size
            )
        return ReadResult(
            Outcome.OK if coherent else Outcome.FUZZY,
            self._stat if coherent else host_stat(after)._replace(size=self._done),
            xattrs=xattrs,
            btime_ns=native.BirthClock().of(self._live),
            content_size=self._done,
            is_derived=self._is_derived,
            tail_count=self._tail_count,
            cuts=self._notes.known(uncut=self._tail_count).encoded(),
        )

    def close(self) -> None:
        """Give up early; harmless after `finish`. May be called while another thread reads."""
        self._is_closed = True
        copying = self._copying
        if copying is not None and copying.poll() is None:
            copying.kill()
        for fd in {self._fd, self._live, self._dir_fd} - {-1}:
            os.close(fd)
        self._fd = self._live = self._dir_fd = -1

    def _fail(self, error: OSError) -> None:
        self._failure = failure(self._request, error)
        self.close()


def _is_unchanged(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mtime_ns, one.st_ctime_ns, one.st_size) == (
        other.st_mtime_ns,
        other.st_ctime_ns,
        other.st_size,
    )
