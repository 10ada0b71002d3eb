"""Known cuts: what is remembered of them, and going along."""

from array import array

from streamd.policy import following
from streamd.policy.following import Follower, Guess, KnownCuts, Notes, decode


def mark(number: int) -> bytes:
    return bytes([number]) * 7


def chunk_id(number: int) -> bytes:
    return bytes([number]) * 32


def noted(*runs: tuple[int | None, int], uncut: int = 0) -> KnownCuts:
    """Of (number, size); the first byte of each is its number and 100."""
    notes = Notes()
    for number, size in runs:
        if number is None:
            notes.add(None, 0, size)
        else:
            notes.add(chunk_id(number), number + 100, size)
    return notes.known(uncut=uncut)


def marks(*numbers: int) -> bytes:
    """Of chunks, by number; negative: not cut by its content; 0: a hole."""
    rows = [mark(max(number, 0)) + bytes([number and abs(number) + 100]) for number in numbers]
    return b"".join(rows)


def known(*numbers: int) -> KnownCuts:
    """Chunks of ten bytes, and one more at the end."""
    return noted(*[(number or None, 10) for number in numbers], (99, 10))


def guess(number: int, following: int) -> Guess:
    return Guess(10, mark(number), following + 100)


def test_what_was_encoded_is_decoded():
    cuts = noted((1, 5), (None, 1 << 40), (3, 7), (4, 8))
    assert decode(cuts.encoded()) == cuts


def test_something_else_is_nothing_known():
    assert decode(b"not a multiple of sixteen") == KnownCuts(array("Q"), b"")
    assert Follower(decode(b"abc")).guess(0) is None
    assert Notes().known(uncut=0) == decode(b"")


def test_what_ends_at_a_hole_or_at_the_end_was_not_cut_by_its_content():
    runs = [(None, 3), (1, 1), (2, 2), (None, 4), (3, 5), (4, 6), (5, 7)]
    assert noted(*runs).marks == marks(0, 1, -2, 0, 3, 4, -5)
    assert noted(*runs, uncut=2).marks == marks(0, 1, -2, 0, 3, -4, -5)


def test_of_a_very_long_file_the_beginning_is_remembered(monkeypatch):
    monkeypatch.setattr(following, "CHUNKS_MAX", 2)
    runs = [(1, 1), (2, 2), (3, 3)]
    assert noted(*runs).marks == marks(1, -2)
    assert noted(*runs, uncut=2).marks == marks(1, -2)
    assert noted(*runs, uncut=9).marks == marks(-1, -2)


def test_an_unchanged_file_is_guessed_from_its_beginning_to_its_end():
    follower = Follower(known(1, 2, 3))
    for number, following_number in ((1, 2), (2, 3), (3, 99)):
        at = (number - 1) * 10
        assert follower.guess(at) == guess(number, following_number)
        assert follower.guess(at) == guess(number, following_number)
        follower.follow()
    assert follower.guess(30) is None


def test_nothing_is_guessed_where_nothing_began_or_no_content_was_cut():
    follower = Follower(known(1, 0, 3))
    assert follower.guess(5) is None
    assert follower.guess(10) is None
    assert follower.guess(20) == guess(3, 99)


def test_behind_an_insertion_a_chunk_that_is_met_says_what_comes_next():
    follower = Follower(known(1, 2, 3, 4))
    follower.follow()
    assert not follower.cut(107, chunk_id(9))
    assert follower.cut(117, chunk_id(2))
    assert follower.guess(117) == guess(3, 4)


def test_behind_something_removed_too():
    follower = Follower(known(1, 2, 3, 4, 5))
    assert follower.cut(7, chunk_id(4))
    assert follower.guess(7) == guess(5, 99)


def test_of_chunks_that_are_alike_the_first_that_may_come_is_taken():
    follower = Follower(known(7, 7, 8))
    assert follower.cut(3, chunk_id(7))
    assert follower.guess(3) == guess(7, 8)


def test_a_chunk_is_looked_for_near_the_last_one_that_was_met(monkeypatch):
    monkeypatch.setattr(following, "_WINDOW", 4)
    monkeypatch.setattr(following, "_STRIDE", 2)
    follower = Follower(known(*range(1, 12)))
    assert not follower.cut(10, chunk_id(7))
    assert follower.cut(20, chunk_id(4))
    assert follower.cut(30, chunk_id(7))
    assert follower.guess(30) == guess(8, 9)
    assert not follower.cut(35, chunk_id(1))
