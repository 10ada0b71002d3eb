"""Backoff grows, is capped, is spread, and respects what the service said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.backoff import Backoff, fraction_of

BACKOFF = Backoff(base_seconds=0.5, cap_seconds=10)
fractions = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "bound"), [(0, 0.5), (1, 1), (3, 4), (5, 10), (1000, 10), (10**9, 10)]
)
def test_the_bound_doubles_up_to_the_cap(attempt: int, bound: float) -> None:
    assert BACKOFF.bound_seconds(attempt) == bound


@given(st.integers(0, 100), fractions)
def test_a_wait_is_any_share_of_the_bound(attempt: int, fraction: float) -> None:
    assert BACKOFF.delay_seconds(attempt, fraction=0) == 0
    wait = BACKOFF.delay_seconds(attempt, fraction=fraction)
    assert 0 <= wait <= BACKOFF.bound_seconds(attempt)


@given(st.integers(0, 100), fractions, st.floats(0, 3600))
def test_never_sooner_than_the_service_asked(attempt, fraction, asked) -> None:
    wait = BACKOFF.delay_seconds(attempt, fraction=fraction, retry_after_seconds=asked)
    assert asked <= wait <= asked + BACKOFF.base_seconds


@given(st.binary(min_size=7, max_size=16))
def test_random_bytes_become_a_fraction(token: bytes) -> None:
    assert 0 <= fraction_of(token) < 1


def test_the_fraction_uses_the_whole_range() -> None:
    assert fraction_of(bytes(8)) == 0
    assert fraction_of(b"\x80" + bytes(7)) == 0.5
    assert fraction_of(b"\xff" * 8) == 1 - 2**-53
