"""Reading large files ahead: what comes out is what comes out without."""

import errno
import os
import random
import threading

import pytest

from streamd.sources.filesystem import ahead, large
from streamd.sources.port import Outcome

SIZE = ahead.SIZE_MIN  # of the arenas
LINE = b"x" * 16_383 + b"\xff"  # is a chunk


def pieces_of(source, request, contents, *, between=lambda: None):
    read = source.open_large(request)
    data, ids = [], []
    while (part := read.next()) is not None:
        arena, found = part
        assert len(arena) <= SIZE
        data.append(contents(arena, found))
        ids += [(piece.id, piece.size) for piece in found]
        del part, arena, found
        between()
    return b"".join(data), ids, read.finish()


@pytest.fixture
def begun(monkeypatch):
    """The sizes that were read ahead."""
    sizes = []
    real = ahead.ReadAhead.begin

    def begin(self, buffer, offset, size):
        sizes.append(size)
        real(self, buffer, offset, size)

    monkeypatch.setattr(ahead.ReadAhead, "begin", begin)
    return sizes


@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_those_of_a_file_that_is_read_part_by_part(
    tree, contents, begun, monkeypatch, seed
):
    chance = random.Random(seed)
    with (tree.root / "f").open("wb") as file:
        while file.tell() < 5 * SIZE:
            file.write(
                chance.choice((LINE, LINE[5:], b"y" * 99_998 + b"\xff")) * chance.randrange(1, 99)
            )
            file.write(b"x" * chance.choice((0, 10, ahead.ROOM)))
            if chance.random() < 0.4:
                file.seek(chance.randrange(1, 3 << 20), os.SEEK_CUR)
        file.write(b"end")
    data, ids, result = pieces_of(tree.source(batch_bytes_max=SIZE), tree.request(), contents)
    assert begun
    assert data == (tree.root / "f").read_bytes()
    assert result.outcome is Outcome.OK
    monkeypatch.setattr(ahead, "SIZE_MIN", SIZE + 1)
    begun.clear()
    assert pieces_of(tree.source(batch_bytes_max=SIZE), tree.request(), contents)[1] == ids
    assert not begun


@pytest.mark.parametrize("length", [ahead.ROOM - 1, ahead.ROOM, ahead.ROOM + 1, 3 << 20])
def test_what_is_left_of_a_part_may_be_longer_than_the_room_for_it(tree, contents, begun, length):
    first, second = b"a" * (SIZE - length - 1) + b"\xff", b"b" * (SIZE // 2 + 99) + b"\xff"
    (tree.root / "f").write_bytes(first + second + b"c" * SIZE)
    data, ids, _ = pieces_of(tree.source(batch_bytes_max=SIZE), tree.request(), contents)
    assert begun
    assert data == first + second + b"c" * SIZE
    assert [size for _, size in ids][:2] == [len(first), len(second)]


def test_a_file_that_is_shorter_when_it_is_read_ahead_is_fuzzy(tree, contents, begun):
    (tree.root / "f").write_bytes(LINE * (2 * SIZE // len(LINE)))
    shorter = 2 * SIZE - 5000  # seen by what is read ahead the second time, or by what follows
    data, _, result = pieces_of(
        tree.source(batch_bytes_max=SIZE),
        tree.request(),
        contents,
        between=lambda: os.truncate(tree.root / "f", shorter),
    )
    assert begun
    assert result.outcome is Outcome.FUZZY
    assert result.stat.size == len(data) <= 2 * SIZE


def test_a_disk_that_fails_while_it_is_read_ahead_is_said(tree, monkeypatch):
    (tree.root / "f").write_bytes(LINE * (4 * SIZE // len(LINE)))
    real, here = os.preadv, threading.get_ident()

    def preadv(*arguments):
        if threading.get_ident() != here:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    read = tree.source(batch_bytes_max=SIZE).open_large(tree.request())
    assert read.next() is not None
    assert read.next() is None
    assert read.finish().errno == errno.EIO


def test_a_fault_of_ours_in_the_thread_is_raised_where_it_is_waited_for(tree, monkeypatch):
    (tree.root / "f").write_bytes(LINE * (4 * SIZE // len(LINE)))
    real, here = large.read_cached, threading.get_ident()

    def read_cached(*arguments):
        if threading.get_ident() != here:
            raise ValueError("a fault")
        return real(*arguments)

    monkeypatch.setattr(large, "read_cached", read_cached)
    read = tree.source(batch_bytes_max=SIZE).open_large(tree.request())
    assert read.next() is not None
    with pytest.raises(ValueError, match="a fault"):
        read.next()
    read.close()


def test_the_thread_ends_with_the_reading(tree, contents):
    (tree.root / "f").write_bytes(LINE * (4 * SIZE // len(LINE)))
    before = set(threading.enumerate())
    read = tree.source(batch_bytes_max=SIZE).open_large(tree.request())
    assert read.next() is not None
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    read.close()
    thread.join(60)
    assert not thread.is_alive()
