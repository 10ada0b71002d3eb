"""Reading large files in pieces."""

import errno
import os
import random

import pytest
from blake3 import blake3

from streamd.effects import SystemClock
from streamd.format.chunker import GENERAL, Cutter
from streamd.sources.filesystem import large
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import FilesystemSource
from streamd.sources.port import Outcome, Tail


def read_all(source, request, contents, *, between=lambda: None):
    large = source.open_large(request)
    data, pieces = b"", []
    while (part := large.next()) is not None:
        arena, found = part
        assert found
        assert len(arena) <= source._batch_bytes_max
        data += contents(arena, found)
        pieces += found
        between()
    return data, pieces, large.finish()


def test_chunks_do_not_depend_on_the_size_of_the_pieces(tree, contents):
    source_data = random.Random(1).randbytes(100_000)
    (tree.root / "f").write_bytes(source_data)
    cuts = []
    for size in (8192, 10_000, 1 << 20):
        data, pieces, result = read_all(tree.source(batch_bytes_max=size), tree.request(), contents)
        assert data == source_data
        assert result.outcome is Outcome.OK
        cuts.append([piece.id for piece in pieces])
    assert cuts[0] == cuts[1] == cuts[2]
    whole = tree.source(small_file_max=0).read([tree.request()])
    assert [piece.id for piece in whole.results[0].pieces] == cuts[0]


def test_a_chunk_larger_than_the_arena_is_cut_there(tree, contents):
    (tree.root / "f").write_bytes(b"a" * 10_000)
    data, pieces, _ = read_all(tree.source(batch_bytes_max=4096), tree.request(), contents)
    assert data == b"a" * 10_000
    assert [piece.size for piece in pieces] == [4096, 4096, 1808]


def test_an_insertion_in_the_middle_changes_only_chunks_nearby(tree):
    def ids(data: bytes) -> list[bytes]:
        (tree.root / "f").write_bytes(data)
        source = FilesystemSource(
            "test",
            (tree.path,),
            rules=ExcludeRules(),
            cutter=Cutter(7, GENERAL),
            hasher=lambda view: blake3(view).digest(),
            clock=SystemClock(),
        )
        large = source.open_large(tree.request(source=source))
        found = []
        while (part := large.next()) is not None:
            found += [piece.id for piece in part[1]]
        assert large.finish().outcome is Outcome.OK
        return found

    noise = random.Random(2)
    data, new = noise.randbytes(24 << 20), noise.randbytes(1 << 20)
    before = ids(data)
    after = ids(data[: 12 << 20] + new + data[12 << 20 :])
    changed = [chunk for chunk in after if chunk not in set(before)]
    assert len(changed) <= (1 << 20) // GENERAL.min_size + 4
    assert len(set(before) - set(after)) <= 4


def test_holes_between_data_keep_their_place(tree, contents):
    with (tree.root / "f").open("wb") as file:
        for at in (0, 1 << 20, 5 << 20):
            file.seek(at)
            file.write(b"abc\xff" * 3000)
        file.truncate(8 << 20)
    expected = (tree.root / "f").read_bytes()
    data, pieces, result = read_all(tree.source(batch_bytes_max=8192), tree.request(), contents)
    assert data == expected
    assert sum(piece.id is None for piece in pieces) == 3
    assert result.stat.size == sum(piece.size for piece in pieces)


def test_small_holes_of_large_files_are_read_as_zeros(tree, contents):
    with (tree.root / "f").open("wb") as file:
        for number in range(300):
            file.seek(number * 8192)
            file.write(b"x" * 4096)
    data, pieces, _ = read_all(tree.source(), tree.request(), contents)
    assert data == (tree.root / "f").read_bytes()
    assert all(piece.id for piece in pieces)


def test_a_file_that_shrinks_is_fuzzy_and_as_long_as_what_was_read(tree, contents):
    (tree.root / "f").write_bytes(b"abc\xff" * 5000)
    data, _, result = read_all(
        tree.source(batch_bytes_max=4096),
        tree.request(),
        contents,
        between=lambda: os.truncate(tree.root / "f", 6000),
    )
    assert result.outcome is Outcome.FUZZY
    assert result.stat.size == len(data) < 20_000


def test_a_file_that_grows_is_fuzzy_and_read_to_its_first_size(tree, contents):
    (tree.root / "f").write_bytes(b"abc\xff" * 5000)

    def grow() -> None:
        with (tree.root / "f").open("ab") as file:
            file.write(b"more")

    data, _, result = read_all(
        tree.source(batch_bytes_max=4096), tree.request(), contents, between=grow
    )
    assert result.outcome is Outcome.FUZZY
    assert result.stat.size == len(data) == 20_000


