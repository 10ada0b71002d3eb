"""Reading on in a large file while what was read before is cut and hashed.

Half of the time of a file that hardly changed is reading, the other half is hashing. One part at a
time, so that no more than one buffer is filled ahead, in a thread of its own. Like every thread
that reads from file systems it may hang with them for ever, so the process ends without it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, NamedTuple

ROOM: Final = (1 << 20) + (1 << 16)  # before what is read: for the rest of the part before it
SIZE_MIN: Final = 4 << 20  # of a buffer for which it is worth it

Read = Callable[[memoryview, int], int]  # fills from an offset of the file; returns how much


class _Order(NamedTuple):
    view: memoryview
    offset: int
    done: "Future[int]"


class ReadAhead:
    """Has the next part of one file read. Used by one thread at a time."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._buffer: memoryview | None = None
        self._order: _Order | None = None
        self._is_running = False

    def begin(self, buffer: memoryview, offset: int, size: int) -> None:
        """Have up to `size` bytes from `offset` of the file read into `buffer`, behind ROOM."""
        view = buffer[ROOM : ROOM + size]
        self._buffer, self._order = buffer, _Order(view, offset, Future())
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, name="read-ahead", daemon=True).start()
        self._orders.put(self._order)

    def take(self, tail: bytes) -> tuple[memoryview, int] | None:
        """Return `tail` and what was read behind it, and how much that is.

        None if nothing was, or `tail` is too long to stand before it. Raises what reading raised.
        """
        buffer, order = self._buffer, self._order
        self._buffer = self._order = None
        if buffer is None or order is None:
            return None
        count = order.done.result()
        if len(tail) > ROOM:
            return None
        start = ROOM - len(tail)
        buffer[start:ROOM] = tail
        return buffer[start:], count

    def close(self) -> None:
        """Read no more. Does not wait for what is being read."""
        self._buffer = self._order = None
        self._orders.put(None)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                order.done.set_result(self._read(order.view, order.offset))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                order.done.set_exception(error)
            del order  # and the memory with it
