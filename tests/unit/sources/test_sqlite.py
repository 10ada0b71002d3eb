"""SQLite databases in WAL mode are captured as a whole, and never as a plain file by accident."""

import os
import sqlite3
import threading

import pytest

from streamd.sources.filesystem.sqlite import SqliteCopier, is_wal_database
from streamd.sources.port import Outcome, ReadRequest


@pytest.fixture
def database(tree):
    """A connection that keeps its -wal full: nothing is checkpointed."""
    connection = sqlite3.connect(tree.root / "f", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE t (n INTEGER, text TEXT)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 100) for n in range(100)])
    yield connection
    connection.close()


@pytest.fixture
def source(tree, tmp_path):
    (tmp_path / "scratch").mkdir()
    return tree.source(sqlite_copier=SqliteCopier(str(tmp_path / "scratch")))


def restored(tmp_path, arena, results, contents):
    """Write what was captured beside each other, and open it."""
    there = tmp_path / "restored"
    there.mkdir()
    for name, result in results.items():
        (there / name).write_bytes(contents(arena, result.pieces))
        assert result.content_size == (there / name).stat().st_size
    return sqlite3.connect(there / "f")


def requests(tree, source, names=("f", "f-wal", "f-shm")):
    return [tree.request(name, source) for name in names]


def test_what_is_only_in_the_wal_is_captured_and_opens_consistent(
    tree, database, source, contents, tmp_path
):
    assert (tree.root / "f").stat().st_size < (tree.root / "f-wal").stat().st_size
    batch = source.read(requests(tree, source))
    assert [result.outcome for result in batch.results] == [Outcome.OK] * 3
    assert all(result.is_derived for result in batch.results)
    assert [result.content_size for result in batch.results[1:]] == [0, 0]
    names = dict(zip(("f", "f-wal", "f-shm"), batch.results, strict=True))
    with restored(tmp_path, batch.arena, names, contents) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (100,)
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    copy.close()
    assert os.listdir(tmp_path / "scratch") == []


@pytest.mark.parametrize("state", ["removed", "a directory"])
def test_where_the_shm_cannot_be_written_both_files_are_copied_and_put_together(
    tree, database, source, contents, tmp_path, state
):
    (tree.root / "f-shm").unlink()
    if state == "a directory":
        (tree.root / "f-shm").mkdir()
    batch = source.read([tree.request("f", source)])
    assert batch.results[0].outcome is Outcome.OK, batch.results[0].detail
    with restored(tmp_path, batch.arena, {"f": batch.results[0]}, contents) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (100,)
    copy.close()
    assert os.listdir(tmp_path / "scratch") == []
    assert sorted(os.listdir(tree.root)) == ["f"] + ["f-shm"] * (state != "removed") + ["f-wal"]


def test_a_large_database_is_captured_the_same_way(tree, database, source, contents, tmp_path):
    database.execute("BEGIN")
    database.executemany("INSERT INTO t VALUES (?, ?)", [(n, "y" * 1000) for n in range(6000)])
    database.execute("COMMIT")
    large = source.open_large(tree.request("f", source))
    data = b""
    while (part := large.next()) is not None:
        data += contents(*part)
    result = large.finish()
    assert (result.outcome, result.is_derived, result.content_size) == (Outcome.OK, True, len(data))
    (tmp_path / "copy").write_bytes(data)
    with sqlite3.connect(tmp_path / "copy") as copy:
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (6100,)
    copy.close()
    side = source.open_large(tree.request("f-wal", source))
    assert side.next() is None
    ended = side.finish()
    assert (ended.outcome, ended.content_size, ended.is_derived) == (Outcome.OK, 0, True)


def test_a_change_of_the_wal_is_a_change_of_the_database(tree, database, source):
    before = tree.request("f", source).expected
    result = source.read(requests(tree, source)).results[0]
    assert result.stat == before  # captured, it is not looked at again
    database.execute("INSERT INTO t VALUES (1, 'z')")
    partial = source.examine(tree.path, [b"f"])
    assert set(partial.entries) == {b"f"}
    whole = source.examine(tree.path, None)
    assert partial.entries[b"f"] == whole.entries[b"f"] != before


