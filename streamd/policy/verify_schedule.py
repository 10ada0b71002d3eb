"""Which level of verification is due, if any."""

from collections.abc import Mapping
from typing import Final

LEVELS: Final = ("list", "structure", "sample", "full")  # each contains those before it
_SECOND_US: Final = 1_000_000


def due_level(
    now_us: int,
    last_us: Mapping[str, int],
    interval_seconds: Mapping[str, float],
    *,
    deepest: str = "full",
    checkpoint_us: int = 0,
) -> str | None:
    """Return the deepest level that is due, which does for the others; None if none is.

    `last_us` says when each level was last looked at, 0 for never; an interval of 0 means never.
    A checkpoint (at `checkpoint_us`) that no look at the structure has seen makes that due.
    `deepest` bounds what this host can do: without private keys, that is the listing.
    """
    for level in reversed(LEVELS[: LEVELS.index(deepest) + 1]):
        interval, last = interval_seconds.get(level, 0), last_us.get(level, 0)
        if interval <= 0:
            continue
        if now_us - last >= interval * _SECOND_US:
            return level
        if level == "structure" and checkpoint_us > last:
            return level
    return None
