"""Cut a file where it was cut the last time, as long as it still is what it was.

A cut depends on nothing but the bytes since the cut before. So if a chunk begins at a place, and
what is there is a chunk as it was cut by its content once, then looking for its end again finds the
same end: it need not be looked for. The id, which is needed anyway, says whether it is the same.
Where it is not, content is cut as if nothing were known, until a known chunk turns up: behind data
that was changed, inserted or removed the old cuts are true again, at other places of the file.

So the cuts are those that looking finds, whatever is known (`test_cutting_along.py`).
"""

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

MARK_SIZE: Final = 8  # of an id: enough to tell chunks, and an error would only cut elsewhere
CHUNKS_MAX: Final = 1 << 20  # of one file: what comes after them is cut anew
_WINDOW: Final = 4096  # known chunks among which one that turned up is looked for: about 1 GiB
_STRIDE: Final = 1024
_NOTHING: Final = bytes(MARK_SIZE)


class KnownCuts(NamedTuple):
    """How a file was cut: the size and the mark of each run, in order.

    A mark of zeros: a hole, or something that was not cut by its content.
    """

    sizes: "array[int]"
    marks: bytes

    def encoded(self) -> bytes:
        """Return it in the form that `decode` takes."""
        return self.sizes.tobytes() + self.marks


def known_cuts(runs: Sequence[tuple[bytes | None, int]], *, uncut: int) -> KnownCuts:
    """Return how a file was cut whose runs are (id, None for a hole; size).

    What ends at a hole or at the end of the file was not cut by its content, nor are the last
    `uncut` runs.
    """
    marks: list[bytes] = []
    sizes = array("Q")
    for chunk_id, size in runs[:CHUNKS_MAX]:
        if chunk_id is None and marks:
            marks[-1] = _NOTHING
        marks.append(_NOTHING if chunk_id is None else chunk_id[:MARK_SIZE])
        sizes.append(size)
    ends = max(uncut, 1) - (len(runs) - len(marks))
    for at in range(max(len(marks) - ends, 0), len(marks)):
        marks[at] = _NOTHING
    return KnownCuts(sizes, b"".join(marks))


def decode(data: bytes) -> KnownCuts:
    """Return what `encoded` wrote; nothing known if it is something else."""
    count, rest = divmod(len(data), 8 + MARK_SIZE)
    if rest:
        return KnownCuts(array("Q"), b"")
    sizes = array("Q")
    sizes.frombytes(data[: count * 8])
    return KnownCuts(sizes, data[count * 8 :])


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

    def guess(self, at: int) -> tuple[int, bytes] | None:
        """Return size and mark of the chunk that may begin at `at`; None if nothing is known.

        `at` does not go back.
        """
        sizes = self._sizes
        while self._next < len(sizes) and self._place < at:
            self._place += sizes[self._next]
            self._next += 1
        if self._next == len(sizes) or self._place != at:
            return None
        mark = self._mark(self._next)
        return None if mark == _NOTHING else (sizes[self._next], mark)

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
        return self._marks[at * MARK_SIZE : (at + 1) * MARK_SIZE]
