"""Numbers with units mean what people mean, and what is printed parses back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.config import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("64MiB", 64 << 20), ("5 GB", 5 * 10**9), ("1.5KiB", 1536), ("0B", 0), ("200GiB", 200 << 30)],
)
def test_a_size_is_a_number_and_a_unit(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["64", "MiB", "64 mib", "-1MiB", "64MiB/s", "", "1e3B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        units.parse_size(text)


def test_a_rate_is_a_size_per_second() -> None:
    assert units.parse_rate("5MiB/s") == 5 << 20
    for text in ("5MiB", "5MiB/h", "/s"):
        with pytest.raises(ValueError, match="is not a"):
            units.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("90m", 5400),
        ("2d", 172_800),
        ("48h", 172_800),
        ("1h30m", 5400),
        ("1w", 604_800),
    ],
)
def test_a_duration_is_one_or_more_numbers_with_units(text: str, seconds: int) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["15", "s", "1.5h", "-2h", "15 s", "15ms", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        units.parse_duration(text)


def test_percent_and_time_of_day() -> None:
    assert units.parse_percent("10%") == 0.1
    assert units.parse_time_of_day("22:05") == 1325
    assert units.parse_time_of_day("24:00") == 1440
    for text in ("101%", "10", "%"):
        with pytest.raises(ValueError, match="percentage"):
            units.parse_percent(text)
    for text in ("24:01", "25:00", "7:00", "12:60"):
        with pytest.raises(ValueError, match="time of day"):
            units.parse_time_of_day(text)


@given(st.integers(min_value=0, max_value=1 << 60))
def test_printed_numbers_parse_back(number: int) -> None:
    assert units.parse_duration(units.format_duration(number)) == number
    minute = number % 1441
    assert units.parse_time_of_day(units.format_time_of_day(minute)) == minute
    whole = number % (1 << 50)
    assert units.parse_size(units.format_size(whole)) == whole
    assert units.parse_rate(units.format_rate(whole)) == whole


def test_two_days_are_printed_as_forty_eight_hours() -> None:
    assert units.format_duration(172_800) == "48h"
    assert units.format_duration(90 * 86_400) == "90d"
    assert units.format_duration(15) == "15s"
    assert units.format_percent(0.1) == "10%"
