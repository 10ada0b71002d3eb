"""Spans of time in which something may have been missed, until a scan has been everywhere."""

from collections.abc import Sequence

import msgspec

from streamd.model.record import Gap


class OpenGap(msgspec.Struct, frozen=True):
    """Since `start_us` something may have been missed below `scope`; a scan will close it."""

    start_us: int
    reason: str
    scope: bytes


class OpenGaps:
    """The open gaps of one source.

    While events are lost again and again there is one gap for each scan that is owed, not one for
    each loss: a gap that no scan has begun to close covers what is lost later in the same place.
    """

    def __init__(self) -> None:
        self._open: list[OpenGap] = []
        self._being_closed: set[OpenGap] = set()

    def begin(self, start_us: int, reason: str, scope: bytes) -> None:
        """Something may have been missed since `start_us`."""
        for gap in self._open:
            covers = (gap.reason, gap.scope) == (reason, scope) and gap.start_us <= start_us
            if covers and gap not in self._being_closed:
                return
        self._open.append(OpenGap(start_us, reason, scope))

    def now(self, *, besides: str = "") -> list[OpenGap]:
        """Return what is open but for one reason; a scan that begins now will close it."""
        found = [gap for gap in self._open if gap.reason != besides]
        self._being_closed.update(found)
        return found

    def of(self, reason: str) -> list[OpenGap]:
        """Return what is open for one reason."""
        return [gap for gap in self._open if gap.reason == reason]

    def is_open(self, *, besides: str = "") -> bool:
        """Say whether anything is open but for one reason."""
        return any(gap.reason != besides for gap in self._open)

    def oldest_us(self) -> int | None:
        """Return since when something may have been missed; None: nothing was."""
        return min((gap.start_us for gap in self._open), default=None)

    def close(self, open_before: Sequence[OpenGap], now_us: int) -> list[Gap]:
        """A scan has been everywhere: the gaps that were open when it began end now."""
        self._open = [gap for gap in self._open if gap not in open_before]
        self._being_closed.difference_update(open_before)
        return [Gap(gap.start_us, now_us, gap.reason, gap.scope) for gap in open_before]
