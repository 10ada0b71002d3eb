"""The last events by path, for `streamd explain`: as many as are worth remembering."""

from collections.abc import Iterable
from typing import Final

RECENT_MAX: Final = 10_000


class RecentEvents:
    """When each of the paths noticed last was noticed; the oldest are forgotten."""

    def __init__(self, limit: int = RECENT_MAX) -> None:
        self._limit = limit
        self._at: dict[bytes, int] = {}

    def saw(self, paths: Iterable[bytes], now_us: int) -> None:
        """Events for these paths have arrived."""
        at = self._at
        for path in paths:
            at.pop(path, None)
            at[path] = now_us
        if len(at) > self._limit + self._limit // 10:  # seldom: it goes through all of them
            for path in list(at)[: len(at) - self._limit]:
                del at[path]

    def last_us(self, path: bytes) -> int:
        """Return when the last event of a path arrived; 0: none is remembered."""
        return self._at.get(path, 0)
