"""How soon after a rescan the next one may begin, when events are lost again and again.

Pure; times are seconds of a clock that never goes back. A storm of changes overflows the kernel's
queue again while the rescan for the last overflow is running. Rescanning without a pause would then
go on for ever and slow down the very reader that has to catch up. Nothing is lost by waiting: the
gap stays open, and the watermark stands still until a scan has been everywhere.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

PAUSE_MIN_SECONDS: Final = 2.0
PAUSE_MAX_SECONDS: Final = 300.0
_GROWTH: Final = 2.0
_CALM_FACTOR: Final = 4  # quiet for so many pauses, and the next rescan need not wait


class Pace(msgspec.Struct, frozen=True):
    """When the next rescan may begin. Begin with `Pace()`."""

    pause_seconds: float = 0.0
    ended_at: float = 0.0  # when the last one ended

    def due_at(self) -> float:
        """Return the earliest time of the next one."""
        return self.ended_at + self.pause_seconds

    def after(self, *, began: float, ended: float) -> "Pace":
        """Return the pace after one more rescan for lost events, which ran in this time.

        The pause is at least as long as the rescan took, so they take half of the time at most.
        """
        is_calm = self.pause_seconds == 0 or began > self.ended_at + (
            self.pause_seconds * _CALM_FACTOR
        )
        grown = PAUSE_MIN_SECONDS if is_calm else self.pause_seconds * _GROWTH
        pause = min(max(grown, ended - began), PAUSE_MAX_SECONDS)
        return replace(self, pause_seconds=pause, ended_at=ended)
