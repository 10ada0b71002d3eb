"""Retention keeps what the policy says, for every history and every rule.

The oracle reads the policy a second time, naively: it looks at every candidate for itself and groups
by what a calendar on the wall would show.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamd.policy.retention import (
    FOREVER_US,
    Candidate,
    Rule,
    decide,
    kept_points,
    loss_ratio,
    version_lives,
)

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = int(datetime(2026, 11, 22, 17, 30, tzinfo=UTC).timestamp()) * SECOND

# Berlin repeats and skips an hour inside the day; Sao Paulo skipped midnight itself until 2019
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu")

# dense and sparse histories: an offset may be seconds or years
ages = st.one_of(
    st.integers(0, 3 * HOUR // SECOND).map(lambda s: s * SECOND),
    st.integers(0, 90 * 24).map(lambda h: h * HOUR),
    st.integers(0, 3500).map(lambda d: d * DAY),
    st.integers(-HOUR, 9 * 365 * DAY),
)
candidates = st.lists(
    st.builds(
        Candidate,
        at_us=ages.map(lambda age: NOW - age),
        hold_until_us=st.sampled_from([0, 0, 0, NOW - 1, NOW, NOW + 1, FOREVER_US]),
    ),
    max_size=60,
    unique_by=lambda candidate: candidate.at_us,
).map(sorted)
counts = st.integers(0, 12)
rules = st.builds(
    Rule,
    continuous_us=st.sampled_from([0, 1, HOUR, 2 * DAY, 400 * DAY]),
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
)
zones = st.sampled_from(ZONES)


def wall_clock_slot(at_us: int, class_name: str, zone: str) -> tuple:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).astimezone(
        ZoneInfo(zone)
    )
    return {
        "hourly": (local.year, local.month, local.day, local.hour, local.utcoffset()),
        "daily": (local.year, local.month, local.day),
        "weekly": tuple(local.isocalendar())[:2],
        "monthly": (local.year, local.month),
        "yearly": (local.year,),
    }[class_name]


def independent_reading(history: list[Candidate], rule: Rule, zone: str, now_us: int) -> set[int]:
    kept = set()
    window_start = now_us - rule.continuous_us
    for one in history:
        later = [other for other in history if other.at_us > one.at_us]
        if not later or one.at_us > window_start or one.hold_until_us > now_us:
            kept.add(one.at_us)
        if one.at_us <= window_start and all(other.at_us > window_start for other in later):
            kept.add(one.at_us)
        for class_name in ("hourly", "daily", "weekly", "monthly", "yearly"):
            own = wall_clock_slot(one.at_us, class_name, zone)
            later_slots = {wall_clock_slot(other.at_us, class_name, zone) for other in later}
            if own not in later_slots and len(later_slots) < getattr(rule, class_name):
                kept.add(one.at_us)
    return kept


def kept_instants(history, rule, zone="UTC", now_us=NOW) -> set[int]:
    return {
        decision.candidate.at_us
        for decision in decide(history, rule, now_us=now_us, timezone=zone)
        if decision.keep
    }


@given(candidates, rules, zones)
def test_it_keeps_exactly_what_an_independent_reading_keeps(history, rule, zone) -> None:
    assert kept_instants(history, rule, zone) == independent_reading(history, rule, zone, NOW)


@given(candidates, rules, zones)
def test_every_candidate_gets_one_decision_in_order(history, rule, zone) -> None:
    decisions = decide(history, rule, now_us=NOW, timezone=zone)
    assert [decision.candidate for decision in decisions] == history


@given(candidates, rules, zones)
def test_newest_is_kept(history, rule, zone) -> None:
    decisions = decide(history, rule, now_us=NOW, timezone=zone)
    assert not decisions or "newest" in decisions[-1].reasons


@given(candidates, rules, zones)
def test_hold_is_kept(history, rule, zone) -> None:
    kept = kept_instants(history, rule, zone)
    assert all(held.at_us in kept for held in history if held.hold_until_us > NOW)


@given(
    candidates,
    rules,
    zones,
    st.sampled_from(["continuous_us", "hourly", "daily", "weekly", "monthly", "yearly"]),
    st.integers(1, 20),
)
def test_rule_is_monotone(history, rule, zone, field, more) -> None:
    more = more * HOUR if field == "continuous_us" else more
    wider = replace(rule, **{field: getattr(rule, field) + more})
    assert kept_instants(history, rule, zone) <= kept_instants(history, wider, zone)
    assert loss_ratio(history, rule, wider, now_us=NOW, timezone=zone) == 0


@given(candidates, rules, zones)
def test_deciding_again_over_what_was_kept_is_idempotent(history, rule, zone) -> None:
    first = [d for d in decide(history, rule, now_us=NOW, timezone=zone) if d.keep]
    second = decide([d.candidate for d in first], rule, now_us=NOW, timezone=zone)
    assert list(second) == first


@given(candidates, rules, zones, st.lists(st.integers(1, 40), max_size=12))
def test_thinning_often_equals_thinning_once(history, rule, zone, pauses_days) -> None:
    remaining, now = history, NOW
    for pause in pauses_days:
        kept = kept_instants(remaining, rule, zone, now)
        remaining = [candidate for candidate in remaining if candidate.at_us in kept]
        now += pause * DAY
    assert kept_instants(remaining, rule, zone, now) == kept_instants(history, rule, zone, now)


@given(candidates, rules, rules)
def test_loss_ratio_is_a_share_and_zero_only_without_loss(history, old, new) -> None:
    ratio = loss_ratio(history, old, new, now_us=NOW)
    lost = kept_instants(history, old) - kept_instants(history, new)
    assert 0 <= ratio <= 1
    assert (ratio == 0) == (not lost)


@given(candidates, rules)
def test_kept_points_are_those_that_outlive_the_window(history, rule) -> None:
    decisions = decide(history, rule, now_us=NOW)
    expected = [d.candidate.at_us for d in decisions if set(d.reasons) - {"continuous"}]
    assert [point.at_us for point in kept_points(decisions)] == expected


instants = st.integers(0, 30)


@given(st.sets(instants), instants, st.integers(1, 20) | st.none(), instants)
def test_a_version_lives_if_it_shows_at_a_kept_point_or_in_the_window(
    kept, born, age, window_start
) -> None:
    died = FOREVER_US if age is None else born + age
    shows_at = set(range(born, min(died, 100)))
    # an instant of the window is any from its start on, half open like the life of a version
    in_window = any(instant >= window_start for instant in shows_at)
    assert version_lives(born, died, sorted(kept), window_start) == (
        in_window or bool(shows_at & kept)
    )


@given(candidates, rules, st.randoms(use_true_random=False))
def test_states_at_kept_points_and_in_the_window_survive_thinning(history, rule, random) -> None:
    """The whole promise: drop the versions that do not live, and what is promised is unchanged."""
    versions = {}  # key -> [(born, died)]
    for candidate in history:
        key = random.choice("abc")
        lives = versions.setdefault(key, [])
        if lives:
            lives[-1] = (lives[-1][0], candidate.at_us)
        lives.append((candidate.at_us, FOREVER_US))
    window_start = rule.window_start_us(NOW)
    kept = sorted(kept_instants(history, rule))

    def state(at, *, thinned):
        return {
            (key, born)
            for key, lives in versions.items()
            for born, died in lives
            if born <= at < died
            and not (thinned and not version_lives(born, died, kept, window_start))
        }

    inside = [c.at_us for c in history if c.at_us >= window_start]
    for at in [*kept, *inside, window_start, NOW]:
        if at in kept or at >= window_start:
            assert state(at, thinned=True) == state(at, thinned=False)


@pytest.mark.parametrize("zone", ZONES)
def test_slots_begin_where_the_calendar_of_the_zone_says(zone: str) -> None:
    """Every half hour of two years: nothing is skipped, doubled or moved by a clock change."""
    start = int(datetime(2017, 12, 1, tzinfo=UTC).timestamp()) * SECOND
    history = [Candidate(start + step * HOUR // 2) for step in range(2 * 48 * 60)]
    rule = Rule(hourly=3000, daily=200, weekly=20, monthly=5, yearly=2)
    decisions = decide(history, rule, now_us=history[-1].at_us, timezone=zone)
    by_class: dict[str, list[str]] = {}
    for decision in decisions:
        for reason in decision.reasons:
            by_class.setdefault(reason.partition(" ")[0], []).append(reason)
    for class_name in ("hourly", "daily", "weekly", "monthly", "yearly"):
        slots = {wall_clock_slot(c.at_us, class_name, zone) for c in history}
        assert len(by_class[class_name]) == min(len(slots), getattr(rule, class_name))
        assert len(set(by_class[class_name])) == len(by_class[class_name])
