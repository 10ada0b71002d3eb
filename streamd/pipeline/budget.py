"""The memory budget: bytes of content that may be in flight, over all sources and stages.

A batch takes what it expects to read before it is read, gives the difference back when it is
sealed, and the rest when its frames are durable. Small live changes have a reserve of their own,
so that bulk work that waits for a slow destination never holds them up.
"""

import asyncio
from typing import Final

LIVE_SHARE: Final = 4  # a quarter of the budget is for live changes only


class Budget:
    """A counting semaphore in bytes. An item larger than the whole budget may run alone."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.blocked_seconds = 0.0
        self._changed = asyncio.Event()

    def _fits(self, size: int, *, live: bool) -> bool:
        limit = self.limit_bytes if live else self.limit_bytes - self.limit_bytes // LIVE_SHARE
        return self.used_bytes == 0 or self.used_bytes + size <= limit

    async def take(self, size: int, *, live: bool) -> None:
        """Wait until `size` bytes may be used."""
        if not self._fits(size, live=live):
            loop = asyncio.get_running_loop()
            started = loop.time()
            while not self._fits(size, live=live):
                self._changed.clear()
                await self._changed.wait()
            self.blocked_seconds += loop.time() - started
        self.used_bytes += size

    def adjust(self, old: int, new: int) -> int:
        """Turn a holding of `old` bytes into one of `new`; returns `new`. Never waits."""
        self.used_bytes += new - old
        if new < old:
            self._changed.set()
        return new

    def give_back(self, size: int) -> None:
        """Release a holding."""
        self.adjust(size, 0)
