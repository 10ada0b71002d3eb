"""Memory for bulk reads, used again when nobody looks at it any more.

Fresh memory costs a page fault for every 4 KiB, which is a fifth of the cost of a small file.
"""

import threading
from typing import Final

_KEPT_MAX: Final = 4


class ArenaPool:
    """Hands out writable memory; it comes back by itself when the last view of it is gone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._buffers: list[bytearray] = []

    def take(self, size: int) -> memoryview:
        """Return at least `size` bytes of memory that nobody else has; not zeroed."""
        if not self._size // 4 < size <= self._size:
            return memoryview(bytearray(size))  # small ones are cheap, and must not hold large ones
        with self._lock:
            for buffer in self._buffers:
                if is_unused(buffer):
                    return memoryview(buffer)
            buffer = new_buffer(self._size)
            if len(self._buffers) < _KEPT_MAX:
                self._buffers.append(buffer)
            return memoryview(buffer)


def new_buffer(size: int) -> bytearray:
    """Return a buffer that `is_unused` can test without moving it."""
    buffer = bytearray(size + 1)
    buffer.pop()
    return buffer


def is_unused(buffer: bytearray) -> bool:
    """Say whether no memoryview of the buffer exists: only then may its size change."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
