"""Turns at a file that grows piece by piece: one thread writes into it, the others go on.

The kernel lets one writer into a file at a time, and a second one spins for it instead of opening
the next frame. So who finds a file taken leaves the pieces with the thread that is at it, and that
one writes them too before it lets go. What lies there is bounded, for all files together: when
it is too much, one waits. Nobody waits while being at a file, so that there is no cycle.
"""

import threading
from collections.abc import Sequence
from typing import Final

LEFT_MAX: Final = 16 * 1024 * 1024  # bytes kept alive by pieces that wait for another thread

Piece = tuple[int, memoryview]  # offset in the file, content


class Turns:
    """Who is at which file, and what was left for him. Threads share one."""

    def __init__(self, left_max: int = LEFT_MAX) -> None:
        self._changed = threading.Condition()
        self._left: dict[int, list[tuple[list[Piece], int]]] = {}  # of the files that are taken
        self._left_bytes = 0
        self._left_max = left_max

    def take(self, file: int, pieces: list[Piece], held_bytes: int) -> bool:
        """Say whether the caller may write now; if not, whoever is at the file writes `pieces`.

        `held_bytes` is the memory that the pieces keep alive. Waits while too much is left.
        """
        with self._changed:
            while (left := self._left.get(file)) is not None:
                if not self._left_bytes or self._left_bytes + held_bytes <= self._left_max:
                    left.append((pieces, held_bytes))
                    self._left_bytes += held_bytes
                    return False
                self._changed.wait()
            self._left[file] = []
            return True

    def next(self, file: int) -> list[Piece]:
        """Return what was left meanwhile, in order of offsets; if nothing was, let go."""
        with self._changed:
            left = self._left[file]
            if left:
                self._left[file] = []
                self._forget(left)
            else:
                del self._left[file]
            self._changed.notify_all()
        return sorted((piece for pieces, _ in left for piece in pieces), key=_offset)

    def let_go(self, file: int) -> None:
        """Let go of a file that cannot be written; what was left for it is dropped."""
        with self._changed:
            self._forget(self._left.pop(file))
            self._changed.notify_all()

    def _forget(self, left: Sequence[tuple[list[Piece], int]]) -> None:
        self._left_bytes -= sum(held for _, held in left)


def _offset(piece: Piece) -> int:
    return piece[0]
