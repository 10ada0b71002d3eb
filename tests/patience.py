"""A time limit by progress: a test that gets on may take as long as it likes.

    with Patience(60) as patience:
        for …:
            patience.progress()

For tests whose size comes from the environment, on machines that are busy: how long the whole takes
says nothing, but a minute in which nothing happened does. Mark such a test with `timeout(0)`, since both
use the alarm clock of the process. In the main thread only.
"""

import signal
from types import FrameType, TracebackType
from typing import Self


class Patience:
    """Raises AssertionError in the main thread after `seconds` without progress."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.done = 0

    def progress(self) -> None:
        """Something was done; wait anew."""
        self.done += 1
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _lost(self, _number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"no progress in {self._seconds:g} s, after {self.done} steps")

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGALRM, self._lost)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._former)
