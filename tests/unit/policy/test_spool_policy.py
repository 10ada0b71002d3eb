"""What gives way when the local copy is full: first what is elsewhere too, never the host's space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.spool import Admission, Bounds, Room, Way, admit

BOUNDS = Bounds(max_size_bytes=1000, min_free=0.1)


def room(copy=0, evictable=0, free=5000, inodes=0, inodes_total=0, total=10_000) -> Room:
    return Room(
        copy_bytes=copy,
        evictable_bytes=evictable,
        free_bytes=free,
        total_bytes=total,
        free_inodes=inodes,
        inodes_total=inodes_total,
    )


@pytest.mark.parametrize(
    ("found", "size", "expected"),
    [
        (room(copy=900), 100, Admission(Way.COPY)),
        (room(copy=900), 101, Admission(Way.BYPASS)),
        (room(copy=900, evictable=1), 101, Admission(Way.EVICT, 1)),
        (room(copy=900, evictable=500), 200, Admission(Way.EVICT, 100)),
        (room(free=1100), 100, Admission(Way.COPY)),
        (room(free=1099), 100, Admission(Way.BYPASS)),
        (room(free=900, copy=500, evictable=500), 100, Admission(Way.EVICT, 200)),
        (room(inodes=101, inodes_total=1000), 100, Admission(Way.COPY)),
        (room(inodes=100, inodes_total=1000), 100, Admission(Way.BYPASS)),
        (room(inodes=0, inodes_total=1000, copy=9, evictable=9), 3, Admission(Way.EVICT, 3)),
        (room(inodes=0, inodes_total=0), 100, Admission(Way.COPY)),  # btrfs says 0 of 0
    ],
)
def test_bulk_goes_into_the_copy_as_long_as_its_bounds_allow(found, size, expected) -> None:
    assert admit(size, found, BOUNDS, is_bulk=True, may_bypass=True) == expected


def test_a_segment_may_take_half_of_what_is_kept_free() -> None:
    assert admit(10, room(free=600), BOUNDS, is_bulk=False, may_bypass=False).way is Way.COPY
    assert admit(10, room(free=509), BOUNDS, is_bulk=False, may_bypass=False).way is Way.WAIT
    assert admit(40, room(copy=1010), BOUNDS, is_bulk=False, may_bypass=False).way is Way.COPY
    assert admit(41, room(copy=1010), BOUNDS, is_bulk=False, may_bypass=True).way is Way.BYPASS
    low = room(inodes=60, inodes_total=1000)
    assert admit(1, low, BOUNDS, is_bulk=False, may_bypass=False).way is Way.COPY


def test_without_a_way_around_it_waits() -> None:
    assert admit(101, room(copy=900), BOUNDS, is_bulk=True, may_bypass=False).way is Way.WAIT


def test_what_stays_free_may_be_given_in_bytes() -> None:
    bounds = Bounds(max_size_bytes=1000, min_free=4950)
    assert bounds.free_bytes_min(10_000) == 4950
    assert admit(50, room(), bounds, is_bulk=True, may_bypass=False).way is Way.COPY
    assert admit(51, room(), bounds, is_bulk=True, may_bypass=False).way is Way.WAIT
    assert bounds.free_inodes_min(room(total=0, inodes_total=5)) == 0


sizes = st.integers(0, 20_000)


@given(sizes, sizes, sizes, sizes, st.floats(0, 0.9), st.booleans(), st.booleans())
def test_the_bounds_hold_whatever_comes(
    size, copy, evictable, free, share, is_bulk, may_bypass
) -> None:
    found = room(copy=copy, evictable=min(evictable, copy), free=free)
    bounds = Bounds(max_size_bytes=1000, min_free=share)
    answer = admit(size, found, bounds, is_bulk=is_bulk, may_bypass=may_bypass)
    if answer.way in {Way.COPY, Way.EVICT}:
        assert copy + size - answer.evict_bytes <= 1050
        assert free + answer.evict_bytes - size >= int(10_000 * share) // 2
        assert answer.evict_bytes <= found.evictable_bytes
    else:
        assert (answer.way is Way.BYPASS) is may_bypass
