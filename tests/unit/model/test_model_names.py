"""Names of a large directory come back slice by slice, and the slices cover every name."""

import itertools
import tracemalloc

import pytest

from streamd.model.names import SLICE_NAMES, PackedNames


@pytest.mark.parametrize("count", [1, 2, SLICE_NAMES, SLICE_NAMES + 1, 3 * SLICE_NAMES - 1])
def test_slices_are_all_names_in_order(count) -> None:
    names = sorted(b"%d \xff\n" % number for number in range(count))
    packed = PackedNames(names)
    assert len(packed) == -(-count // SLICE_NAMES)
    assert [name for part in packed for name in part] == names
    spans = [packed.span(number) for number in range(len(packed))]
    assert spans[0][0] == b""
    assert spans[-1][1] is None
    for (_, high), (low, _) in itertools.pairwise(spans):
        assert high == low
    for part, (low, high) in zip(packed, spans, strict=True):
        assert all(low <= name and (high is None or name < high) for name in part)


def test_names_take_little_more_than_their_bytes() -> None:
    names = sorted(b"file-%07d" % number for number in range(100_000))
    tracemalloc.start()
    packed = PackedNames(names)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(packed) == 10
    assert size < 1.2 * 13 * len(names)
