"""Time and randomness, as values that are handed in.

Everything that decides takes a `Clock` and an `Entropy`, so that a test can move 400 days in a
second and repeat a run exactly. The real ones live here too; nothing else reads a clock.
"""

import os
import threading
import time
from typing import Final, Protocol

_own: Final = threading.local()  # one of each thread

MICROSECONDS = 1_000_000


class Clock(Protocol):
    """The time of day and a time that never jumps."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC. May jump; see `HybridClock`."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for timeouts and durations."""


class Entropy(Protocol):
    """A source of random bytes."""

    def token(self, size: int) -> bytes:
        """Return `size` unpredictable bytes."""


class SystemClock:
    """The operating system's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000  # noqa: TID251 - the one place that reads the clock

    def monotonic(self) -> float:
        return time.monotonic()


class _Schedstat:
    """The kernel's account of one thread, closed with the thread's other local values."""

    def __init__(self) -> None:
        self._close = os.close
        self.fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self._close(self.fd)


def work_seconds() -> tuple[float, float]:
    """Return how long this thread has run, and how long it was ready and waited for a processor.

    Waiting for the interpreter's lock is not in it. A kernel that does not count says 0.
    """
    file: _Schedstat | None = getattr(_own, "schedstat", None)
    try:
        if file is None:  # kept open: each system call gives the interpreter's lock away
            file = _own.schedstat = _Schedstat()
        waited_ns = int(os.pread(file.fd, 100, 0).split()[1])
    except (OSError, IndexError):
        waited_ns = 0
    return time.thread_time(), waited_ns / 1e9


class SystemEntropy:
    """The operating system's random generator."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)  # noqa: TID251 - the one place that asks for randomness


class HybridClock:
    """A wall clock that never goes back: max(wall, last + 1 µs).

    Journal times are taken from it, so that records are strictly ordered although the wall clock
    steps backwards (vault-format: hybrid clock). `floor_us` is the last time already written.
    """

    def __init__(self, clock: Clock, *, floor_us: int = 0) -> None:
        self._clock = clock
        self._last_us = floor_us

    def next_us(self) -> int:
        """Return an instant later than every one returned before."""
        self._last_us = max(self._clock.now_us(), self._last_us + 1)
        return self._last_us

    def raise_floor(self, floor_us: int) -> None:
        """Never again return an instant at or before `floor_us`."""
        self._last_us = max(self._last_us, floor_us)
