"""The end of a growing file costs about what was appended, and has few pieces."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.growing import FAN, PIECES_MAX, piece_sizes


def sent(appends: list[int]) -> tuple[int, list[int]]:
    """Return the bytes of all pieces that were new when they were cut, and the last cut."""
    sizes: list[int] = []
    total = 0
    for fresh in appends:
        before, sizes = sizes, piece_sizes(sizes, fresh)
        same = 0
        while same < min(len(before), len(sizes)) and before[same] == sizes[same]:
            same += 1
        total += sum(sizes[same:])
    return total, sizes


def test_a_thousand_appends_cost_a_few_times_their_size() -> None:
    total, sizes = sent([200] * 1000)
    assert total < 5 * 200_000
    assert len(sizes) < 4 * FAN


def test_what_did_not_grow_is_cut_as_before() -> None:
    assert piece_sizes([100_000, 200], 0) == [100_000, 200]
    assert piece_sizes([], 0) == []


def test_a_large_end_stays_as_it_is_below_small_appends() -> None:
    sizes = [150_000]
    for _ in range(20):
        sizes = piece_sizes(sizes, 100)
        assert sizes[0] == 150_000


@given(st.lists(st.integers(1, 1 << 20), max_size=300))
def test_nothing_is_lost_and_the_pieces_are_few(appends: list[int]) -> None:
    _, sizes = sent(appends)
    assert sum(sizes) == sum(appends)
    assert len(sizes) <= PIECES_MAX
    assert all(size > 0 for size in sizes)


def test_too_many_pieces_become_one() -> None:
    falling = [1 << (3 * number) for number in range(21, 0, -1) for _ in range(FAN - 1)]
    assert piece_sizes(falling, 1) == [sum(falling) + 1]
