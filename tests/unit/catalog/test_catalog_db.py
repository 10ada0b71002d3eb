"""The catalog's database: one transaction at a time, durable, and honest about damage."""

import asyncio
import ctypes
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from vaultbuilder import ManualClock

from streamd.catalog import cuts, objects
from streamd.catalog.db import (
    FILE_NAME,
    Catalog,
    CatalogDamaged,
    get_bytes,
    get_int,
    put_value,
)
from streamd.catalog.journal import JournalHead, load_head, next_fid_floor, store_head
from streamd.catalog.lookup import NodeRow
from streamd.catalog.objects import ObjectState
from streamd.catalog.walk import WalkLookup
from streamd.errors import DiskFull, StreamdError
from streamd.maintenance.evict import LocalCopy
from streamd.model.entry import FileVersion
from streamd.model.host import HostStat
from streamd.model.ids import FID_EPOCH_SHIFT
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName


@pytest.fixture
def catalog(tmp_path):
    made = Catalog(str(tmp_path))
    yield made
    made.close()


@pytest.mark.asyncio
async def test_pages_that_are_kept_are_given_back(catalog) -> None:
    used = ctypes.CDLL("libsqlite3.so.0")["sqlite3_memory_used"]
    used.restype = ctypes.c_int64
    await catalog.write(
        lambda connection: [put_value(connection, str(n), bytes(3000)) for n in range(1000)]
    )
    before = used()
    await catalog.let_go()
    assert used() < before - 2_500_000
    assert await catalog.read(get_bytes, "999") == bytes(3000)


def test_what_was_committed_is_there_after_opening_again(tmp_path) -> None:
    first = Catalog(str(tmp_path))
    first.write_now(put_value, "n", 7)
    first.write_now(put_value, "b", b"\x00\xff")
    first.close()
    second = Catalog(str(tmp_path))
    assert second.write_now(get_int, "n") == 7
    assert second.write_now(get_bytes, "b") == b"\x00\xff"
    assert second.write_now(get_int, "other", 5) == 5
    second.close()


def test_a_transaction_that_raises_leaves_nothing(catalog) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        put_value(connection, "n", 7)
        raise ValueError

    with pytest.raises(ValueError):
        catalog.write_now(failing)
    assert catalog.write_now(get_int, "n") == 0


def test_readers_see_the_last_commit_and_cannot_write(catalog) -> None:
    with catalog.reader() as reader:
        assert get_int(reader, "n") == 0
        catalog.write_now(put_value, "n", 7)
        assert get_int(reader, "n") == 7
        with pytest.raises(sqlite3.OperationalError):
            put_value(reader, "n", 8)


@pytest.mark.parametrize(
    "content", [b"this is not a database at all" * 100, b"SQLite format 3\x00"]
)
def test_a_damaged_file_is_said_to_be_damaged(tmp_path, content) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CatalogDamaged):
        Catalog(str(tmp_path))


def test_another_schema_is_not_touched(tmp_path) -> None:
    Catalog(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CatalogDamaged):
        Catalog(str(tmp_path))


