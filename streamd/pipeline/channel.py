"""The only queue streamd uses: bounded in items and in bytes, closable, with priorities.

`asyncio.Queue(0)` is unbounded, and Python 3.11 has no `Queue.shutdown()`; both are traps. A
channel measures how long its senders were blocked: that is the backpressure operators see.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
LIVE, BULK = 0, 1
LONE = 2  # large files by themselves: in line with nobody; in the channel they are BULK
LANES = 2


class Closed(Exception):
    """The channel is closed and drained."""


class Channel(Generic[T]):
    """A FIFO per lane; receivers are given lane LIVE first, so small changes overtake bulk.

    `weigh` of an item is its size in bytes. A full lane blocks its own senders only; one item
    always fits an empty lane, whatever its size.
    """

    def __init__(self, name: str, *, items_max: int, bytes_max: int) -> None:
        assert items_max >= 1
        self.name = name
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.blocked_seconds = 0.0
        self._lanes: tuple[deque[tuple[T, int]], ...] = (deque(), deque())
        self._bytes = [0, 0]
        self._closed = False
        self._readable = asyncio.Event()
        self._writable = (asyncio.Event(), asyncio.Event())

    @property
    def item_count(self) -> int:
        """Items waiting."""
        return sum(len(lane) for lane in self._lanes)

    @property
    def byte_count(self) -> int:
        """Bytes waiting."""
        return sum(self._bytes)

    def fullness(self, lane: int) -> float:
        """Return how full a lane is, from 0 to 1: by items or by bytes, whichever is more."""
        by_items = len(self._lanes[lane]) / self.items_max
        return min(1.0, max(by_items, self._bytes[lane] / self.bytes_max))

    def _has_room(self, lane: int, size: int) -> bool:
        waiting = self._lanes[lane]
        return not waiting or (
            len(waiting) < self.items_max and self._bytes[lane] + size <= self.bytes_max
        )

    async def send(self, item: T, size: int, lane: int = BULK) -> None:
        """Append `item`; waits while the lane is full. Raises Closed if it is closed meanwhile.

        Once the item is in, the call returns without giving up its turn on the loop.
        """
        assert not self._closed, f"send on closed channel {self.name}"
        if not self._has_room(lane, size):
            loop = asyncio.get_running_loop()
            started = loop.time()
            while not self._has_room(lane, size):
                self._writable[lane].clear()
                await self._writable[lane].wait()
                if self._closed:
                    raise Closed(self.name)
            self.blocked_seconds += loop.time() - started
        self._lanes[lane].append((item, size))
        self._bytes[lane] += size
        self._readable.set()

    def close(self) -> None:
        """Say that no more items follow; those inside are still delivered."""
        self._closed = True
        self._readable.set()
        for writable in self._writable:
            writable.set()

    async def receive(self, lanes: tuple[int, ...] = (LIVE, BULK)) -> T:
        """Return the next item of `lanes`, the first lane first. Raises Closed at the end."""
        while True:
            for lane in lanes:
                if self._lanes[lane]:
                    item, size = self._lanes[lane].popleft()
                    self._bytes[lane] -= size
                    self._writable[lane].set()
                    return item
            if self._closed:
                raise Closed(self.name)
            self._readable.clear()
            await self._readable.wait()

    def receive_now(self) -> T | None:
        """Return the next item if there is one."""
        for lane in range(LANES):
            if self._lanes[lane]:
                item, size = self._lanes[lane].popleft()
                self._bytes[lane] -= size
                self._writable[lane].set()
                return item
        return None
