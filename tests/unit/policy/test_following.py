"""Known cuts: what is remembered of them, and going along."""

from array import array

from streamd.policy import following
from streamd.policy.following import Follower, KnownCuts, decode, known_cuts


def mark(number: int) -> bytes:
    return bytes([number]) * 8


def chunk_id(number: int) -> bytes:
    return bytes([number]) * 32


def known(*numbers: int, size: int = 10) -> KnownCuts:
    return KnownCuts(array("Q", [size] * len(numbers)), b"".join(map(mark, numbers)))


def test_what_was_encoded_is_decoded():
    cuts = known_cuts([(chunk_id(1), 5), (None, 1 << 40), (chunk_id(3), 7)], uncut=0)
    assert decode(cuts.encoded()) == cuts


def test_something_else_is_nothing_known():
    assert decode(b"not a multiple of sixteen") == KnownCuts(array("Q"), b"")
    assert Follower(decode(b"abc")).guess(0) is None


def test_what_ends_at_a_hole_or_at_the_end_was_not_cut_by_its_content():
    runs = [(None, 3), (chunk_id(1), 1), (chunk_id(2), 2), (None, 4), (chunk_id(3), 5)]
    runs += [(chunk_id(4), 6), (chunk_id(5), 7)]
    assert known_cuts(runs, uncut=0).marks == b"".join(map(mark, [0, 1, 0, 0, 3, 4, 0]))
    assert known_cuts(runs, uncut=2).marks == b"".join(map(mark, [0, 1, 0, 0, 3, 0, 0]))


def test_of_a_very_long_file_the_beginning_is_remembered(monkeypatch):
    monkeypatch.setattr(following, "CHUNKS_MAX", 2)
    runs = [(chunk_id(1), 1), (chunk_id(2), 2), (chunk_id(3), 3)]
    assert known_cuts(runs, uncut=0).marks == mark(1) + mark(2)
    assert known_cuts(runs, uncut=2).marks == mark(1) + mark(0)
    assert known_cuts(runs, uncut=9).marks == mark(0) + mark(0)


def test_an_unchanged_file_is_guessed_from_its_beginning_to_its_end():
    follower = Follower(known(1, 2, 3))
    for number in (1, 2, 3):
        at = (number - 1) * 10
        assert follower.guess(at) == (10, mark(number))
        assert follower.guess(at) == (10, mark(number))
        follower.follow()
    assert follower.guess(30) is None


def test_nothing_is_guessed_where_nothing_began_or_no_content_was_cut():
    follower = Follower(known(1, 0, 3))
    assert follower.guess(5) is None
    assert follower.guess(10) is None
    assert follower.guess(20) == (10, mark(3))


def test_behind_an_insertion_a_chunk_that_is_met_says_what_comes_next():
    follower = Follower(known(1, 2, 3, 4))
    follower.follow()
    assert not follower.cut(107, chunk_id(9))
    assert follower.cut(117, chunk_id(2))
    assert follower.guess(117) == (10, mark(3))


def test_behind_something_removed_too():
    follower = Follower(known(1, 2, 3, 4, 5))
    assert follower.cut(7, chunk_id(4))
    assert follower.guess(7) == (10, mark(5))


def test_of_chunks_that_are_alike_the_first_that_may_come_is_taken():
    follower = Follower(known(7, 7, 8))
    assert follower.cut(3, chunk_id(7))
    assert follower.guess(3) == (10, mark(7))


def test_a_chunk_is_looked_for_near_the_last_one_that_was_met(monkeypatch):
    monkeypatch.setattr(following, "_WINDOW", 4)
    monkeypatch.setattr(following, "_STRIDE", 2)
    follower = Follower(known(*range(1, 12)))
    assert not follower.cut(10, chunk_id(7))
    assert follower.cut(20, chunk_id(4))
    assert follower.cut(30, chunk_id(7))
    assert follower.guess(30) == (10, mark(8))
    assert not follower.cut(35, chunk_id(1))
