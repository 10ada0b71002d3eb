"""Turns at a file: one writes, and writes what the others bring; what waits is bounded."""

import threading

import pytest

from streamd.restore.turns import Turns

PATIENCE_SECONDS = 60


def piece(offset: int, content: bytes = b"x") -> tuple[int, memoryview]:
    return offset, memoryview(content)


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_who_comes_first_writes_and_others_leave_their_pieces():
    turns = Turns()
    assert turns.take(1, [piece(0)], 1)
    assert not turns.take(1, [piece(10)], 1)
    assert turns.take(2, [piece(0)], 1), "another file is free"
    assert turns.next(1) == [piece(10)]
    assert turns.next(1) == []
    assert turns.take(1, [piece(20)], 1), "nobody is at it any more"


def test_what_was_left_comes_in_order_of_offsets():
    turns = Turns()
    turns.take(1, [], 0)
    turns.take(1, [piece(30), piece(50)], 2)
    turns.take(1, [piece(10), piece(40)], 2)
    assert [offset for offset, _ in turns.next(1)] == [10, 30, 40, 50]


def test_when_too_much_is_left_one_waits_until_it_is_taken():
    turns = Turns(left_max=10)
    turns.take(1, [], 0)
    assert not turns.take(1, [piece(0)], 8)
    came = threading.Event()

    def bring() -> None:
        assert not turns.take(1, [piece(1)], 8)
        came.set()

    thread = in_thread(bring)
    assert not came.wait(0.2)
    assert turns.next(1) == [piece(0)]
    assert came.wait(PATIENCE_SECONDS)
    assert turns.next(1) == [piece(1)]
    thread.join(PATIENCE_SECONDS)


def test_the_bound_holds_for_all_files_together():
    turns = Turns(left_max=10)
    turns.take(1, [], 0)
    turns.take(2, [], 0)
    assert not turns.take(1, [piece(0)], 8)
    came = threading.Event()
    thread = in_thread(lambda: (turns.take(2, [piece(0)], 8), came.set()))
    assert not came.wait(0.2)
    turns.next(1)
    assert came.wait(PATIENCE_SECONDS)
    thread.join(PATIENCE_SECONDS)


def test_what_is_larger_than_the_bound_is_taken_by_itself():
    turns = Turns(left_max=10)
    turns.take(1, [], 0)
    assert not turns.take(1, [piece(0)], 1000)
    assert turns.next(1) == [piece(0)]


def test_who_waits_for_room_writes_when_the_file_was_let_go():
    turns = Turns(left_max=10)
    turns.take(1, [], 0)
    turns.take(1, [piece(0)], 10)
    took: list[bool] = []
    thread = in_thread(lambda: took.append(turns.take(1, [piece(1)], 10)))
    turns.let_go(1)
    thread.join(PATIENCE_SECONDS)
    assert took == [True]
    assert turns.next(1) == [], "what was left for who let go is dropped"


@pytest.mark.parametrize("left_max", [1, 500, 1 << 30])
def test_every_piece_is_written_once_by_one_thread_at_a_time(left_max):
    turns, written, at_work = Turns(left_max), list[int](), threading.Lock()

    def bring(first: int) -> None:
        for number in range(first, 2000, 4):
            pieces = [piece(number)]
            if not turns.take(7, pieces, 100):
                continue
            while pieces:
                assert at_work.acquire(blocking=False), "two write at a time"
                written.extend(offset for offset, _ in pieces)
                at_work.release()
                pieces = turns.next(7)

    threads = [in_thread(lambda first=first: bring(first)) for first in range(4)]
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert sorted(written) == list(range(2000))
