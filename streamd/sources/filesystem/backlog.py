"""How far a queue has been delivered that may never be empty.

On a file system where much happens elsewhere there is always something left to read. A queue is
first in, first out, so what was in it at some instant is delivered once as many events have been.
"""

from collections.abc import Callable

from streamd.effects import Clock


class Backlog:
    """Of one queue. `waiting` returns how many events it holds now."""

    def __init__(self, clock: Clock, waiting: Callable[[], int]) -> None:
        self.delivered_us = 0  # everything that happened before is delivered; 0: not known
        self._clock = clock
        self._waiting = waiting
        self._marked_us = 0  # an instant that is being worked towards; 0: none
        self._left = 0  # events to deliver until then

    def mark(self) -> None:
        """Before anything is read: remember what there is, unless that was already done.

        An event that the kernel merges with an earlier one moves forward, never back.
        """
        if not self._marked_us:
            self._marked_us = self._clock.now_us()
            self._left = self._waiting()

    def delivered(self, count: int) -> None:
        """So many events were delivered."""
        self._left -= count
        if self._marked_us and self._left <= 0:
            self.emptied(self._marked_us)

    def emptied(self, at_us: int) -> None:
        """Nothing was left at this instant."""
        self.delivered_us = max(self.delivered_us, at_us)
        self._marked_us = 0