def test_a_catalog_of_schema_3_goes_on_with_what_it_knows(tmp_path) -> None:
    """From before generations were remembered: nothing is lost, nothing has to be read again."""
    Catalog(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("ALTER TABLE node DROP COLUMN generation")
        db.execute("DROP TABLE cuts")
        stat = HostStat(1, 0o644, 0, 0, 5, 10, 11, 2049, 7, 1, 0)
        version = FileVersion(
            type=1, mode=0o644, uid=0, gid=0, user=b"", group=b"", mtime_ns=10, ctime_ns=11,
            btime_ns=3, size=5, nlink=1, rdev=0, target=b"", xattrs=(), profile=1, levels=0,
            content=(), fhash=b"", flags=0,
        )  # fmt: skip
        encoded = msgspec.msgpack.encode(version)
        db.execute("INSERT INTO node VALUES (9,1,?,?,?,?,?,?,?,?,?,?,?,1,0,?)", (*stat, encoded))
        db.execute("INSERT INTO dirent VALUES (-1, x'61', 9, 1)")
        db.execute("PRAGMA user_version = 3")
    db.close()
    for _ in range(2):  # and once it is upgraded, it is as others are
        catalog = Catalog(str(tmp_path))
        with catalog.reader() as reader:
            lookup = WalkLookup(reader, 1)
            row = NodeRow(9, stat, 0, generation=0)
            assert lookup.children(-1) == lookup.between(-1, b"", None) == {b"a": row}
            assert lookup.by_inode(2049, 7) == row
            assert (lookup.birth_of(9), lookup.birth_of(10)) == (3, 0)
        catalog.close()


def test_a_catalog_of_schema_4_has_room_for_cuts_afterwards(tmp_path) -> None:
    Catalog(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("DROP TABLE cuts")
        db.execute("PRAGMA user_version = 4")
    db.close()
    catalog = Catalog(str(tmp_path))
    catalog.write_now(cuts.remember, cuts.Cuts(b"key", b"known"))
    catalog.close()


def test_other_mistakes_are_errors_of_ours(catalog) -> None:
    with pytest.raises(StreamdError):
        catalog.write_now(lambda connection: connection.execute("SELECT nonsense"))


@pytest.mark.asyncio
async def test_a_full_disk_is_waited_out(catalog, monkeypatch) -> None:
    monkeypatch.setattr("streamd.catalog.db._FULL_RETRY_SECONDS", 0.001)
    attempts = []

    def work(connection: sqlite3.Connection) -> int:
        attempts.append(1)
        put_value(connection, "n", len(attempts))
        if len(attempts) < 3:
            raise DiskFull("full", path="/")
        return 5

    assert await catalog.write(work) == 5
    assert await catalog.read(get_int, "n") == 3


@pytest.mark.asyncio
async def test_transactions_run_one_after_the_other(catalog) -> None:
    def add(connection: sqlite3.Connection) -> None:
        put_value(connection, "n", get_int(connection, "n") + 1)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(catalog.write(add), name=str(number))
    assert await catalog.read(get_int, "n") == 50


def test_the_head_is_what_was_stored(catalog) -> None:
    assert catalog.write_now(load_head).epoch == 0
    head = JournalHead(3, 9, b"h" * 32, 12345, is_sealed=True)
    catalog.write_now(store_head, head)
    assert catalog.write_now(load_head) == head
    assert head.next_position == (3, 9)


def test_no_number_of_a_file_is_given_out_twice(catalog) -> None:
    floors = [catalog.write_now(next_fid_floor) for _ in range(3)]
    assert floors == [n << FID_EPOCH_SHIFT for n in (1, 2, 3)]


def test_the_same_object_again_is_the_same_number(catalog) -> None:
    def add(connection: sqlite3.Connection) -> int:
        return objects.add(
            connection, name="p", kind="P", size=1, now_us=1, state=ObjectState.LOCAL
        )

    assert catalog.write_now(add) == catalog.write_now(add)


def test_an_object_never_falls_back_in_its_state(catalog) -> None:
    number = catalog.write_now(
        objects.add, name="j", kind="J", size=1, now_us=1, state=ObjectState.VAULT
    )
    catalog.write_now(objects.mark_put, number, ObjectState.LOCAL)
    assert catalog.write_now(objects.pending_uploads, 9, packs=False) == []


def test_chunks_move_with_what_holds_them(catalog) -> None:
    ids = [n.to_bytes(2, "big") * 16 for n in range(600)]  # more than fit into one question
    catalog.write_now(objects.add_chunks, 1, ids)
    catalog.write_now(objects.move_chunks, [1], {ids[0]: 2})
    assert catalog.write_now(objects.find_chunks, ids) == {ids[0]: 2}


# -- eviction --------------------------------------------------------------------------------------


async def expiring(catalog, rows, *, keep_seconds: int, now_us: int):
    """Register (name, kind, size, put_us, state), expire, and return what is left in the copy."""
    local = MemoryBlobStore(ManualClock())
    for name, kind, size, put_us, state in rows:
        await local.put(BlobName(name), bytes(size))
        await catalog.write(
            objects.add, name=name, kind=kind, size=size, now_us=put_us, state=state
        )
    copy = LocalCopy(catalog, local, "/")
    result = await copy.expire(keep_seconds=keep_seconds, now_us=now_us)
    return copy, result, {info.name async for info in local.scan("")}


@pytest.mark.asyncio
async def test_only_what_the_container_has_leaves_the_copy(catalog) -> None:
    rows = [
        ("a", "P", 10, 1, ObjectState.VAULT),
        ("b", "P", 10, 1, ObjectState.LOCAL),
        ("c", "J", 10, 1, ObjectState.VAULT),
        ("d", "J", 10, 1, ObjectState.UNPUT),
        ("e", "C", 10, 1, ObjectState.VAULT),
    ]
    copy, result, left = await expiring(catalog, rows, keep_seconds=0, now_us=10**12)
    assert left == {"b", "d", "e"}
    assert result == (2, 20)
    room = await copy.room()
    assert (room.copy_bytes, room.evictable_bytes) == (30, 0)
    assert await copy.is_ahead()
    assert await copy.evict(1) == 0


@pytest.mark.asyncio
async def test_the_young_stay_and_the_oldest_go_first_when_it_is_too_large(catalog) -> None:
    rows = [(f"p{n}", "P", 10, n * 10**6, ObjectState.VAULT) for n in range(10)]
    copy, result, left = await expiring(catalog, rows, keep_seconds=5, now_us=9 * 10**6)
    assert left == {f"p{n}" for n in range(5, 10)}
    assert result[0] == 5
    assert await copy.evict(21) == 30
    room = await copy.room()
    assert (room.copy_bytes, room.evictable_bytes) == (20, 20)
    assert not await copy.is_ahead()
    assert await copy.evict(-1) == 0


def test_a_reader_that_a_thread_is_using_is_closed_by_the_thread(catalog) -> None:
    lookup = WalkLookup(catalog.open_reader(), 1)
    begun, goes_on = threading.Event(), threading.Event()

    def work() -> dict[bytes, NodeRow]:
        begun.set()
        assert goes_on.wait(30)
        return lookup.children(-1)  # libsqlite3 crashes here if the connection is gone

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lookup.during, work)
        assert begun.wait(30)
        lookup.close()
        lookup.close()
        goes_on.set()
        assert future.result(30) == {}
    with pytest.raises(sqlite3.ProgrammingError):
        lookup.children(-1)


def test_a_reader_that_nobody_uses_is_closed_at_once(catalog) -> None:
    lookup = WalkLookup(catalog.open_reader(), 1)
    assert lookup.during(lambda: lookup.children(-1)) == {}
    lookup.close()
    with pytest.raises(sqlite3.ProgrammingError):
        lookup.children(-1)
