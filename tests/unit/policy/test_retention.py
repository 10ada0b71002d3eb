"""Retention by example: what the reasons say, and the borders of windows and slots."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from streamd.policy.retention import (
    CLASSES,
    FOREVER_US,
    Candidate,
    Decision,
    KeptPoint,
    Rule,
    classes_of,
    decide,
    kept_points,
    loss_ratio,
    version_lives,
)

HOUR = 3600 * 1_000_000
DAY = 24 * HOUR


def us(text: str, zone: str = "UTC") -> int:
    return (
        round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000
    )


NOW = us("2026-11-22T12:00")


def reasons(
    times: list[str], rule: Rule, zone: str = "UTC", *, now_us: int = NOW
) -> dict[str, tuple[str, ...]]:
    decisions = decide([Candidate(us(t, zone)) for t in times], rule, now_us=now_us, timezone=zone)
    return {time: decision.reasons for time, decision in zip(times, decisions, strict=True)}


def test_reasons_name_the_class_and_the_slot() -> None:
    rule = Rule(continuous_us=HOUR, hourly=1, daily=2, weekly=2, monthly=1, yearly=2)
    assert reasons(
        ["2025-12-31T10:00", "2026-11-20T10:00", "2026-11-22T10:00", "2026-11-22T11:30"], rule
    ) == {
        "2025-12-31T10:00": ("weekly 2026-W01", "yearly 2025"),
        "2026-11-20T10:00": ("daily 2026-11-20",),
        "2026-11-22T10:00": ("window-base",),
        "2026-11-22T11:30": (
            "continuous",
            "newest",
            "hourly 2026-11-22T11Z",
            "daily 2026-11-22",
            "weekly 2026-W47",
            "monthly 2026-11",
            "yearly 2026",
        ),
    }


def test_idle_slots_do_not_use_up_the_count() -> None:
    kept = reasons(["2020-02-01", "2023-05-05", "2026-01-01"], Rule(daily=2))
    assert [time for time, why in kept.items() if why] == ["2023-05-05", "2026-01-01"]


def test_nothing_is_decided_about_nothing() -> None:
    assert decide([], Rule(daily=3), now_us=NOW) == ()
    assert loss_ratio([], Rule(daily=3), Rule(), now_us=NOW) == 0


def test_a_change_exactly_at_the_start_of_the_window_is_its_base() -> None:
    start = NOW - DAY
    decisions = decide(
        [Candidate(start - 1), Candidate(start), Candidate(start + 1)],
        Rule(continuous_us=DAY),
        now_us=NOW,
    )
    assert [d.reasons for d in decisions] == [(), ("window-base",), ("continuous", "newest")]


def test_a_change_from_the_future_is_inside_the_window() -> None:
    decisions = decide([Candidate(NOW + DAY), Candidate(NOW + 2 * DAY)], Rule(), now_us=NOW)
    assert decisions[0].reasons == ("continuous",)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (NOW, ()),
        (NOW + DAY, ("hold until 2026-11-23",)),
        (FOREVER_US, ("hold for ever",)),
    ],
)
def test_a_hold_keeps_until_it_ends(until: int, expected: tuple[str, ...]) -> None:
    decisions = decide([Candidate(0, "x", until), Candidate(1), Candidate(2)], Rule(), now_us=NOW)
    assert decisions[0].reasons == expected


def test_the_hour_that_a_clock_change_repeats_is_two_slots() -> None:
    first = us("2026-10-25T02:30", "Europe/Berlin")
    history = [Candidate(first), Candidate(first + HOUR)]
    decisions = decide(history, Rule(hourly=5), now_us=NOW, timezone="Europe/Berlin")
    assert [d.reasons[-1] for d in decisions] == [
        "hourly 2026-10-25T02+0200",
        "hourly 2026-10-25T02+0100",
    ]


def test_days_are_those_of_the_time_zone() -> None:
    times = ["2026-11-20T23:30", "2026-11-21T00:30"]  # one UTC day later in Auckland: the same day
    rule = Rule(daily=2)
    assert all(reasons(times, rule).values())
    history = [Candidate(us(time)) for time in times]
    decisions = decide(history, rule, now_us=NOW, timezone="Pacific/Auckland")
    assert [bool(d.reasons) for d in decisions] == [False, True]


def test_a_week_begins_on_monday_and_may_belong_to_another_year() -> None:
    later = 2_000_000_000_000_000
    kept = reasons(["2026-12-27", "2026-12-28", "2027-01-03"], Rule(weekly=9), now_us=later)
    assert kept["2026-12-27"][-1] == "weekly 2026-W52"
    assert kept["2027-01-03"][-1] == "weekly 2026-W53"
    assert not any(why.startswith("weekly") for why in kept["2026-12-28"])


def test_of_two_candidates_at_one_instant_the_last_stands_for_it() -> None:
    decisions = decide([Candidate(5), Candidate(5, "named")], Rule(daily=1), now_us=NOW)
    assert [d.keep for d in decisions] == [False, True]


def test_candidates_out_of_order_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        decide([Candidate(2), Candidate(1)], Rule(), now_us=NOW)


def test_classes_are_the_reasons_without_slots() -> None:
    decision = Decision(Candidate(0), ("continuous", "daily 2026-11-20", "hold for ever"))
    assert classes_of(decision) == ("continuous", "daily", "hold")
    assert set(classes_of(decision)) <= set(CLASSES)


def test_kept_points_leave_out_what_only_the_window_keeps() -> None:
    history = [Candidate(NOW - 3), Candidate(NOW - 2, "named", NOW + DAY), Candidate(NOW - 1)]
    points = kept_points(decide(history, Rule(continuous_us=DAY), now_us=NOW))
    assert points == (
        KeptPoint(
            NOW - 2,
            "named",
            ("continuous", "hold"),
            ("continuous", "hold until 2026-11-23"),
        ),
        KeptPoint(NOW - 1, "", ("continuous", "newest"), ("continuous", "newest")),
    )


def test_loss_ratio_counts_old_points_by_themselves() -> None:
    window = [Candidate(NOW - index) for index in range(998, -1, -1)]
    history = [Candidate(NOW - 800 * DAY), Candidate(NOW - 400 * DAY), *window]
    old, new = Rule(continuous_us=DAY, yearly=3), Rule(continuous_us=DAY, yearly=1)
    # the older of the two goes; the other stays as the base of the window
    assert loss_ratio(history, old, new, now_us=NOW) == 0.5


@pytest.mark.parametrize(
    ("born", "died", "lives"),
    [
        (0, 10, True),  # shows at the point 5
        (5, 6, True),  # born at the point
        (6, 10, False),  # between points
        (0, 5, False),  # replaced exactly at the point
        (60, 101, True),  # reaches into the window
        (60, 100, False),  # replaced exactly at the start of the window
        (60, FOREVER_US, True),
    ],
)
def test_a_version_lives_while_something_shows_it(born: int, died: int, lives: bool) -> None:
    assert version_lives(born, died, [5, 50], 100) is lives


def test_points_of_a_clock_that_was_ahead_push_nothing_out() -> None:
    past = [Candidate(us("2026-11-18")), Candidate(us("2026-11-19"))]
    ahead = [Candidate(us(f"2036-01-{day:02}")) for day in range(1, 20)]
    rule = Rule(daily=2, yearly=1)
    now_us = us("2026-11-20")
    decisions = decide([*past, *ahead], rule, now_us=now_us)
    assert all(decision.keep for decision in decisions)
    assert decisions[0].reasons == ("daily 2026-11-18",)
    assert not decide([*past, *ahead], rule, now_us=us("2036-02-01"))[0].keep
