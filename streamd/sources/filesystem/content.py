"""From an open file to pieces: where data and holes are, chunk boundaries, chunk ids."""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from streamd.policy.following import LOOK_AHEAD, MARK_SIZE, Follower, Guess
from streamd.policy.growing import piece_sizes
from streamd.sources.port import Piece, Tail

_BLOCK: Final = 4096
_FINE_MAX: Final = 1024 * 1024  # in files up to this size every hole of a block counts
_COARSE_HOLE_MIN: Final = 64 * 1024  # in larger ones a smaller hole is read as zeros
_READ_STEP_MAX: Final = 1 << 30
_STRETCH: Final = 1 << 20  # where cuts are not known: so much is cut before they are asked again

Hasher = Callable[[memoryview], bytes]
PartHasher = Callable[[memoryview, list[int], list[int]], list[bytes]]  # at these places, so large


class PartCutter(Protocol):
    """Finds chunks and their ids in several parts of an arena, in one call."""

    def __call__(
        self, data: memoryview, starts: list[int], sizes: list[int], *, final: bool
    ) -> list[list[Piece]]:
        """Return of each part what `Chunking.cut` would."""


class Cutter(Protocol):
    """Finds chunk boundaries; stateless, so that several threads may use one."""

    def cut(self, buffer: memoryview, *, final: bool) -> list[int]:
        """Return the sizes of the chunks in `buffer`, in order.

        When not `final` the last, unfinished chunk is left out: carry it over.
        """


class Chunking(msgspec.Struct, frozen=True):
    """How content becomes chunks: one profile for all files of a source."""

    cutter: Cutter
    hasher: Hasher  # of plaintext to the 32 bytes of a chunk id
    small_file_max: int  # a file up to this size is one chunk
    part_hasher: PartHasher | None = None  # the same as `hasher`, of many chunks in one call
    part_cutter: PartCutter | None = None  # the same as `cutter` and `hasher`

    def ids(self, arena: memoryview, starts: list[int], sizes: list[int]) -> list[bytes]:
        """Return the ids of chunks that stand in the arena."""
        if self.part_hasher is not None:
            return self.part_hasher(arena, starts, sizes)
        places = zip(starts, sizes, strict=True)
        return [self.hasher(arena[start : start + size]) for start, size in places]

    def pieces(self, arena: memoryview, start: int, end: int, *, file_size: int) -> list[Piece]:
        """Return the chunks of a whole run of data, at `start` to `end` of the arena."""
        if start < end and file_size <= self.small_file_max:
            return [Piece(self.hasher(arena[start:end]), start, end - start)]
        return self.cut(arena, start, end, final=True)

    def follow(
        self, arena: memoryview, pieces: list[Piece], *, at: int, tail: Tail | None
    ) -> tuple[list[Piece], int]:
        """Cut the last of `pieces`, the first of which is at `at` of the file, as `tail` does.

        Return them all, and how many at the end are not cut by content: see `policy.growing`.
        """
        if tail is None or not pieces:
            return pieces, 0
        last = pieces[-1]
        kept = self._kept(arena, last, at + last.offset - pieces[0].offset, tail)
        if not kept:
            return pieces, 0
        known, offset, ends = sum(piece.size for piece in kept), last.offset, list[Piece]()
        by_place = {(piece.offset, piece.size): piece for piece in kept}
        for size in piece_sizes([piece.size for piece in kept], last.size - known):
            same = by_place.get((offset, size))
            ends.append(same or Piece(self.hasher(arena[offset : offset + size]), offset, size))
            offset += size
        return ([*pieces[:-1], *ends], len(ends)) if len(ends) > 1 else (pieces, 0)

    def _kept(self, arena: memoryview, last: Piece, at: int, tail: Tail) -> list[Piece]:
        """Return the runs of `tail` that still are what the chunk at `at` of the file begins with.

        Empty if none of them began there.
        """
        kept: list[Piece] = []
        place, offset, end = tail.start, last.offset, last.offset + last.size
        for chunk_id, size in tail.runs:
            if place >= at:
                is_next = chunk_id is not None and place == at + offset - last.offset
                if not is_next or offset + size > end:
                    break
                if self.hasher(arena[offset : offset + size]) != chunk_id:
                    break
                kept.append(Piece(chunk_id, offset, size))
                offset += size
            place += size
        return kept

    def cut_along(
        self,
        follower: Follower,
        arena: memoryview,
        start: int,
        end: int,
        *,
        at: int,
        final: bool,
    ) -> list[Piece]:
        """Return what `cut` does; with less work where the cuts are those that are known.

        `start` is at `at` of the file.
        """
        pieces: list[Piece] = []
        while start < end:
            guess, tried = follower.guess(at), None
            if guess is not None and guess.size <= _STRETCH:  # no chunk is larger
                behind = start + guess.size
                if behind + LOOK_AHEAD <= end:
                    tried = Piece(self.hasher(arena[start:behind]), start, guess.size)
                    if _is_as_guessed(tried, arena[behind], guess):
                        follower.follow()
                        pieces.append(tried)
                        start, at = behind, at + guess.size
                        continue
                elif not final:
                    break
            found = self._cut_anew(follower, arena, start, end, at=at, final=final, tried=tried)
            if not found:
                break
            pieces += found
            passed = found[-1].offset + found[-1].size - start
            start, at = start + passed, at + passed
        return pieces

    def _cut_anew(
        self,
        follower: Follower,
        arena: memoryview,
        start: int,
        end: int,
        *,
        at: int,
        final: bool,
        tried: Piece | None,
    ) -> list[Piece]:
        """Return the next chunks, up to the first that is known or behind which one may be."""
        stop = min(start + _STRETCH, end)
        sizes = self.cutter.cut(arena[start:stop], final=final and stop == end)
        if not sizes and stop < end:
            sizes = self.cutter.cut(arena[start:end], final=final)
        pieces: list[Piece] = []
        for size in sizes:
            if tried is not None and (start, size) == (tried.offset, tried.size):
                piece = tried
            else:
                piece = Piece(self.hasher(arena[start : start + size]), start, size)
            pieces.append(piece)
            start, at = start + size, at + size
            assert piece.id is not None, "what was cut is no hole"
            if follower.cut(at, piece.id) or follower.guess(at) is not None:
                break
        return pieces

    def cut(self, arena: memoryview, start: int, end: int, *, final: bool) -> list[Piece]:
        """Return the chunks between `start` and `end`; without the unfinished one if not final."""
        return self.cut_parts(arena, [start], [end - start], final=final)[0]

    def cut_parts(
        self, arena: memoryview, starts: list[int], sizes: list[int], *, final: bool
    ) -> list[list[Piece]]:
        """Return the chunks of each of some runs of data, as `cut` does."""
        if self.part_cutter is not None:
            return self.part_cutter(arena, starts, sizes, final=final)
        found = []
        for start, size in zip(starts, sizes, strict=True):
            pieces, at = list[Piece](), start
            for length in self.cutter.cut(arena[start : start + size], final=final) if size else ():
                pieces.append(Piece(self.hasher(arena[at : at + length]), at, length))
                at += length
            found.append(pieces)
        return found


