"""Retention: which recovery points of one source are kept, and why.

Pure: a function of the candidates, the rule, the time zone and `now`. `maintenance` deletes by it
and `streamd retention plan` only prints it; both show the same reasons.

A candidate is an instant at which the source changed, that is, the last instant a state is recorded
for. Times are microseconds since the Unix epoch, UTC; `now_us` is the storage's time where the
storage has one, so that a host with a wrong clock cannot expire anything early.

A candidate is kept for any of these reasons, and all of them are given:

    newest             it is the newest of all
    continuous         it lies inside the continuous window: at_us > now_us - continuous_us
    window-base        it is the newest one at or before the start of the window; every instant of
                       the window before its first change shows this state
    hourly SLOT ...    it is the newest one of one of the N most recent slots of the class that
                       have a candidate at all: idle hours, days, ... do not use up the count
    hold until DAY     somebody asked to keep it (`streamd capture --name --hold`)
    frozen             nothing else keeps it, but nothing of the source may go: it is suspect
                       (`policy.suspicion`) until somebody says otherwise

Slots are calendar slots in the policy's time zone; weeks are ISO weeks. A slot is identified by its
first instant, so the hour that a clock change repeats is two slots.

Because a slot's newest candidate stays its newest while others expire, thinning every day keeps
exactly what thinning once at the end would keep (see the property tests).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

FOREVER_US: Final = 2**63 - 1  # the death of a version that is still current; a hold without an end
LOSS_RATIO_MAX: Final = 0.25  # a policy change that drops more needs an explicit --accept-loss

NEWEST: Final = "newest"
CONTINUOUS: Final = "continuous"
WINDOW_BASE: Final = "window-base"
HOLD: Final = "hold"
SLOT_CLASSES: Final = ("hourly", "daily", "weekly", "monthly", "yearly")
FROZEN: Final = "frozen"
CLASSES: Final = (NEWEST, CONTINUOUS, WINDOW_BASE, *SLOT_CLASSES, HOLD, FROZEN)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_PRINTABLE_US: Final = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Candidate(NamedTuple):
    """One instant that could be kept."""

    at_us: int
    label: str = ""
    hold_until_us: int = 0
    has_checkpoint: bool = False


FUTURE_SLACK_US: Final = 300 * 1_000_000  # by which clocks may differ


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A retention policy: the length of the continuous window, and how many slots of each class."""

    continuous_us: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def window_start_us(self, now_us: int) -> int:
        """Return the start of the continuous window: from there on, any instant can be restored."""
        return now_us - self.continuous_us

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return (class, number of slots) for each slot class."""
        numbers = (self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return tuple(zip(SLOT_CLASSES, numbers, strict=True))


class Decision(NamedTuple):
    """What becomes of one candidate; without a reason it expires."""

    candidate: Candidate
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether there is any reason to keep it."""
        return bool(self.reasons)


class KeptPoint(NamedTuple):
    """A kept point as people see it: it stays when the continuous window has moved on."""

    at_us: int
    label: str
    classes: tuple[str, ...]
    reasons: tuple[str, ...]


def decide(
    candidates: Sequence[Candidate], rule: Rule, *, now_us: int, timezone: str = "UTC"
) -> tuple[Decision, ...]:
    """Return one decision per candidate, in the order given, which must be ascending in time.

    Of several candidates at one instant the last one stands for the instant in slots. Costs a
    few steps per kept slot and one small tuple per candidate: a million take about a second.
    What was recorded by a clock that was ahead is kept and uses up no slot: it must not push out
    what is older.
    """
    times = [candidate.at_us for candidate in candidates]
    assert all(map(int.__le__, times, times[1:])), "candidates are not in ascending order"
    window_at = bisect_right(times, rule.window_start_us(now_us))
    extra: dict[int, list[str]] = {}
    if times:
        extra.setdefault(len(times) - 1, []).append(NEWEST)
    if window_at:
        extra.setdefault(window_at - 1, []).append(WINDOW_BASE)
    present = bisect_right(times, now_us + FUTURE_SLACK_US)
    for name, count in rule.counts():
        for index, slot in _newest_of_slots(times[:present], name, count, ZoneInfo(timezone)):
            extra.setdefault(index, []).append(f"{name} {slot}")
    for index, candidate in enumerate(candidates):
        if candidate.hold_until_us > now_us:
            extra.setdefault(index, []).append(f"{HOLD} {_until_text(candidate.hold_until_us)}")

    decisions = [Decision(candidate, ()) for candidate in candidates[:window_at]]
    inside = (CONTINUOUS,)
    decisions += [Decision(candidate, inside) for candidate in candidates[window_at:]]
    for index, reasons in extra.items():
        candidate, base = decisions[index]
        decisions[index] = Decision(candidate, (*base, *reasons))
    return tuple(decisions)


