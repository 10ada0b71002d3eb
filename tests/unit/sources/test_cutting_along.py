"""Cutting along known cuts finds the cuts that looking for them finds."""

import hashlib
import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.format.chunker import Cutter, Profile
from streamd.policy.following import Follower, KnownCuts, Notes
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
    return [(piece.id, piece.size) for piece in pieces_of(data, step, follower, how)]


def pieces_of(data: bytes, step: int, follower: Follower | None, how: Chunking | None = None):
    how = how or chunking()
    arena, start, end, found = memoryview(data), 0, 0, []
    while True:
        end = min(end + step, len(data))
        final = end == len(data)
        if follower is None:
            pieces = how.cut(arena, start, end, final=final)
        else:
            pieces = how.cut_along(follower, arena, start, end, at=start, final=final)
        found += pieces
        start += sum(piece.size for piece in pieces)
        if final:
            assert start == len(data)
            return found


def known_of(data: bytes) -> KnownCuts:
    notes = Notes()
    for piece in pieces_of(data, 1 << 20, None):
        notes.add(piece.id, data[piece.offset], piece.size)
    return notes.known(uncut=0)


KINDS = {"noise": NOISE, "zeros": ZEROS}
PART = st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 39_000), st.integers(0, 6000))
PARTS = st.lists(PART, min_size=1, max_size=6)


def joined(parts) -> bytes:
    return b"".join(KINDS[kind][start : start + size] for kind, start, size in parts)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(PARTS, PARTS, st.integers(0, 3), st.sampled_from([1500, 4096, 50_000]))
def test_the_cuts_are_those_of_a_file_that_nothing_is_known_of(before, after, kept, step):
    before, after = joined(before), joined(before[:kept] + after + before[kept:])
    known = known_of(before)
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
    follower = Follower(known_of(NOISE))
    assert cut(bytes(data), 4096, follower) == cut(bytes(data), 1 << 20)


@pytest.mark.parametrize("rest", range(6))
def test_a_cut_depends_on_the_byte_that_follows(rest):
    """Behind every chunk another byte, and behind that the end, near or far."""
    at, known = 0, known_of(NOISE)
    for size in known.sizes[:40]:
        at += size
        for following in (NOISE[at], NOISE[at] ^ 0xFF):
            data = NOISE[:at] + bytes([following]) * (rest > 0) + NOISE[at + 1 : at + rest]
            assert cut(data, 1 << 20, Follower(known)) == cut(data, 1 << 20)


def test_what_is_remembered_wrongly_costs_time_and_nothing_else(monkeypatch):
    monkeypatch.setattr(content, "_STRETCH", 1024)
    right = known_of(NOISE)
    for wrong in (0, 1, 1025, 5000, 1 << 40):
        known = KnownCuts(array("Q", right.sizes), right.marks)
        known.sizes[3] = wrong
        assert cut(NOISE, 4096, Follower(known)) == cut(NOISE, 1 << 20)


def test_of_what_is_unchanged_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(content, "_STRETCH", 1024)
    inserted = NOISE[:20_000] + b"inserted" * 50 + NOISE[20_000:]
    how = chunking()
    follower = Follower(known_of(NOISE))
    assert cut(inserted, 4096, follower, how) == cut(inserted, 1 << 20)
    assert how.cutter.seen < 5000
