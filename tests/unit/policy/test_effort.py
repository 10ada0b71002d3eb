"""How strongly to compress, and how large packs are, by what is short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamd.policy.effort import (
    PACK_BYTES,
    PACK_BYTES_MAX,
    PACK_BYTES_MIN,
    Effort,
    Signals,
    choose,
    pack_bytes,
)

MIB = 1 << 20
# two processors, text: 4 s a GB at zstd 1, a third is left of it
TEXT = Signals(processors=2, fair=0.5, granted=0.5, seconds_per_byte=4e-9, ratio=0.33)
FAR = 10**9


def line(rate: float, pile: float = FAR, signals: Signals = TEXT) -> Signals:
    return replace(signals, uplink_bytes_per_second=rate, pile_bytes=int(pile))


@pytest.mark.parametrize(
    ("megabytes_per_second", "effort"),
    [
        (6.25, Effort.STRONGEST),  # 50 Mbit/s; 16.5 MB/s come out at 40 s/GB
        (13.1, Effort.STRONGEST),
        (13.3, Effort.STRONGER),
        (28.0, Effort.STRONGER),
        (28.5, Effort.STRONG),
        (77.0, Effort.STRONG),
        (78.0, Effort.BALANCED),
        (1000.0, Effort.BALANCED),
    ],
)
def test_a_line_gets_the_strongest_that_keeps_it_busy(megabytes_per_second, effort) -> None:
    assert choose(line(megabytes_per_second * 1e6)) is effort


def test_a_line_that_keeps_up_changes_nothing() -> None:
    assert choose(line(6e6, pile=11e6)) is Effort.BALANCED
    assert choose(line(6e6, pile=12e6)) is Effort.STRONGEST


def test_without_a_line_a_pile_means_nothing() -> None:
    assert choose(line(0)) is Effort.BALANCED


def test_a_slow_line_is_not_served_by_processors_that_others_have() -> None:
    assert choose(line(13e6, signals=replace(TEXT, granted=0.1))) is Effort.STRONG


def test_the_cheapest_is_for_processors_that_others_have_while_work_waits() -> None:
    starved = replace(TEXT, granted=0.2, waiting=1.0)
    assert choose(starved) is Effort.FAST
    assert choose(replace(starved, waiting=0.4)) is Effort.BALANCED
    assert choose(replace(starved, granted=0.31)) is Effort.BALANCED


def test_our_own_threads_are_not_others() -> None:
    """A first capture on an idle machine stays with what is stored for years."""
    assert choose(replace(TEXT, waiting=1.0)) is Effort.BALANCED


def test_live_changes_that_come_too_fast_get_the_cheapest() -> None:
    assert choose(replace(TEXT, waiting_live=1.0)) is Effort.FAST
    assert choose(replace(TEXT, waiting_live=0.9)) is Effort.BALANCED


def test_a_slow_disk_is_not_served_by_storing_more() -> None:
    assert choose(replace(TEXT, granted=0.1, waiting=1.0, behind=1.0)) is Effort.BALANCED


@given(
    rate=st.floats(1e3, 1e9), pile=st.integers(0, 10**12), granted=st.floats(0.01, 1),
    waiting=st.floats(0, 1), cost=st.floats(0, 1e-6), ratio=st.floats(0.001, 1.01),
)  # fmt: skip
def test_more_line_is_never_answered_by_more_effort(
    rate, pile, granted, waiting, cost, ratio
) -> None:
    signals = Signals(
        granted=granted, waiting=waiting, seconds_per_byte=cost, ratio=ratio, pile_bytes=pile
    )
    slow = choose(replace(signals, uplink_bytes_per_second=rate))
    fast = choose(replace(signals, uplink_bytes_per_second=rate * 2))
    assert fast <= slow


def size(rate: float, *, at_once: int = 4, trip: float = 0.02, limit: int = 64 * MIB) -> int:
    return pack_bytes(
        uplink_bytes_per_second=rate, at_once=at_once, round_trip_seconds=trip, limit_bytes=limit
    )


def test_a_pack_has_its_usual_size_where_nothing_is_slow() -> None:
    assert size(0) == size(100e6) == PACK_BYTES


def test_a_pack_does_not_hold_a_slow_line_for_long() -> None:
    assert size(6.25e6) == 5 * MIB
    assert size(6.25e6, at_once=1) == PACK_BYTES
    assert size(1e5) == PACK_BYTES_MIN


def test_a_pack_is_worth_several_round_trips() -> None:
    assert size(100e6, trip=0.1) == 19 * MIB
    assert size(100e6, trip=0.3) == PACK_BYTES_MAX


@given(
    rate=st.floats(0, 1e10), at_once=st.integers(0, 64), trip=st.floats(0, 60),
    limit=st.integers(0, 1 << 40),
)  # fmt: skip
def test_a_pack_stays_within_its_bounds(rate, at_once, trip, limit) -> None:
    found = size(rate, at_once=at_once, trip=trip, limit=limit)
    assert PACK_BYTES_MIN <= found <= max(PACK_BYTES_MIN, min(PACK_BYTES_MAX, limit))
