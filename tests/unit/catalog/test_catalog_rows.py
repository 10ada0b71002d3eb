"""Rows written and asked for many to a statement: all of them, by few statements."""

import sqlite3

import pytest

from streamd.catalog.db import Catalog
from streamd.catalog.known import Known
from streamd.catalog.rows import ASKED_MAX, filled, insert_rows, marks


@pytest.fixture
def table():
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
    yield made
    made.close()


@pytest.fixture
def catalog(tmp_path):
    made = Catalog(str(tmp_path))
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 64, 255, 256, 257, 599])
def test_all_rows_are_written_in_order(table, count) -> None:
    rows = [(number, b"%d" % number) for number in range(count)]
    insert_rows(table, "INSERT INTO t", rows)
    assert table.execute("SELECT * FROM t ORDER BY a").fetchall() == rows


@pytest.mark.parametrize("count", [0, 1, 2, 17, 255, 256, 257, 599])
def test_everything_is_asked_for_and_nothing_else(table, count) -> None:
    insert_rows(table, "INSERT INTO t", [(number, b"") for number in range(700)])
    asked, found = list(range(count)), []
    for part in filled(asked):
        question = f"SELECT a FROM t WHERE a IN ({marks(len(part))})"
        found += [number for (number,) in table.execute(question, part)]
    assert sorted(found) == asked


def test_there_are_few_shapes_of_questions() -> None:
    shapes = {len(part) for count in range(1, 700) for part in filled(range(count))}
    assert len(shapes) <= 6
    assert max(shapes) == ASKED_MAX


def test_the_places_of_a_run_are_found_in_the_directories_that_are_there(catalog) -> None:
    def work(connection: sqlite3.Connection) -> Known:
        width = len(connection.execute("PRAGMA table_info (node)").fetchall())
        insert_rows(
            connection,
            "INSERT INTO node",
            [
                (fid, 1, *[0] * (width - 5), links, 0, b"v%d" % fid)
                for fid, links in ((5, 1), (7, 2))
            ],
        )
        insert_rows(
            connection,
            "INSERT INTO dirent",
            [(-1, b"root", 5, 2), (5, b"a", 7, 1), (5, b"b", 7, 1)],
        )
        places = [(-1, b"root"), (-1, b"none"), (5, b"a"), (5, b"c"), (6, b"x"), (9, b"new")]
        return Known(connection, [7, 9, 7, 8], places)

    known = catalog.write_now(work)
    assert known.entries == {(-1, b"root"): (5, 2), (5, b"a"): (7, 1)}
    assert known.alive == {5}
    assert (known.versions, known.linked) == ({7: b"v7"}, {7})
