"""The last resort of watching: look at everything, again and again."""

from streamd.effects import MICROSECONDS, Clock
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.modes import POLL_SECONDS


class PollingWatch:
    """Says every few seconds that some trees must be looked at as a whole."""

    def __init__(self, inbox: Inbox, clock: Clock, *, seconds: float = POLL_SECONDS) -> None:
        self._inbox = inbox
        self._clock = clock
        self._interval_us = int(seconds * MICROSECONDS)
        self._trees: set[bytes] = set()
        self._polled_us = clock.now_us()

    def add(self, tree: bytes) -> None:
        """Poll `tree` from now on."""
        self._trees.add(tree)

    def remove(self, tree: bytes) -> None:
        """Poll it no longer: it is watched better now, or not there."""
        self._trees.discard(tree)

    def drain(self, _limit: int) -> int | None:
        """Return the instant up to which nothing was missed: that of the last poll.

        None when nothing is polled.
        """
        if not self._trees:
            return None
        now = self._clock.now_us()
        if not 0 <= now - self._polled_us < self._interval_us:
            self._polled_us = now
            for tree in self._trees:
                self._inbox.add_path(tree, deep=True)
        return self._polled_us
