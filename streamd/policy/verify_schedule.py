"""Which level of verification is due, if any, and when one that met a fault is tried again."""

from collections.abc import Mapping
from typing import Final

import msgspec

from streamd.policy.backoff import Backoff

LEVELS: Final = ("list", "structure", "sample", "full")  # each contains those before it
RETRIES_MAX: Final = 5  # in a turn: a look may cost as much as reading the whole vault
RETRY: Final = Backoff(base_seconds=600, cap_seconds=6 * 3600)
_SECOND_US: Final = 1_000_000


class Failure(msgspec.Struct, frozen=True):
    """The deepest level that was not looked at to its end, although it was due."""

    level: str
    tries: int  # that failed in this turn
    retry_us: int  # when it is tried again; 0: not before its next regular turn


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


def after_failure(before: Failure | None, level: str, now_us: int, *, fraction: float) -> Failure:
    """Return what follows from a look at `level` that met a fault; `fraction` is random in [0, 1).

    A deeper level that waits to be tried again contains this one: they share their tries. What
    has used them up begins anew with its next regular turn.
    """
    tries = 1
    if before is not None and before.retry_us:
        level = max(level, before.level, key=LEVELS.index)
        tries = before.tries + 1
    if tries > RETRIES_MAX:
        return Failure(level, tries, 0)
    wait_us = int(RETRY.bound_seconds(tries - 1) * (1 + fraction) / 2 * _SECOND_US)
    return Failure(level, tries, now_us + wait_us)


def after_look(before: Failure | None, level: str) -> Failure | None:
    """Return what is still to be tried again after a look at `level` that came to its end."""
    if before is None or LEVELS.index(level) >= LEVELS.index(before.level):
        return None
    return before


def with_retry(
    now_us: int, due: str | None, failure: Failure | None, interval_seconds: Mapping[str, float]
) -> str | None:
    """Return what to look at: what is due, or deeper, what is to be tried again by now."""
    if failure is None or not 0 < failure.retry_us <= now_us:
        return due
    if interval_seconds.get(failure.level, 0) <= 0:  # nobody wants it any more
        return due
    return failure.level if due is None else max(due, failure.level, key=LEVELS.index)