def frozen(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Return the decisions about a source of which nothing may go."""
    return tuple(one if one.keep else one._replace(reasons=(FROZEN,)) for one in decisions)


def classes_of(decision: Decision) -> tuple[str, ...]:
    """Return the classes (of `CLASSES`) a decision's reasons belong to, without the slots."""
    return tuple(reason.partition(" ")[0] for reason in decision.reasons)


def kept_points(decisions: Iterable[Decision]) -> tuple[KeptPoint, ...]:
    """Return the points kept for another reason than being inside the continuous window."""
    points = []
    for decision in decisions:
        classes = classes_of(decision)
        if any(name != CONTINUOUS for name in classes):
            at_us, label, _, _ = decision.candidate
            points.append(KeptPoint(at_us, label, classes, decision.reasons))
    return tuple(points)


def loss_ratio(
    candidates: Sequence[Candidate], old: Rule, new: Rule, *, now_us: int, timezone: str = "UTC"
) -> float:
    """Return the share (0..1) of the points kept by `old` that `new` would drop.

    It is the larger of two shares: that of all points, and that of the points older than the old
    window. A window of a million changes so cannot hide the loss of every yearly point.
    """
    before = decide(candidates, old, now_us=now_us, timezone=timezone)
    after = decide(candidates, new, now_us=now_us, timezone=timezone)
    window_start_us = old.window_start_us(now_us)
    kept = kept_old = lost = lost_old = 0
    for was, becomes in zip(before, after, strict=True):
        if was.keep:
            is_old = was.candidate.at_us <= window_start_us
            kept += 1
            kept_old += is_old
            lost += not becomes.keep
            lost_old += is_old and not becomes.keep
    return max(lost / max(kept, 1), lost_old / max(kept_old, 1))


def version_lives(born_us: int, died_us: int, kept_us: Sequence[int], window_start_us: int) -> bool:
    """Return whether a version that was current in [born_us, died_us) is still needed.

    It is needed if it was current at an instant of the continuous window or at a kept point.
    `kept_us` is ascending; `died_us` is `FOREVER_US` for a version that is current now.
    """
    if died_us > window_start_us:
        return True
    at = bisect_left(kept_us, born_us)
    return at < len(kept_us) and kept_us[at] < died_us


# -- slots -------------------------------------------------------------------------------------


def _newest_of_slots(
    times: Sequence[int], name: str, count: int, zone: ZoneInfo
) -> list[tuple[int, str]]:
    """Return (index, slot name) of the newest instant of each of the `count` latest slots in use.

    Goes from slot to slot by bisection, so the cost does not depend on how many changes a slot has.
    """
    found: list[tuple[int, str]] = []
    start_of, text_of = _SLOTS[name]
    end = len(times)
    while end and len(found) < count:
        local = _local(times[end - 1], zone)
        found.append((end - 1, text_of(local)))
        end = bisect_left(times, (start_of(local) - _EPOCH) // _MICROSECOND, 0, end - 1)
    return found


def _local(at_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone)


def _hour_start(local: datetime) -> datetime:
    return local.replace(minute=0, second=0, microsecond=0)


def _day_start(local: datetime) -> datetime:
    return _midnight(local.date(), local)


def _week_start(local: datetime) -> datetime:
    return _midnight(local.date() - timedelta(days=local.weekday()), local)


def _month_start(local: datetime) -> datetime:
    return _midnight(local.date().replace(day=1), local)


def _year_start(local: datetime) -> datetime:
    return _midnight(local.date().replace(month=1, day=1), local)


def _midnight(day: date, local: datetime) -> datetime:
    # fold=0: of a repeated midnight the first; of a skipped one the instant of the jump
    return datetime(day.year, day.month, day.day, tzinfo=local.tzinfo)


def _week_text(local: datetime) -> str:
    year, week, _ = local.isocalendar()
    return f"{year}-W{week:02}"


def _hour_text(local: datetime) -> str:
    return f"{local:%Y-%m-%dT%H%z}".replace("+0000", "Z")


def _until_text(until_us: int) -> str:
    if until_us > _LAST_PRINTABLE_US:
        return "for ever"
    return f"until {_local(until_us, ZoneInfo('UTC')):%Y-%m-%d}"


_SLOTS: Final[dict[str, tuple[Callable[[datetime], datetime], Callable[[datetime], str]]]] = {
    "hourly": (_hour_start, _hour_text),
    "daily": (_day_start, lambda local: f"{local:%Y-%m-%d}"),
    "weekly": (_week_start, _week_text),
    "monthly": (_month_start, lambda local: f"{local:%Y-%m}"),
    "yearly": (_year_start, lambda local: f"{local:%Y}"),
}
