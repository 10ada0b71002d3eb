"""Reading small files and everything that is not a file."""

import errno
import mmap
import os
import socket

import pytest

from streamd.sources.filesystem import bulk, coherence, reading
from streamd.sources.port import Outcome, ReadRequest


@pytest.fixture(autouse=True)
def in_python(monkeypatch):
    """What a coherent read is says the code in Python; test_bulk.py compares the module with it."""
    monkeypatch.setattr(bulk, "read_batch", None)


def read_one(source, request):
    batch = source.read([request])
    return batch.arena, batch.results[0]


def test_results_come_in_order_with_their_content(tree, contents):
    requests = []
    for number in range(20):
        name = f"d{number % 3}/f{number}"
        (tree.root / name).parent.mkdir(exist_ok=True)
        (tree.root / name).write_bytes(b"%d" % number * number)
        requests.append(tree.request(name))
    batch = tree.source().read(requests)
    assert [result.outcome for result in batch.results] == [Outcome.OK] * 20
    for number, result in enumerate(batch.results):
        assert contents(batch.arena, result.pieces) == b"%d" % number * number
    assert batch.read_bytes == sum(request.expected.size for request in requests)
    assert len(batch.arena) == batch.read_bytes


def test_a_small_file_is_one_chunk_and_a_larger_one_is_cut(tree, contents):
    data = b"ab\xffcd\xffef"
    (tree.root / "f").write_bytes(data)
    arena, result = read_one(tree.source(small_file_max=8), tree.request())
    assert [piece.size for piece in result.pieces] == [8]
    arena, result = read_one(tree.source(small_file_max=7), tree.request())
    assert [piece.size for piece in result.pieces] == [3, 3, 2]
    assert contents(arena, result.pieces) == data


def test_an_empty_file_has_no_pieces(tree):
    (tree.root / "f").touch()
    _, result = read_one(tree.source(), tree.request())
    assert (result.outcome, list(result.pieces)) == (Outcome.OK, [])


def test_holes_stay_holes(tree, contents):
    data = b"a" * 4096 + bytes(1 << 19) + b"b" * 4096 + bytes(8192)
    with (tree.root / "f").open("wb") as file:
        file.write(data[:4096])
        file.seek(4096 + (1 << 19))
        file.write(b"b" * 4096)
        file.truncate(len(data))
    batch = tree.source().read([tree.request()])
    pieces = batch.results[0].pieces
    assert [(piece.id is None, piece.size) for piece in pieces] == [
        (False, 4096),
        (True, 1 << 19),
        (False, 4096),
        (True, 8192),
    ]
    assert contents(batch.arena, pieces) == data
    assert batch.read_bytes == 8192


def test_a_file_that_is_all_hole_has_one_piece(tree):
    with (tree.root / "f").open("wb") as file:
        file.truncate(1 << 30)
    source = tree.source()
    large = source.open_large(tree.request())
    _, pieces = large.next()
    assert [(piece.id, piece.size) for piece in pieces] == [(None, 1 << 30)]
    assert large.next() is None
    assert large.finish().outcome is Outcome.OK


def test_the_stat_and_the_metadata_belong_to_the_file(tree):
    path = tree.root / "f"
    path.write_bytes(b"x")
    os.setxattr(path, "user.b", b"2")
    os.setxattr(path, "user.a", b"")
    request = tree.request()
    _, result = read_one(tree.source(), request)
    assert result.stat == request.expected
    assert result.xattrs == ((b"user.a", b""), (b"user.b", b"2"))
    assert 0 < result.btime_ns <= result.stat.ctime_ns


