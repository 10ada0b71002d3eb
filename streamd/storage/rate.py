"""A limit on bytes per second that can be changed while it is waited for."""

import asyncio
from contextlib import suppress
from typing import Final

from streamd.effects import Clock

# What a late wake-up may make good: without it a busy machine stays below the rate, for each wait
# ends a little late. Over 10 s that is a burst of at most 2.5 %.
BURST_SECONDS: Final = 0.25


class ByteRate:
    """Spreads bytes so that they keep to a rate, whatever their portions.

    Whoever moves bytes leaves a debt that time pays off at the rate; the next one waits until there
    is none. Of idle time no more than BURST_SECONDS is saved up. First come, first served.
    """

    def __init__(self, clock: Clock, bytes_per_second: int | None) -> None:
        self._clock = clock
        self._rate = bytes_per_second
        self._debt_bytes = 0.0
        self._settled_at = clock.monotonic()
        self.moved_bytes = 0  # so far, with a limit or without
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def bytes_per_second(self) -> int | None:
        """The limit: None is none at all, 0 lets nothing through."""
        return self._rate

    def limit(self, bytes_per_second: int | None) -> None:
        """Change the limit, also for those who wait."""
        self._settle()
        self._rate = bytes_per_second
        self._changed.set()

    async def take(self, size_bytes: int) -> None:
        """Return when `size_bytes` may be moved."""
        async with self._turn:
            while (wait := self._wait_seconds()) != 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
            self.charge(size_bytes)

    def charge(self, size_bytes: int) -> None:
        """Note that `size_bytes` were moved without asking, because nobody knew how many."""
        self._settle()
        self._debt_bytes += size_bytes
        self.moved_bytes += size_bytes

    def _wait_seconds(self) -> float | None:
        """Return how long the debt lasts; None if forever, as nothing may pass."""
        self._settle()
        if self._rate is None:
            return 0
        if self._rate == 0:
            return None
        return max(self._debt_bytes / self._rate, 0)

    def _settle(self) -> None:
        now = self._clock.monotonic()
        if self._rate is None:
            self._debt_bytes = 0.0
        else:
            paid = self._rate * (now - self._settled_at)
            left = max(self._debt_bytes - paid, -self._rate * BURST_SECONDS)
            # Less than half a byte is rounding: waiting for it would take ever smaller waits.
            self._debt_bytes = 0.0 if 0 < left < 0.5 else left  # noqa: PLR2004
        self._settled_at = now
