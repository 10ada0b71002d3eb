"""Cutting along known cuts finds the cuts that looking for them finds."""

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.format.chunker import Cutter, Profile
from streamd.policy.following import Follower, known_cuts
from streamd.sources.filesystem import content
from streamd.sources.filesystem.content import Chunking

PROFILE = Profile(1, 64, 256, 1024)
NOISE = random.Random(1).randbytes(40_000)
ZEROS = bytes(40_000)


class Counting:
    """A cutter that counts what it looks at."""

    def __init__(self) -> None:
        self._cutter = Cutter(7, PROFILE)
        self.seen = 0

    def cut(self, buffer: memoryview, *, final: bool) -> list[int]:
        sizes = self._cutter.cut(buffer, final=final)
        self.seen += sum(sizes)
        return sizes


def chunking() -> Chunking:
    return Chunking(Counting(), lambda view: hashlib.sha256(view).digest(), 0)


def cut(data: bytes, step: int, follower: Follower | None = None, how: Chunking | None = None):
    """Cut as a large file is: in pieces of `step`, the uncut rest carried over."""
    how = how or chunking()
    arena, start, end, runs = memoryview(data), 0, 0, []
    while True:
        end = min(end + step, len(data))
        final = end == len(data)
        if follower is None:
            pieces = how.cut(arena, start, end, final=final)
        else:
            pieces = how.cut_along(follower, arena, start, end, at=start, final=final)
        runs += [(piece.id, piece.size) for piece in pieces]
        start += sum(piece.size for piece in pieces)
        if final:
            assert start == len(data)
            return runs


PART = st.tuples(st.sampled_from([NOISE, ZEROS]), st.integers(0, 39_000), st.integers(0, 6000))
PARTS = st.lists(PART, min_size=1, max_size=6)


def joined(parts) -> bytes:
    return b"".join(data[start : start + size] for data, start, size in parts)


@settings(max_examples=300, deadline=None)
@given(PARTS, PARTS, st.integers(0, 3), st.sampled_from([1500, 4096, 50_000]))
def test_the_cuts_are_those_of_a_file_that_nothing_is_known_of(before, after, kept, step):
    before, after = joined(before), joined(before[:kept] + after + before[kept:])
    known = known_cuts(cut(before, 1 << 20), uncut=0)
    content_stretch, content._STRETCH = content._STRETCH, 1024
    try:
        assert cut(after, step, Follower(known)) == cut(after, 1 << 20)
    finally:
        content._STRETCH = content_stretch


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 39_999), st.integers(0, 255)), max_size=20))
def test_changes_in_place_lead_to_the_same_cuts_as_looking_at_all(changes):
    data = bytearray(NOISE)
    for at, value in changes:
        data[at] = value
    follower = Follower(known_cuts(cut(NOISE, 1 << 20), uncut=0))
    assert cut(bytes(data), 4096, follower) == cut(bytes(data), 1 << 20)


def test_of_what_is_unchanged_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(content, "_STRETCH", 1024)
    inserted = NOISE[:20_000] + b"inserted" * 50 + NOISE[20_000:]
    how = chunking()
    follower = Follower(known_cuts(cut(NOISE, 1 << 20), uncut=0))
    assert cut(inserted, 4096, follower, how) == cut(inserted, 1 << 20)
    assert how.cutter.seen < 5000
