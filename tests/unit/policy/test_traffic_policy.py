"""Bandwidth windows are meant in wall time, and an operator's order counts instead of them."""

import datetime as dt
import zoneinfo

import pytest

from streamd.policy.traffic import (
    NO_ORDER,
    PAUSE,
    Allowance,
    Order,
    Window,
    allowance,
    next_look_seconds,
)

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
OFFICE = Window(frozenset(range(5)), 8 * 60, 18 * 60, 5 << 20)
NIGHT = Window(frozenset({4}), 22 * 60, 6 * 60, 1 << 20)  # begins on Fridays


def rate_at(local: dt.datetime, *windows: Window, order: Order = NO_ORDER) -> Allowance:
    return allowance(windows, order, now_us=int(local.timestamp() * 1e6), local=local)


@pytest.mark.parametrize(
    ("at", "open_"),
    [
        ("2026-11-23 07:59", False),  # a Monday
        ("2026-11-23 08:00", True),
        ("2026-11-23 17:59", True),
        ("2026-11-23 18:00", False),
        ("2026-11-28 12:00", False),  # a Saturday
    ],
)
def test_a_window_is_open_from_its_first_minute_to_before_its_last(at: str, open_: bool) -> None:
    local = dt.datetime.fromisoformat(at).replace(tzinfo=BERLIN)
    expected = Allowance(5 << 20, "window") if open_ else Allowance(None, "none")
    assert rate_at(local, OFFICE) == expected


@pytest.mark.parametrize(
    ("at", "open_"),
    [
        ("2026-11-27 21:59", False),  # a Friday
        ("2026-11-27 22:00", True),
        ("2026-11-28 05:59", True),
        ("2026-11-28 06:00", False),
        ("2026-11-28 22:00", False),
        ("2026-11-27 05:00", False),  # the night before began on a Thursday
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(at: str, open_: bool) -> None:
    local = dt.datetime.fromisoformat(at).replace(tzinfo=BERLIN)
    assert (rate_at(local, NIGHT).reason == "window") is open_


def test_a_window_that_ends_when_it_begins_is_a_whole_day() -> None:
    day = Window(frozenset({0}), 9 * 60, 9 * 60, 7)
    assert day.contains(0, 9 * 60)
    assert day.contains(1, 9 * 60 - 1)
    assert not day.contains(0, 9 * 60 - 1)
    assert not day.contains(1, 9 * 60)


def test_a_window_over_the_week_end_begins_on_sunday_and_ends_on_monday() -> None:
    late = Window(frozenset({6}), 23 * 60, 60, 7)
    assert late.contains(6, 23 * 60 + 30)
    assert late.contains(0, 30)
    assert not late.contains(1, 30)


def test_where_windows_overlap_the_lowest_counts() -> None:
    local = dt.datetime(2026, 11, 23, 12, tzinfo=BERLIN)
    assert rate_at(local, OFFICE, Window(frozenset({0}), 0, 1440, 3)).bytes_per_second == 3


def _minutes_open(window: Window, first: dt.datetime, hours: int) -> int:
    """Walk over real minutes, as the daemon does."""
    minutes = [first.astimezone(dt.UTC) + dt.timedelta(minutes=n) for n in range(hours * 60)]
    return sum(rate_at(at.astimezone(BERLIN), window).reason == "window" for at in minutes)


@pytest.mark.parametrize(
    ("day", "minutes"),
    [
        (dt.date(2026, 3, 28), 7 * 60),  # clocks go forward in the night to the 29th
        (dt.date(2026, 10, 24), 9 * 60),  # and back in the night to the 25th
        (dt.date(2026, 11, 24), 8 * 60),
    ],
)
def test_a_window_follows_the_clock_on_the_wall_when_it_is_changed(
    day: dt.date, minutes: int
) -> None:
    night = Window(frozenset(range(7)), 22 * 60, 6 * 60, 1)
    noon = dt.datetime.combine(day, dt.time(12), BERLIN)
    assert _minutes_open(night, noon, 23) == minutes


def test_an_order_counts_instead_of_the_windows_until_it_ends() -> None:
    local = dt.datetime(2026, 11, 23, 12, tzinfo=BERLIN)
    now_us = int(local.timestamp() * 1e6)
    assert rate_at(local, OFFICE, order=Order(50 << 20)) == Allowance(50 << 20, "ordered")
    assert rate_at(local, OFFICE, order=Order(PAUSE, now_us + 1)) == Allowance(0, "paused")
    assert rate_at(local, OFFICE, order=Order(PAUSE, now_us + 1)).is_paused
    assert rate_at(local, OFFICE, order=Order(PAUSE, now_us)) == Allowance(5 << 20, "window")
    assert not rate_at(local, OFFICE).is_paused


def test_the_next_look_is_at_the_full_minute_or_at_the_end_of_the_order() -> None:
    local = dt.datetime(2026, 11, 23, 12, 0, 45, 500_000, tzinfo=BERLIN)
    now_us = int(local.timestamp() * 1e6)
    assert next_look_seconds(NO_ORDER, now_us=now_us, local=local) == 14.5
    assert next_look_seconds(Order(1), now_us=now_us, local=local) == 14.5
    soon = Order(1, now_us + 2_000_000)
    assert next_look_seconds(soon, now_us=now_us, local=local) == 2.0