def _is_as_guessed(tried: Piece, following: int, guess: Guess) -> bool:
    return tried.id is not None and (tried.id[:MARK_SIZE], following) == guess[1:]


class Extent(NamedTuple):
    """A run of a file: data, or a hole."""

    offset: int
    size: int
    hole: bool


def is_sparse(status: os.stat_result) -> bool:
    """Say whether the file may have holes: fewer blocks than its size needs."""
    return status.st_size > _BLOCK and status.st_blocks * 512 < status.st_size


def extents(fd: int, size: int) -> Iterator[Extent]:
    """Yield the runs of data and the holes of a file up to `size`, in order, without gaps.

    Small holes of large files count as data, so that content is not cut to shreds.
    """
    hole_min = _BLOCK if size <= _FINE_MAX else _COARSE_HOLE_MIN
    data_at = at = 0
    while at < size:
        hole_at = _seek(fd, at, os.SEEK_HOLE, size)
        if hole_at >= size:
            break
        at = _seek(fd, hole_at, os.SEEK_DATA, size)
        if at - hole_at < hole_min:
            continue
        if hole_at > data_at:
            yield Extent(data_at, hole_at - data_at, hole=False)
        yield Extent(hole_at, at - hole_at, hole=True)
        data_at = at
    if data_at < size:
        yield Extent(data_at, size - data_at, hole=False)


def _seek(fd: int, at: int, whence: int, size: int) -> int:
    try:
        return min(os.lseek(fd, at, whence), size)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing of that kind up to the end
            return size
        if error.errno == errno.EINVAL:  # this file system does not know: all is data
            return size if whence == os.SEEK_HOLE else at
        raise


def read_cached(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` with what the kernel has in memory, up to the first part that it has not.

    Never waits for the disk. 0 where a file system cannot tell, or the file ends.
    """
    try:
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL}:
            return 0
        raise


def read_fully(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset` of the file; return fewer bytes only if the file ends."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done : done + _READ_STEP_MAX]], offset + done)
        if count == 0:
            break
        done += count
    return done
