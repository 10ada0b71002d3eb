"""The service's clock: real time, plus what a test adds to it."""

import time
from datetime import UTC, datetime, timedelta


class ServiceClock:
    """Runs with the machine's clock; can be set ahead to see what months do.

    `offset` makes the service's idea of the time wrong as a whole, as seen from a client.
    """

    def __init__(self) -> None:
        self.offset = timedelta()
        self._ahead = timedelta()
        self._last_tick = 0

    def now(self) -> datetime:
        """Return the time, as the service believes it is."""
        return self.wall() + self._ahead

    def wall(self) -> datetime:
        """Return the time without what was added: for signatures, whose clients did not jump."""
        return datetime.fromtimestamp(time.time(), UTC) + self.offset

    def advance(self, **amount: float) -> None:
        """Let time pass: keywords as those of `timedelta`."""
        self._ahead += timedelta(**amount)

    def tick(self) -> str:
        """Return a moment of 100 ns that no other call returns, as version ids are."""
        ticks = max(int(self.now().timestamp() * 10_000_000), self._last_tick + 1)
        self._last_tick = ticks
        moment = datetime.fromtimestamp(ticks // 10_000_000, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{ticks % 10_000_000:07}Z"