def test_links_directories_pipes_and_sockets_are_read_without_opening(tree):
    root = tree.root
    (root / "link").symlink_to(b"\xfftarget".decode("utf-8", "surrogateescape"))
    (root / "dir").mkdir()
    os.setxattr(root / "dir", "user.a", b"1")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "sock"))
    names = ("link", "dir", "pipe", "sock")
    results = tree.source().read([tree.request(name) for name in names]).results
    assert [result.outcome for result in results] == [Outcome.OK] * 4
    assert results[0].target == b"\xfftarget"
    assert results[1].xattrs == ((b"user.a", b"1"),)
    assert all(
        result.stat.type == tree.request(n).expected.type
        for n, result in zip(names, results, strict=True)
    )


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (lambda path: None, Outcome.VANISHED),
        (lambda path: path.mkdir(), Outcome.TYPE_CHANGED),
        (lambda path: path.symlink_to("/etc/passwd"), Outcome.TYPE_CHANGED),
        (lambda path: os.mkfifo(path), Outcome.TYPE_CHANGED),
        (
            lambda path: (
                path.with_name("other").write_text("y"),
                path.with_name("other").rename(path),
            ),
            Outcome.TYPE_CHANGED,
        ),
    ],
)
def test_what_replaced_the_file_is_not_read_in_its_place(tree, change, outcome):
    path = tree.root / "f"
    path.write_text("x")
    request = tree.request()
    path.rename(path.with_name("away"))
    change(path)
    _, result = read_one(tree.source(), request)
    assert result.outcome is outcome
    assert result.stat == request.expected
    assert not result.pieces


def test_a_directory_replaced_by_a_link_leads_nowhere(tree, tmp_path):
    (tree.root / "d").mkdir()
    (tree.root / "d/f").write_text("x")
    request = tree.request("d/f")
    (tree.root / "d").rename(tmp_path / "d")
    (tree.root / "d").symlink_to(tmp_path / "d")
    _, result = read_one(tree.source(), request)
    assert result.outcome is Outcome.VANISHED


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (errno.EACCES, Outcome.UNREADABLE),
        (errno.EIO, Outcome.FAILED),
        (errno.ESTALE, Outcome.VANISHED),
    ],
)
def test_errors_have_an_outcome_and_spare_the_others(tree, monkeypatch, contents, code, outcome):
    (tree.root / "f").write_text("x")
    (tree.root / "g").write_text("y")
    real = os.preadv
    fails = iter([True])

    def preadv(*arguments):
        if next(fails, False):
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    batch = tree.source().read([tree.request("f"), tree.request("g")])
    assert (batch.results[0].outcome, batch.results[0].errno) == (outcome, code)
    assert contents(batch.arena, batch.results[1].pieces) == b"y"


def test_a_file_that_grew_a_little_is_read_whole(tree, contents):
    (tree.root / "f").write_bytes(b"x" * 10)
    request = tree.request()
    (tree.root / "f").write_bytes(b"y" * 1000)
    arena, result = read_one(tree.source(), request)
    assert contents(arena, result.pieces) == b"y" * 1000
    assert result.stat.size == 1000


def test_a_file_that_grew_a_lot_must_be_examined_again(tree):
    (tree.root / "f").write_bytes(b"x")
    request = tree.request()
    with (tree.root / "f").open("wb") as file:
        file.truncate(reading.SLACK + 2)
    assert read_one(tree.source(), request)[1].outcome is Outcome.TYPE_CHANGED


def test_a_file_that_grew_does_not_take_the_room_of_the_next(tree, contents):
    (tree.root / "f").write_bytes(b"x")
    (tree.root / "g").write_bytes(b"g" * 100_000)
    requests = [tree.request("f"), tree.request("g")]
    (tree.root / "f").write_bytes(b"y" * (reading.SLACK + 1000))
    batch = tree.source().read(requests)
    assert [r.outcome for r in batch.results] == [Outcome.TYPE_CHANGED, Outcome.OK]
    assert contents(batch.arena, batch.results[1].pieces) == b"g" * 100_000


def test_the_new_time_that_writing_back_may_bring_is_not_a_change(tree, monkeypatch):
    path = tree.root / "f"
    with path.open("wb", buffering=0) as file:
        file.write(b"x")
        monkeypatch.setattr(coherence, "_QUIET_US", -(10**9))
        monkeypatch.setattr(coherence, "write_back", lambda fd: os.utime(path))
        result = read_one(tree.source(), tree.request())[1]
        assert (result.outcome, result.retries) == (Outcome.OK, 0)


