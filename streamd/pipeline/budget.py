"""The memory budget: bytes of content that may be in flight, over all sources and stages.

A batch takes what it expects to read before it is read, gives the difference back when it is
sealed, and the rest when its frames are durable. Small live changes have a reserve of their own,
so that bulk work that waits for a slow destination never holds them up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

LIVE_SHARE: Final = 4  # a quarter of the budget is for live changes only


class Budget:
    """A counting semaphore in bytes, first come first served within live and within bulk.

    The order matters: batches are committed in order, so a batch that waits for memory must not be
    overtaken by later ones that then hold the memory while they wait for it. An item larger than
    the whole budget may run alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.blocked_seconds = 0.0
        self.on_wait: Callable[[], None] = lambda: None  # somebody begins to wait
        self._queues: tuple[deque[tuple[int, asyncio.Future[None]]], ...] = (deque(), deque())

    @property
    def is_waited_for_live(self) -> bool:
        """Whether a live batch waits for memory."""
        return bool(self._queues[0])

    def _fits(self, size: int, *, live: bool) -> bool:
        limit = self.limit_bytes if live else self.limit_bytes - self.limit_bytes // LIVE_SHARE
        return self.used_bytes == 0 or self.used_bytes + size <= limit

    async def take(self, size: int, *, live: bool) -> None:
        """Wait until `size` bytes may be used."""
        queue = self._queues[0 if live else 1]
        if not queue and self._fits(size, live=live):
            self.used_bytes += size
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        turn: asyncio.Future[None] = loop.create_future()
        queue.append((size, turn))
        self.on_wait()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)  # granted in the same moment
            else:
                if (size, turn) in queue:
                    queue.remove((size, turn))
                self._grant()
            raise
        finally:
            self.blocked_seconds += loop.time() - started

    def _grant(self) -> None:
        """Give what is free to those who wait, live ones first."""
        for live, queue in zip((True, False), self._queues, strict=True):
            while queue and (queue[0][1].done() or self._fits(queue[0][0], live=live)):
                size, turn = queue.popleft()
                if not turn.done():  # else it was cancelled and has not run yet
                    self.used_bytes += size
                    turn.set_result(None)

    def adjust(self, old: int, new: int) -> int:
        """Turn a holding of `old` bytes into one of `new`; returns `new`. Never waits."""
        self.used_bytes += new - old
        if new < old:
            self._grant()
        return new

    def give_back(self, size: int) -> None:
        """Release a holding."""
        self.adjust(size, 0)