def test_ten_copies_under_a_writer_are_all_consistent(tree, database, source, contents, tmp_path):
    """Each row is written with its double in one transaction."""
    stop = threading.Event()

    def write():
        connection = sqlite3.connect(tree.root / "f", isolation_level=None, timeout=10)
        number = 1000
        while not stop.is_set():
            number += 1
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO t VALUES (?, 'one')", (number,))
                connection.execute("INSERT INTO t VALUES (?, 'two')", (number,))
            if number % 50 == 0:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    try:
        for number in range(10):
            batch = source.read([tree.request("f", source)])
            (result,) = batch.results
            if result.outcome is Outcome.TYPE_CHANGED:  # it grew: looked at again
                continue
            assert result.outcome is not Outcome.SQLITE_FAILED, result.detail
            if not result.is_derived:  # just then there was no -wal
                continue
            path = tmp_path / f"copy{number}"
            path.write_bytes(contents(batch.arena, result.pieces))
            with sqlite3.connect(path) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                odd = "SELECT n FROM t WHERE n > 1000 GROUP BY n HAVING count(*) != 2"
                assert copy.execute(odd).fetchall() == []
            copy.close()
            seen += 1
    finally:
        stop.set()
        writer.join()
    assert seen >= 3


@pytest.mark.parametrize("fault", ["no room for a copy", "SQLite refuses"])
def test_a_database_that_cannot_be_copied_is_a_problem_and_no_plain_file(
    tree, database, source, tmp_path, fault
):
    if fault == "SQLite refuses":
        (tree.root / "f-wal").write_bytes(b"\xff" * 100)
        (tree.root / "f").write_bytes((tree.root / "f").read_bytes()[:20] + b"\xff" * 4076)
    else:
        (tmp_path / "scratch").rmdir()
    (result,) = source.read([tree.request("f", source)]).results
    assert result.outcome is Outcome.SQLITE_FAILED
    assert result.detail
    assert not result.pieces


def test_without_the_copier_it_is_a_file_like_others(tree, database, contents):
    batch = tree.source().read([tree.request("f"), tree.request("f-wal")])
    for name, result in zip(("f", "f-wal"), batch.results, strict=True):
        assert contents(batch.arena, result.pieces) == (tree.root / name).read_bytes()
        assert not result.is_derived


def test_a_file_that_only_looks_the_part_stays_a_file(tree, source, contents):
    (tree.root / "f").write_bytes(b"text")
    (tree.root / "f-wal").write_bytes(b"also text")
    batch = source.read(requests(tree, source, ("f", "f-wal")))
    assert [contents(batch.arena, r.pieces) for r in batch.results] == [b"text", b"also text"]
    assert batch.results[0].stat == tree.request("f", source).expected
    assert batch.results[0].content_size == 4


def test_a_link_in_the_place_of_the_database_is_not_followed(tree, database, source, tmp_path):
    request = tree.request("f", source)
    other = tmp_path / "other"
    sqlite3.connect(other).close()
    os.rename(tree.root / "f", tree.root / "g")
    os.symlink(other, tree.root / "f")
    (result,) = source.read([ReadRequest(request.path, request.expected)]).results
    assert result.outcome is Outcome.TYPE_CHANGED


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"SQLite format 3\0\x10\0\x02\x02", True),
        (b"SQLite format 3\0\x10\0\x01\x01", False),
        (b"SQLite format 3\0\x10\0\x02", False),
        (b"SQLite format 4\0\x10\0\x02\x02", False),
        (b"", False),
    ],
)
def test_the_header_says_the_mode(header, expected):
    assert is_wal_database(header) is expected


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "sqlite-copy-x").write_bytes(b"1")
    (tmp_path / "catalog.sqlite").write_bytes(b"1")
    SqliteCopier(str(tmp_path))
    assert os.listdir(tmp_path) == ["catalog.sqlite"]
