"""How the ends of files that change again and again were cut, for the next capture of them.

In memory only: forgotten, the end is cut by content once more. It says where to cut and nothing
about content, so it may be wrong or of a version that was never recorded.
"""

import threading
from collections import OrderedDict
from typing import Final

from streamd.sources.port import Outcome, ReadResult, Tail

FILES_MAX: Final = 1000
RUNS_MAX: Final = 64  # of one file
SIZE_MIN: Final = 16 * 1024  # a smaller file costs little


class Tails:
    """Remembers the last runs of some files, by fid. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tails: OrderedDict[int, Tail] = OrderedDict()

    def of(self, fid: int) -> Tail | None:
        """Return how the end of a file was cut."""
        with self._lock:
            return self._tails.get(fid)

    def saw(self, fid: int, result: ReadResult) -> None:
        """A known file was read again."""
        is_read = result.outcome is Outcome.OK or result.outcome is Outcome.FUZZY
        if not is_read or result.is_derived or not result.pieces:
            return
        last = result.pieces[-RUNS_MAX:]
        size = sum(piece.size for piece in result.pieces)
        if size < SIZE_MIN:
            return
        start = size - sum(piece.size for piece in last)
        with self._lock:
            self._tails[fid] = Tail(start, tuple((piece.id, piece.size) for piece in last))
            self._tails.move_to_end(fid)
            if len(self._tails) > FILES_MAX:
                self._tails.popitem(last=False)
