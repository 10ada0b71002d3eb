"""Cutting and naming in one compiled call finds what pyfastcdc and the package blake3 find."""

import importlib
import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.format import chunker
from streamd.format.chunker import GENERAL, Cutter, Profile

KEY = bytes(range(32))
SMALL = Profile(99, 64, 256, 1024)
ODD = Profile(98, 65, 512, 1025)
NOISE = random.Random(5).randbytes(3_000_000)


class Place(NamedTuple):
    id: bytes | None
    offset: int
    size: int


def both(cutter: Cutter, data: memoryview, starts, sizes, *, final=True):
    one = cutter.chunks(KEY, data, starts, sizes, final=final, piece=Place)
    other = cutter.chunks_singly(KEY, data, starts, sizes, final=final, piece=Place)
    assert one == other
    assert all(type(each) is Place for found in one for each in found)
    return one


def test_it_is_compiled_where_there_is_a_compiler():
    assert chunker._CUT is not None


SEEDS = st.sampled_from([0, 1, 2**62 + 12345, 2**63 - 1])
STRETCHES = st.one_of(
    st.integers(0, 3000).map(bytes),
    st.tuples(st.integers(0, 2_000_000), st.integers(0, 6000)).map(
        lambda place: NOISE[place[0] : place[0] + place[1]]
    ),
    st.binary(max_size=50).map(lambda some: some * 40),
)


@settings(deadline=None)
@given(
    STRETCHES.flatmap(
        lambda first: st.lists(STRETCHES, max_size=4).map(lambda more: [first, *more])
    ),
    SEEDS,
    st.booleans(),
    st.sampled_from([SMALL, ODD]),
    st.integers(0, 70),
)
def test_cuts_and_ids_are_those_of_the_packages(parts, seed, final, profile, gap):
    data, starts = bytearray(), []
    for part in parts:
        data += bytes(gap)
        starts.append(len(data))
        data += part
    both(Cutter(seed, profile), memoryview(data), starts, list(map(len, parts)), final=final)


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 987654321987654321])
@pytest.mark.parametrize("data", [NOISE, bytes(2_500_000), NOISE[:700_001] + bytes(1_500_000)])
def test_chunks_of_the_usual_sizes_are_the_same(seed, data):
    view, cutter = memoryview(data), Cutter(seed)
    ends = [0, 1, 65_535, 65_536, 65_537, 65_538, 262_143, 262_145, 1_048_576, 1_048_577, len(data)]
    for final in (True, False):
        found = both(cutter, view, [0] * len(ends), ends, final=final)
        assert found[0] == []
        for end, pieces in zip(ends, found, strict=True):
            assert sum(piece.size for piece in pieces) == end or not final
            assert all(piece.size <= GENERAL.max_size for piece in pieces)
    both(cutter, view, [7, 1_000_003], [1_999_999, 1_000_001])


@pytest.mark.parametrize(
    ("start", "size"), [(-1, 1), (0, -1), (0, 11), (11, 0), (5, 6), (2**62, 2**62), (5, 2**63 - 1)]
)
def test_no_part_is_outside_of_the_data(start, size):
    with pytest.raises(ValueError, match="not in the data"):
        Cutter(0).chunks(KEY, memoryview(bytes(10)), [start], [size], final=True, piece=Place)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"key": b"short"}, ValueError),
        ({"sizes": []}, ValueError),
        ({"starts": ["0"]}, TypeError),
        ({"starts": [2**70]}, OverflowError),
        ({"sizes": [None]}, TypeError),
        ({"piece": int}, ValueError),
        ({"piece": 5}, TypeError),
        ({"starts": ()}, TypeError),
    ],
)
def test_what_does_not_fit_together_is_refused(given, error):
    arguments = {"key": KEY, "starts": [0], "sizes": [10], "piece": Place, **given}
    with pytest.raises(error):
        Cutter(0).chunks(data=memoryview(bytes(10)), final=True, **arguments)


@pytest.mark.parametrize(
    "sizes",
    [(63, 256, 1024), (64, 255, 1024), (64, 256, 1023), (512, 256, 1024), (64, 2048, 1024),
     (64, 300, 1024), (64, 2**23, 2**24), (64, 256, 2**24 + 1), (-1, 256, 1024), (64, 2**62, 2**63 - 1)],
)  # fmt: skip
def test_sizes_that_no_cutter_may_have_are_refused(sizes):
    with pytest.raises(ValueError, match=r"size|average"):
        Cutter(0, Profile(1, *sizes)).chunks(
            KEY, memoryview(bytes(10)), [0], [10], final=True, piece=Place
        )


def test_without_a_compiler_python_does_it(monkeypatch):
    monkeypatch.setattr(chunker, "_CUT", None)
    both(Cutter(3, SMALL), memoryview(NOISE[:5000]), [1, 2000], [1500, 3000])
    monkeypatch.setitem(importlib.sys.modules, "streamd.format._batch", None)
    monkeypatch.delattr("streamd.format._batch")
    assert chunker._compiled() is None


def test_where_an_older_module_was_compiled_python_does_it(monkeypatch):
    monkeypatch.delattr("streamd.format._batch.cut")
    assert chunker._compiled() is None
