"""A directory goes with everything below it, however much that is, and never all at once in memory."""

import itertools
import sqlite3

import pytest

from streamd.catalog import tree
from streamd.catalog.db import Catalog
from streamd.catalog.tree import Intent, SourceState, TreeWriter, load_source
from streamd.format import batch
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.model.ids import SourceId
from streamd.model.record import Op


def stat(kind: EntryType, ino: int) -> HostStat:
    return HostStat(int(kind), 0o755, 0, 0, 0, 1, 1, 1, ino, 1, 0)


def replace(
    connection: sqlite3.Connection, state: SourceState, *others: Intent
) -> set[tuple[int, bytes]]:
    writer = TreeWriter(connection, state)
    for other in others:
        writer.apply([other])
    return writer.finish()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_large_directory_goes_page_by_page_and_children_first(tmp_path, monkeypatch, how) -> None:
    monkeypatch.setattr(tree, "CHILDREN_MAX", 7)
    catalog, fids = Catalog(str(tmp_path)), itertools.count(100)
    state = catalog.write_now(load_source, "s", SourceId(bytes(16)))

    def intent(parent: int, name: bytes, kind: EntryType) -> Intent:
        fid = next(fids)
        return Intent(parent, name, fid, stat(kind, fid), b"version", again=False, is_fresh=True)

    top = intent(-state.number, b"/r", EntryType.DIRECTORY)
    inner = intent(top.fid, b"inner", EntryType.DIRECTORY)
    files = [intent(top.fid, b"f%d" % n, EntryType.REGULAR) for n in range(50)]
    files += [intent(inner.fid, b"g%d" % n, EntryType.REGULAR) for n in range(50)]
    catalog.write_now(lambda c: TreeWriter(c, state).apply([top, inner, *files]))
    assert state.key_count == 2 * 102
    state.records.clear()
    if how == "removed":
        catalog.write_now(lambda c: TreeWriter(c, state).remove(-state.number, b"/r"))
        assert (state.key_count, state.total % (1 << 256)) == (0, 0)
    else:
        other = intent(-state.number, b"/r", EntryType.REGULAR)
        catalog.write_now(replace, state, other)
        assert state.key_count == 2
    deleted = [key for op, key, _ in state.records if op == Op.DEL]
    assert len(deleted) == len(set(deleted)) == 2 * 102
    with catalog.reader() as connection:
        left = connection.execute("SELECT count(*) FROM dirent").fetchone()
    assert left == (0 if how == "removed" else 1,)
    catalog.close()


def test_of_what_goes_with_a_replaced_directory_only_what_was_just_recorded_is_told(tmp_path):
    """It may hold millions of entries; what was recorded in it just now needs another look."""
    catalog = Catalog(str(tmp_path))
    state = catalog.write_now(load_source, "s", SourceId(bytes(16)))

    def intent(parent: int, name: bytes, kind: EntryType, fid: int) -> Intent:
        return Intent(parent, name, fid, stat(kind, fid), b"version", again=False, is_fresh=True)

    top = intent(-state.number, b"/r", EntryType.DIRECTORY, 100)
    files = [intent(100, b"f%d" % n, EntryType.REGULAR, 101 + n) for n in range(5000)]
    catalog.write_now(lambda c: TreeWriter(c, state).apply([top, *files]))
    late = intent(100, b"late", EntryType.REGULAR, 9000)
    other = intent(-state.number, b"/r", EntryType.REGULAR, 9001)
    assert catalog.write_now(replace, state, late, other) == {(100, b"late")}
    again = intent(-state.number, b"/r", EntryType.REGULAR, 9001)
    assert catalog.write_now(replace, state, again) == set()
    catalog.close()


@pytest.mark.parametrize("is_at_once", [True, False])
def test_files_that_new_ones_replaced_cost_no_look_at_the_others(tmp_path, is_at_once):
    """An editor replaces a file when it saves it; a batch may be full of such."""
    catalog, count = Catalog(str(tmp_path)), 60
    state = catalog.write_now(load_source, "s", SourceId(bytes(16)))

    def intent(
        parent: int, name: bytes, kind: EntryType, fid: int, body: bytes = b"version"
    ) -> Intent:
        return Intent(parent, name, fid, stat(kind, fid), body, again=False, is_fresh=True)

    top = intent(-state.number, b"/r", EntryType.DIRECTORY, 100)
    files = [intent(100, b"f%02d" % n, EntryType.REGULAR, 101 + n) for n in range(count)]
    catalog.write_now(lambda c: TreeWriter(c, state).apply([top, *files]))
    state.records.clear()
    others = [
        intent(100, b"f%02d" % n, EntryType.REGULAR, 501 + n, b"another") for n in range(count)
    ]
    # one new file has the place of another new one, and one that was replaced has a place elsewhere
    others += [others[7]._replace(fid=900), files[9]._replace(name=b"kept", is_fresh=False)]
    asked: list[str] = []

    def work(connection: sqlite3.Connection) -> set[tuple[int, bytes]]:
        connection.set_trace_callback(asked.append)
        writer = TreeWriter(connection, state)
        for part in [others] if is_at_once else [[other] for other in others]:
            writer.apply(part)
        left = writer.finish()
        connection.set_trace_callback(None)
        return left

    assert catalog.write_now(work) == set()
    if is_at_once:
        assert 1 <= sum("FROM asked CROSS JOIN dirent" in each for each in asked) <= 4
    assert state.key_count == 2 * (count + 2)
    with catalog.reader() as connection:
        rows = dict(connection.execute("SELECT name, fid FROM dirent WHERE parent = 100"))
        alive = {fid for (fid,) in connection.execute("SELECT fid FROM node WHERE links = 1")}
    expected = {b"f%02d" % n: 501 + n for n in range(count)} | {b"f07": 900, b"kept": 110}
    assert rows == expected
    assert alive == {100, *expected.values()}
    gone = [key for op, key, _ in state.records if op == Op.DEL]
    assert len(gone) == 2 * (count + 1) - 1  # one of the replaced has a name elsewhere
    keys = keys_of([top, *files], state.number)
    for op, key, value in state.records:
        keys.pop(key, None) if op == Op.DEL else keys.update({key: value})
    assert batch.sum_rows(list(keys.items())) == state.total % (1 << 256)
    catalog.close()


def keys_of(intents: list[Intent], source: int) -> dict[bytes, bytes]:
    """Return the keys that new files set."""
    new = [
        (
            1 if each.parent == -source else each.parent,
            each.name,
            each.fid,
            each.stat.type,
            each.version,
        )
        for each in intents
    ]
    return {key: value for _, key, value in batch.new_records(int(Op.SET), new)}
