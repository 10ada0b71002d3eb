"""A sample is large enough, and no stratum goes without."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.sampling import allot, sample_size


def test_the_usual_sample_finds_a_thousandth_with_ninety_nine_percent() -> None:
    assert sample_size() == 4603
    assert (1 - 0.001) ** sample_size() <= 0.01 < (1 - 0.001) ** (sample_size() - 1)


def test_it_does_find_it() -> None:
    """Of 20,000 things 1 % is bad; a sample for 90 % misses it in about one of ten tries."""
    draw = random.Random(7)
    size = sample_size(0.01, 0.9)
    missed = sum(min(draw.sample(range(20_000), size)) >= 200 for _ in range(300))
    assert 10 <= missed <= 50


@pytest.mark.parametrize(("share", "confidence"), [(0, 0.9), (1, 0.9), (0.1, 0), (0.1, 1)])
def test_nonsense_is_refused(share: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_size(share, confidence)


@given(st.integers(0, 300), st.lists(st.integers(0, 100), max_size=8))
def test_strata_get_their_share(total: int, strata: list[int]) -> None:
    found = allot(total, strata)
    assert len(found) == len(strata)
    assert all(0 <= n <= size for n, size in zip(found, strata, strict=True))
    assert all(n or not size or not total for n, size in zip(found, strata, strict=True))
    assert sum(found) >= min(total, sum(strata))
    assert sum(found) <= max(total, sum(1 for size in strata if size))


def test_small_strata_that_are_rounded_up_are_paid_for_by_the_largest() -> None:
    assert allot(3, [1, 1, 4]) == [1, 1, 1]
    assert allot(1, [1, 1, 4]) == [1, 1, 1]  # never none of a stratum