def test_a_file_open_for_writing_is_fuzzy_while_it_is_fresh(tree, contents):
    with (tree.root / "f").open("wb", buffering=0) as file:
        file.write(b"x" * 10_000)
        assert read_all(tree.source(), tree.request(), contents)[2].outcome is Outcome.FUZZY
    assert read_all(tree.source(), tree.request(), contents)[2].outcome is Outcome.OK


def test_arenas_may_be_kept(tree, contents):
    original = random.Random(3).randbytes(100_000)
    (tree.root / "f").write_bytes(original)
    large = tree.source(batch_bytes_max=8192).open_large(tree.request())
    parts = []
    while (part := large.next()) is not None:
        parts.append(part)
    assert b"".join(contents(arena, pieces) for arena, pieces in parts) == original


def test_a_file_that_is_gone_ends_at_once(tree):
    (tree.root / "f").write_text("x")
    request = tree.request()
    (tree.root / "f").unlink()
    large = tree.source().open_large(request)
    assert large.next() is None
    assert large.finish().outcome is Outcome.VANISHED
    large.close()


def test_another_file_under_the_name_is_not_read(tree):
    (tree.root / "f").write_text("x")
    request = tree.request()
    (tree.root / "g").write_text("y")
    (tree.root / "g").rename(tree.root / "f")
    large = tree.source().open_large(request)
    assert large.next() is None
    assert large.finish().outcome is Outcome.TYPE_CHANGED


@pytest.mark.parametrize("how", ["large", "batch", "small"])
def test_the_end_of_a_file_that_grew_is_cut_where_it_ended_before(tree, contents, how):
    source = tree.source(small_file_max=0 if how != "small" else 64 * 1024)

    def captured(tail):
        request = tree.request()._replace(tail=tail)
        if how == "large":
            data, pieces, result = read_all(source, request, contents)
            return data, pieces, result.tail_count
        batch = source.read([request])
        pieces = batch.results[0].pieces
        return contents(batch.arena, pieces), pieces, batch.results[0].tail_count

    first = b"" if how == "small" else b"a" * 5000 + b"\xff"
    (tree.root / "f").write_bytes(first + b"b" * 3000)
    _, before, count = captured(None)
    assert count == 0
    tail = Tail(0, tuple((piece.id, piece.size) for piece in before))
    with (tree.root / "f").open("ab") as file:
        file.write(b"one more line\n")
    data, after, count = captured(tail)
    assert data == first + b"b" * 3000 + b"one more line\n"
    assert [piece.id for piece in after[:-1]] == [piece.id for piece in before]
    assert (after[-1].size, count) == (14, 2)
    with (tree.root / "f").open("r+b") as file:  # and what changed before the end is found
        file.seek(len(first) + 10)
        file.write(b"other")
    data, changed, count = captured(tail)
    assert data[len(first) + 10 :].startswith(b"other")
    assert (changed[-1].size, count) == (3014, 0)


def test_only_what_was_not_in_memory_before_is_dropped_from_it(tree, contents, monkeypatch):
    data = random.Random(3).randbytes(20_000)
    (tree.root / "f").write_bytes(data)
    dropped = []
    real = large.read_cached
    monkeypatch.setattr(
        large,
        "read_cached",
        lambda fd, view, at: real(fd, view[: max(0, min(len(view), 10_000 - at))], at),
    )
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, at, size, how: dropped.append((at, size, how))
    )
    source = tree.source(batch_bytes_max=4096)
    assert read_all(source, tree.request(), contents)[0] == data
    ranges = [(at, size) for at, size, how in dropped if how == os.POSIX_FADV_DONTNEED]
    assert ranges[0][0] <= 10_000 < sum(ranges[0])  # what was cached is left, up to a piece
    assert ranges[0][0] > 10_000 - 4096
    assert sum(ranges[-1]) == len(data)


def test_a_file_system_that_cannot_say_what_is_in_memory_is_read_all_the_same(
    tree, contents, monkeypatch
):
    data = random.Random(4).randbytes(20_000)
    (tree.root / "f").write_bytes(data)
    real = os.preadv

    def preadv(fd, buffers, offset, flags=0):
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert read_all(tree.source(batch_bytes_max=4096), tree.request(), contents)[0] == data


def test_a_disk_that_fails_is_said_also_when_it_is_asked_without_waiting(tree, monkeypatch):
    (tree.root / "f").write_bytes(b"abc" * 1000)

    def preadv(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", preadv)
    read = tree.source().open_large(tree.request())
    assert read.next() is None
    assert read.finish().errno == errno.EIO
