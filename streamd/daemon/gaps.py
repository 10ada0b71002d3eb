"""Spans of time in which something may have been missed, until a scan has been everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamd.model.record import Gap


@dataclass(frozen=True, slots=True)
class OpenGap:
    """Since `start_us` something may have been missed below `scope`; a scan will close it."""

    start_us: int
    reason: str
    scope: bytes


class OpenGaps:
    """The open gaps of one source."""

    def __init__(self) -> None:
        self._open: list[OpenGap] = []

    def begin(self, start_us: int, reason: str, scope: bytes) -> None:
        """Something may have been missed since `start_us`."""
        self._open.append(OpenGap(start_us, reason, scope))

    def now(self) -> list[OpenGap]:
        """Return what is open; a scan that begins now will close it."""
        return list(self._open)

    def close(self, open_before: Sequence[OpenGap], now_us: int) -> list[Gap]:
        """A scan has been everywhere: the gaps that were open when it began end now."""
        self._open = [gap for gap in self._open if gap not in open_before]
        return [Gap(gap.start_us, now_us, gap.reason, gap.scope) for gap in open_before]
