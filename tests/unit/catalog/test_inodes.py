"""Inodes that are remembered: what is recorded is never taken for unknown, and little is asked."""

import sqlite3

import pytest
from unit.pipeline.journaling import Host

from streamd.catalog import inodes as inodes_module
from streamd.catalog.inodes import Inodes, watched
from streamd.catalog.lookup import TreeLookup
from streamd.errors import DiskFull
from streamd.pipeline.findings import Ready


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.catalog.close()


def lookup_of(host, connection: sqlite3.Connection) -> TreeLookup:
    number = host.number()
    inodes = host.catalog.write_now(watched, host.journal.inodes, number)
    return TreeLookup(connection, number, inodes)


def said_by(connection: sqlite3.Connection) -> list[str]:
    said: list[str] = []
    connection.set_trace_callback(said.append)
    return said


def test_a_new_source_is_asked_only_for_inodes_that_were_recorded(host) -> None:
    with host.catalog.reader() as reader:
        lookup, said = lookup_of(host, reader), said_by(reader)
        assert lookup.by_inodes([(1, 5), (1, 6)]) == {}
        assert lookup.by_inode(1, 5) is None
        assert not said
        (intent,) = host.intents(1)
        host.commit(Ready(intents=[intent]))
        place = (intent.stat.dev, intent.stat.ino)
        assert lookup.by_inodes([(1, 5), place])[place].fid == intent.fid
        found = lookup.by_inode(*place)
        assert found is not None
        assert found.fid == intent.fid
        assert len(said) == 2


def test_a_file_that_has_another_inode_now_is_known_by_that(host) -> None:
    with host.catalog.reader() as reader:
        lookup = lookup_of(host, reader)
        (intent,) = host.intents(1)
        host.commit(Ready(intents=[intent]))
        host.commit(Ready(intents=[intent._replace(stat=intent.stat._replace(ino=77))]))
        found = lookup.by_inode(intent.stat.dev, 77)
        assert found is not None
        assert found.fid == intent.fid


def test_a_source_with_files_from_before_is_asked_for_all(host) -> None:
    (intent,) = host.intents(1)
    host.commit(Ready(intents=[intent]))
    host.reopen()
    with host.catalog.reader() as reader:
        found = lookup_of(host, reader).by_inode(intent.stat.dev, intent.stat.ino)
        assert found is not None
        assert not host.journal.inodes.is_watching


def test_a_transaction_that_is_tried_again_is_known(host) -> None:
    with host.catalog.reader() as reader:
        lookup = lookup_of(host, reader)
        (intent,) = host.intents(1)

        def full(connection: sqlite3.Connection) -> None:
            host.journal.commit(connection, [host.entry(Ready(intents=[intent]))])
            raise DiskFull("no space")

        with pytest.raises(DiskFull):
            host.catalog.write_now(full)
        assert lookup.by_inode(intent.stat.dev, intent.stat.ino) is None
        host.commit(Ready(intents=[intent]))
        assert lookup.by_inode(intent.stat.dev, intent.stat.ino) is not None


def test_more_than_is_kept_is_asked_for_always(monkeypatch) -> None:
    monkeypatch.setattr(inodes_module, "KEPT_MAX", 3)
    inodes = Inodes()
    assert inodes.may_hold([9])  # nobody watches
    inodes.watch()
    inodes.add([1, 2, 3])
    assert (inodes.may_hold([4]), inodes.may_hold([4, 3])) == (False, True)
    inodes.add([4])
    assert inodes.may_hold([9])
    inodes.watch()  # what was recorded in between is not known
    assert inodes.may_hold([9])
