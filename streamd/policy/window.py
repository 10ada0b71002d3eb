"""How many large requests to have under way at once.

Pure. Additive increase while one more brings goodput; decrease when requests only queue up for one
another; half when the service says that it is too much. Whether they queue up is seen
from the best time per byte so far, which is forgotten slowly.
"""

import math
from typing import Final

import msgspec
from msgspec.structs import replace

LIMIT_MIN: Final = 1
LIMIT_MAX: Final = 32
START: Final = 4
SMALLEST_BYTES: Final = 64 << 10  # smaller requests say nothing about the pace of bytes
_OVERHEAD_BYTES: Final = 256 << 10  # what one round trip is worth, so that sizes can be compared
_FORGET: Final = 1.01  # per round: a path that got slower is believed after a while
_QUEUE_HIGH: Final = 3.0  # requests that only wait for others: above this there are too many
_GAIN: Final = 0.3  # of what one more request would bring on an empty path: it has to be seen
_REST_ROUNDS: Final = 16  # before it is tried again
_SHRINK: Final = 0.8
_HALF: Final = 0.5


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The limit, and what was seen in the round under way: about as many requests as the limit."""

    limit: float = START
    limit_max: int = LIMIT_MAX
    best_pace: float = math.inf  # seconds per byte
    goodput: float = 0.0  # bytes per second in the last round
    count: int = 0
    paces: float = 0.0
    size_bytes: int = 0
    began: float = -math.inf  # seconds of a monotonic clock
    was_full: bool = False  # the limit held somebody up in this round
    was_cut: bool = False  # it was halved in this round
    raised: bool = False  # the last round ended with one more
    rest: int = 0  # rounds until one more is tried again

    @property
    def size(self) -> int:
        """Return how many may be under way."""
        return max(LIMIT_MIN, min(int(self.limit), self.limit_max))

    def after(self, *, size_bytes: int, seconds: float, now: float, held_up: bool) -> "Window":
        """Return the window after a request that took `seconds` and ended well at `now`."""
        if size_bytes < SMALLEST_BYTES:
            return self
        grown = replace(
            self,
            count=self.count + 1,
            paces=self.paces + max(seconds, 1e-6) / (size_bytes + _OVERHEAD_BYTES),
            size_bytes=self.size_bytes + size_bytes,
            began=self.began if self.count else max(self.began, now - seconds),
            was_full=self.was_full or held_up,
        )
        return grown if grown.count < grown.size else _next_round(grown, now)

    def congested(self) -> "Window":
        """Return the window after a sign that it was too much; in one round, once."""
        if self.was_cut:
            return self
        return Window(
            limit=max(LIMIT_MIN, self.size * _HALF),
            limit_max=self.limit_max,
            best_pace=self.best_pace,
            was_cut=True,
        )


def _next_round(window: Window, now: float) -> Window:
    pace = window.paces / window.count
    best = min(window.best_pace * _FORGET, pace)
    goodput = window.size_bytes / max(now - window.began, 1e-6)
    queued = window.size * (1 - best / pace)
    limit, rest, raised = window.limit, max(0, window.rest - 1), False
    if queued > _QUEUE_HIGH:
        limit, rest = max(LIMIT_MIN, limit * _SHRINK), _REST_ROUNDS
    elif window.raised and goodput < window.goodput * (1 + _GAIN / limit):
        limit, rest = max(LIMIT_MIN, limit - 1), _REST_ROUNDS  # one more did not help
    elif window.was_full and not rest:
        limit, raised = min(limit + 1, window.limit_max), True
    return Window(
        limit=limit,
        limit_max=window.limit_max,
        best_pace=best,
        goodput=goodput,
        began=now,
        rest=rest,
        raised=raised,
    )