def test_a_writable_mapping_is_noticed_though_its_descriptor_is_closed(tree):
    path = tree.root / "f"
    path.write_bytes(bytes(4096))
    fd = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(fd, 4096)
    os.close(fd)
    mapped[:1] = b"x"
    assert read_one(tree.source(), tree.request())[1].outcome is Outcome.FUZZY
    mapped.close()
    assert read_one(tree.source(), tree.request())[1].outcome is Outcome.OK


def test_a_change_during_the_read_makes_it_try_again(tree, monkeypatch, contents):
    path = tree.root / "f"
    path.write_bytes(b"old")
    real = reading.read_fully
    changes = iter([b"new"])

    def read_fully(*arguments):
        count = real(*arguments)
        for data in changes:
            path.write_bytes(data)
            break
        return count

    monkeypatch.setattr(reading, "read_fully", read_fully)
    arena, result = read_one(tree.source(), tree.request())
    assert (result.outcome, result.retries) == (Outcome.OK, 1)
    assert contents(arena, result.pieces) == b"new"
    assert len(arena) == 3


def test_a_file_that_never_rests_is_fuzzy_and_its_size_is_that_of_the_content(
    tree, monkeypatch, contents
):
    path = tree.root / "f"
    path.write_bytes(b"x")
    real = reading.read_fully

    def read_fully(*arguments):
        count = real(*arguments)
        with path.open("ab") as file:
            file.write(b"x")
        return count

    monkeypatch.setattr(reading, "read_fully", read_fully)
    request = tree.request()
    arena, result = read_one(tree.source(), request)
    assert (result.outcome, result.retries) == (Outcome.FUZZY, 2)
    assert contents(arena, result.pieces) == b"xxx"
    assert result.stat.size == 3


def test_a_file_open_for_writing_is_fuzzy_while_it_is_fresh(tree):
    path = tree.root / "f"
    with path.open("wb", buffering=0) as file:
        file.write(b"x")
        assert read_one(tree.source(), tree.request())[1].outcome is Outcome.FUZZY
    assert read_one(tree.source(), tree.request())[1].outcome is Outcome.OK


def test_a_file_open_for_writing_is_clean_when_it_was_left_alone(tree, monkeypatch):
    with (tree.root / "f").open("wb", buffering=0) as file:
        file.write(b"x")
        monkeypatch.setattr(coherence, "_QUIET_US", -(10**9))
        assert read_one(tree.source(), tree.request())[1].outcome is Outcome.OK


def test_reading_does_not_touch_the_access_time(tree):
    path = tree.root / "f"
    path.write_text("x")
    os.utime(path, (1, 1))
    read_one(tree.source(), tree.request())
    assert path.stat().st_atime == 1


def test_an_arena_is_not_used_again_while_it_is_held(tree, contents):
    size = 3 << 20
    for name, byte in (("f", b"a"), ("g", b"b")):
        (tree.root / name).write_bytes(byte * size)
    source = tree.source()
    first = source.read([tree.request("f", source)])
    second = source.read([tree.request("g", source)])
    assert bytes(first.arena[:1]) == b"a"
    assert contents(second.arena, second.results[0].pieces) == b"b" * size
    del first, second
    third = source.read([tree.request("g", source)])
    assert contents(third.arena, third.results[0].pieces) == b"b" * size


def test_no_descriptor_stays_open(tree):
    (tree.root / "f").write_text("x")
    (tree.root / "d").mkdir()
    requests = [
        tree.request("f"),
        tree.request("d"),
        ReadRequest(tree.path + b"/d/gone", tree.request().expected),
    ]
    source = tree.source()
    before = len(os.listdir("/proc/self/fd"))
    source.read(requests)
    source.open_large(requests[0]).close()
    source.open_large(requests[2]).finish()
    assert len(os.listdir("/proc/self/fd")) == before
