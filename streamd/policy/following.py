"""Cut a file where it was cut the last time, as long as it still is what it was.

Whether content is cut at a place depends on the bytes since the cut before, and on the one byte
that follows. So if a chunk begins at a place, and what is there is a chunk as it was cut by its
content once, and the same byte follows, then looking for its end again finds the same end: it
need not be looked for. The id, which is needed anyway, says whether it is the same. Where it is
not, content is cut as if nothing were known, until a known chunk turns up: behind data that was
changed, inserted or removed the old cuts are true again, at other places of the file.

So the cuts are those that looking finds, whatever is known (`test_cutting_along.py`).
"""

from array import array
from typing import Final, NamedTuple

MARK_SIZE: Final = 7  # of an id: enough to tell chunks, and an error would only cut elsewhere
LOOK_AHEAD: Final = 2  # bytes behind a cut that have to be there: they are looked at in pairs
CHUNKS_MAX: Final = 1 << 20  # of one file: what comes after them is cut anew
_ROW: Final = MARK_SIZE + 1
_WINDOW: Final = 4096  # known chunks among which one that turned up is looked for: about 1 GiB
_STRIDE: Final = 1024
_NOTHING: Final = bytes(MARK_SIZE)


class KnownCuts(NamedTuple):
    """How a file was cut: of each run, in order, the size, the mark, and the first byte.

    A mark of zeros: a hole, or something that was not cut by its content.
    """

    sizes: "array[int]"
    marks: bytes  # mark and first byte, side by side

    def encoded(self) -> bytes:
        """Return it in the form that `decode` takes."""
        return self.sizes.tobytes() + self.marks


class Notes:
    """Takes notes of how a file is cut, while it is."""

    def __init__(self) -> None:
        self._sizes = array("Q")
        self._marks = bytearray()
        self._left_out = 0

    def add(self, chunk_id: bytes | None, first: int, size: int) -> None:
        """Note the next run: its id, None for a hole; its first byte; its size."""
        if len(self._sizes) >= CHUNKS_MAX:
            self._left_out += 1
            return
        if chunk_id is None:
            self._spoil(1)
        self._sizes.append(size)
        self._marks += _NOTHING if chunk_id is None else chunk_id[:MARK_SIZE]
        self._marks.append(first)

    def known(self, *, uncut: int) -> KnownCuts:
        """Return how the file was cut, of which the last `uncut` runs were not by their content.

        Nor was what ends at a hole or at the end of the file.
        """
        self._spoil(max(uncut - self._left_out, 1))
        return KnownCuts(self._sizes, bytes(self._marks))

    def _spoil(self, count: int) -> None:
        """The last `count` runs were not cut by their content."""
        last = len(self._sizes)
        for at in range(max(last - count, 0), last):
            self._marks[at * _ROW : at * _ROW + MARK_SIZE] = _NOTHING


def decode(data: bytes) -> KnownCuts:
    """Return what `encoded` wrote; nothing known if it is something else."""
    count, rest = divmod(len(data), 8 + _ROW)
    if rest:
        return KnownCuts(array("Q"), b"")
    sizes = array("Q")
    sizes.frombytes(data[: count * 8])
    return KnownCuts(sizes, data[count * 8 :])


class Guess(NamedTuple):
    """What may begin at a place: a chunk of that size and mark, and what comes after it."""

    size: int
    mark: bytes
    next: int  # the first byte


class Follower:
    """Goes along known cuts while a file is cut from its beginning to its end.

    At each place ask `guess`; tell `cut` of each chunk that was found otherwise.
    """

    def __init__(self, known: KnownCuts) -> None:
        self._sizes = known.sizes
        self._marks = known.marks
        self._next = 0  # the known run that is expected
        self._place = 0  # where it begins in the file as it is now
        self._met = 0  # the known run after the last one that was met
        self._ahead: dict[bytes, int] = {}  # runs of a window by their marks
        self._base = 0  # where that begins

    def guess(self, at: int) -> Guess | None:
        """Return the chunk that may begin at `at`; None if nothing is known.

        `at` does not go back.
        """
        sizes = self._sizes
        while self._next < len(sizes) and self._place < at:
            self._place += sizes[self._next]
            self._next += 1
        if self._next == len(sizes) or self._place != at:
            return None
        mark = self._mark(self._next)
        if mark == _NOTHING or self._next + 1 == len(sizes):
            return None
        return Guess(sizes[self._next], mark, self._marks[(self._next + 2) * _ROW - 1])

    def follow(self) -> None:
        """What was guessed is there."""
        self._met = self._next + 1

    def cut(self, end: int, chunk_id: bytes) -> bool:
        """A chunk was cut that ends at `end`; return whether it is a known one.

        Then what is expected comes after it.
        """
        if not self._ahead or not 0 <= self._met - self._base <= _STRIDE:
            self._look_ahead()
        known = self._ahead.get(chunk_id[:MARK_SIZE])
        if known is None:
            return False
        self._next = self._met = known + 1
        self._place = end
        return True

    def _look_ahead(self) -> None:
        self._base = self._met
        last = min(self._base + _WINDOW, len(self._sizes))
        marks = ((self._mark(at), at) for at in range(last - 1, self._base - 1, -1))
        self._ahead = {mark: at for mark, at in marks if mark != _NOTHING}

    def _mark(self, at: int) -> bytes:
        return self._marks[at * _ROW : at * _ROW + MARK_SIZE]
