"""Make the catalog again from the vault.

The tree is the state at the journal's end; what the host has changed since is found by the full
scan that follows, for every file is looked at again (its inode is unknown). The new catalog is
built beside its place and moved there when it is whole, so a crash leaves nothing half-made.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from streamd.catalog import objects
from streamd.catalog.db import FILE_NAME, Catalog, put_value
from streamd.catalog.journal import JournalHead, begin_blind, load_head, store_head
from streamd.catalog.objects import ObjectState
from streamd.catalog.suspicion import note
from streamd.effects import Clock
from streamd.errors import NotFound, VaultDamaged
from streamd.format import checkpoint, layout, wire
from streamd.format.checkpoint import Row
from streamd.format.control import decode_epoch
from streamd.format.envelope import Kind
from streamd.format.keys import Role
from streamd.format.segment import FIRST_PREVIOUS, Segment
from streamd.maintenance.checkpoint_due import CHECKPOINT_WANTED
from streamd.maintenance.generations import read_doomed
from streamd.maintenance.points import open_incident
from streamd.model.entry import Dirent, FileVersion
from streamd.model.ids import FID_EPOCH_SHIFT, ROOT_FID
from streamd.model.record import SOURCE_KEY, Op, parse_dirent_key, parse_version_key
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobInfo, BlobName, BlobStore
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.index_reader import IndexGeneration
from streamd.vault.journal_reader import JournalReader, SegmentRow
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.state_reader import SourceSummary, StateReader
from streamd.vault.tree_state import TreeState
from streamd.vault.vault import Vault

LATEST_US: Final = (1 << 63) - 1
_BUILDING: Final = "catalog.rebuilding"
_BATCH: Final = 10_000
_LOOK_BACK: Final = 64  # unreadable segments at the journal's end that are passed over
_LOG: Final = get_logger("rebuild")
_CHUNK_BATCH: Final = 100_000  # chunks in one transaction
_FID_MARGIN: Final = 1024  # generations of fids that collected history may have used
_DIRENT: Final = msgspec.msgpack.Decoder(Dirent)
_VERSION: Final = msgspec.msgpack.Decoder(FileVersion)
_KINDS: Final = {
    "p": Kind.PACK,
    "j": Kind.SEGMENT,
    "c": Kind.CHECKPOINT,
    "e": Kind.EPOCH,
    "h": Kind.HISTORY,
    "x": Kind.INDEX,
}


class RebuildReport(msgspec.Struct, frozen=True):
    """What the new catalog holds."""

    sources: int
    files: int
    objects: int
    chunks: int


async def rebuild(
    vault: Vault,
    directory: str,
    *,
    clock: Clock,
    remote: BlobStore | None = None,
    local: BlobStore | None = None,
) -> RebuildReport:
    """Write a new catalog into `directory`, where nobody may have one open.

    `remote` is the vault of record if `local` is only the copy in front of it. Raises VaultDamaged
    if the journal's end cannot be read. A host that may not read the vault gets everything but the
    tree, see `_run_blind`.
    """
    del local
    building = os.path.join(directory, _BUILDING)
    await in_thread(partial(_fresh_directory, building))
    catalog = Catalog(building)
    try:
        report = await _Rebuild(vault, catalog, remote, clock).run()
    finally:
        await catalog.aclose()
    await in_thread(partial(_move_in, building, directory))
    return report


def _fresh_directory(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path, mode=0o700)


def _move_in(building: str, directory: str) -> None:
    """Put the new file into its place; what an old one left beside it must be gone by then."""
    for suffix in ("-wal", "-shm"):
        path = os.path.join(directory, FILE_NAME + suffix)
        if os.path.exists(path):
            os.unlink(path)
    os.replace(os.path.join(building, FILE_NAME), os.path.join(directory, FILE_NAME))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(building, ignore_errors=True)


class _Rebuild:
    """Fills a fresh catalog."""

    def __init__(
        self, vault: Vault, catalog: Catalog, remote: BlobStore | None, clock: Clock
    ) -> None:
        self._vault = vault
        self._catalog = catalog
        self._remote = remote
        self._clock = clock
        self._reader = StateReader(vault)
        self._numbers: dict[str, int] = {}
        self._fid_generation = 0
        self._files = 0

    async def run(self) -> RebuildReport:
        """Fill it."""
        await self._fill_objects()
        chunk_count = await self._fill_chunks()
        if not self._vault.keys.host.is_full:
            return await self._run_blind(chunk_count)
        summaries = await self._reader.sources()
        heads, rows = await self._reader.heads(), await self._reader.checkpoints()
        ids = {source for head in heads for source in head.sources} | {row.source for row in rows}
        is_whole = len(ids) == len(summaries)
        for summary in summaries:
            is_whole = await self._fill_source(summary) and is_whole
        await self._fill_head()
        await self._raise_fids()
        if not is_whole:  # what is damaged is begun anew, like on a host that may not read it
            head = await self._catalog.read(load_head)
            await self._catalog.write(begin_blind, head.last_us)
            await self._catalog.write(put_value, CHECKPOINT_WANTED, 1)
        return RebuildReport(len(summaries), self._files, len(self._numbers), chunk_count)

    async def _run_blind(self, chunk_count: int) -> RebuildReport:
        """Without private keys: the tree is captured again, and its content found to be there.

        The first commit of each source tells the journal to begin it anew, so fids of before can
        not meet those of after.
        """
        await self._fill_head()
        await self._catalog.write(put_value, "fid_generation", self._fid_generation + _FID_MARGIN)
        head = await self._catalog.read(load_head)
        await self._catalog.write(begin_blind, head.last_us)
        return RebuildReport(0, 0, len(self._numbers), chunk_count)

    # -- objects ---------------------------------------------------------------------------------

    async def _fill_objects(self) -> None:
        prefix = layout.domain_prefix(self._vault.keys.domain)
        doomed = await read_doomed(self._vault)
        there = [info async for info in self._vault.store.scan(prefix) if info.name not in doomed]
        arrived = {info.name for info in there}
        if self._remote is not None:
            arrived = {info.name async for info in self._remote.scan(prefix)}
        there.sort(key=_upload_order)
        self._numbers = await self._catalog.write(self._add_objects, there, arrived)

    def _add_objects(
        self, connection: sqlite3.Connection, infos: Sequence[BlobInfo], arrived: set[BlobName]
    ) -> dict[str, int]:
        numbers: dict[str, int] = {}
        waiting: list[int] = []  # packs that are only here: what refers to them comes after them
        for info in infos:
            kind = _kind_of(info.name)
            has_arrived = info.name in arrived
            needs: Sequence[int] = ()
            if not has_arrived and kind is not Kind.PACK:
                needs, waiting = waiting, []  # these are uploaded one by one: the first one waits
            numbers[info.name] = objects.add(
                connection,
                name=info.name,
                kind=kind,
                size=info.size_bytes,
                now_us=info.modified_us,
                state=ObjectState.VAULT if has_arrived else ObjectState.LOCAL,
                needs=needs,
            )
            if not has_arrived and kind is Kind.PACK:
                waiting.append(numbers[info.name])
        return numbers

    async def _fill_chunks(self) -> int:
        """Take chunks from the newest index, and from the tables of what it does not cover."""
        reader = ChunkReader(self._vault)
        covered = await self._fill_from_index(await reader.index())
        held: list[tuple[int, list[bytes]]] = []
        count = 0
        async for holder in reader.holders(without=covered):
            number = self._numbers.get(holder.name)
            if number is not None:
                ids = holder.frames.table.id_list()
                held.append((number, ids))
                count += len(ids)
            if count >= _CHUNK_BATCH:
                await self._catalog.write(_add_chunks, held)
                held, count = [], 0
        await self._catalog.write(_add_chunks, held)
        return await self._catalog.read(_count_chunks)

    async def _fill_from_index(self, index: IndexGeneration | None) -> set[str]:
        """Take the chunks of an index; return the objects whose tables need not be read.

        If one that it knows is gone, it is of no use: another may hold that one's chunks, too.
        """
        if index is None:
            return set()
        numbers = [self._numbers.get(name) for name in index.objects()]
        if None in numbers:
            return set()
        try:
            async for shard in index.shards():
                rows = [(chunk, numbers[place]) for chunk, place in shard.rows()]
                await self._catalog.write(_insert_chunks, rows)
        except (*OBJECT_FAULTS, IndexError) as error:
            _LOG.warning("index-unusable", name=index.name, what=str(error))
            return set()
        return {str(name) for name in index.objects()}

    # -- sources ---------------------------------------------------------------------------------

    async def _fill_source(self, summary: SourceSummary) -> bool:
        """Fill the tree of a source; False if its state cannot be had whole."""
        try:
            state = await self._reader.state_at(summary.id, LATEST_US)
        except (VaultDamaged, NotFound) as error:
            _LOG.error("source-begins-anew", source=summary.info.name, what=str(error))
            return False
        with state:
            if state.damage:
                worst = state.damage[0]
                what = f"{worst.name}: {worst.what}"
                _LOG.error("source-begins-anew", source=summary.info.name, what=what)
                return False
            self._files += await self._catalog.write(_fill_tree, summary, state)
        marks = await self._reader.marks(summary.id)
        if (incident := open_incident(mark for _, mark in marks)) is not None:
            await self._catalog.write(note, summary.info.name, incident)
        return True

    # -- head ------------------------------------------------------------------------------------

    async def _fill_head(self) -> None:
        journal = JournalReader(self._vault, self._vault.keys.writer)
        rows = await journal.list_segments()
        head = JournalHead(0, 0, FIRST_PREVIOUS, 0, is_sealed=False)
        last = await _last_readable(journal, rows)
        if last is not None:
            position = last.position
            is_sealed = self._is_sealed(last)
            head = JournalHead(
                position.epoch, position.seq + 1, last.hash, last.end_us, is_sealed=is_sealed
            )
        if rows and (last is None or last.position != rows[-1].position):
            # Nobody can say what stands there: this epoch is over, and its time is at most now.
            end = rows[-1].position
            _LOG.error("journal-damaged", name=rows[-1].name, remedy="a new epoch begins")
            now_us = max(head.last_us, self._clock.now_us())
            head = JournalHead(end.epoch, end.seq + 1, head.hash, now_us, is_sealed=True)
        head = await self._beyond_epochs(head)
        self._fid_generation = max(self._fid_generation, head.epoch)
        await self._catalog.write(store_head, head)

    def _is_sealed(self, last: Segment) -> bool:
        """Say whether an epoch ended in good order; a second SEAL does no harm."""
        if not self._vault.keys.host.is_full:
            return False
        records = last.records(self._vault.keys.secret_for)
        return bool(records) and records[-1].op == Op.SEAL

    async def _beyond_epochs(self, head: JournalHead) -> JournalHead:
        """Return the head if an epoch was begun that has no segment yet."""
        keys = self._vault.keys
        names = [
            info.name
            async for info in self._vault.store.scan(layout.epoch_prefix(keys.domain, keys.writer))
            if (layout.parse_epoch_name(info.name) or 0) > head.epoch
        ]
        if not names:
            return head
        newest = layout.parse_epoch_name(names[-1]) or 0
        try:
            data = await self._vault.store.get(names[-1])
            epoch = decode_epoch(data, self._vault.verify_keys[keys.writer])
        except OBJECT_FAULTS:
            return JournalHead(newest, 0, head.hash, head.last_us, is_sealed=True)
        at_us = max(head.last_us, epoch.created_us)
        return JournalHead(newest, 0, epoch.previous_hash, at_us, is_sealed=False)

    async def _raise_fids(self) -> None:
        """Never give out a fid that anything in the vault uses."""
        journal = JournalReader(self._vault, self._vault.keys.writer)
        highest = await self._catalog.read(_highest_fid)
        async for _, records in journal.records():
            fids = [parse_version_key(record.key) or 0 for record in records]
            highest = max(highest, *fids, 0)
        for row in await self._reader.checkpoints():
            root = await self._reader.read_checkpoint(row.name)
            last = [page.id for page in root.pages[-2:]]  # the highest keys are versions
            pages = await self._reader.chunks.read_all(last, Role.META)
            for body in pages.values():
                keys = [key for key, _ in checkpoint.decode_page(body)]
                highest = max(highest, *(parse_version_key(key) or 0 for key in keys), 0)
        generation = max(self._fid_generation, highest >> FID_EPOCH_SHIFT) + _FID_MARGIN
        await self._catalog.write(put_value, "fid_generation", generation)


async def _last_readable(journal: JournalReader, rows: Sequence[SegmentRow]) -> Segment | None:
    """Return the newest segment that authenticates, not far from the end."""
    for row in list(reversed(rows))[:_LOOK_BACK]:
        try:
            return await journal.read_segment(row)
        except OBJECT_FAULTS:
            continue
    return None


def _kind_of(name: str) -> Kind:
    letter = name.split("/")[2]
    if letter == "g":
        return Kind.FINAL if name.endswith(".fin") else Kind.CONDEMN
    return _KINDS.get(letter, Kind.INDEX)


def _upload_order(info: BlobInfo) -> tuple[int, int, str]:
    """Packs first, then the journal with its epochs as it was written, then the others."""
    parsed = layout.parse_segment_name(info.name)
    if parsed is not None:
        return 1, parsed.epoch, f"j{parsed.seq:012x}"
    epoch = layout.parse_epoch_name(info.name)
    if epoch is not None:
        return 1, epoch, "e"
    if _kind_of(info.name) is Kind.PACK:
        return 0, 0, info.name
    return 2, info.modified_us, info.name


def _insert_chunks(
    connection: sqlite3.Connection, rows: Sequence[tuple[bytes, int | None]]
) -> None:
    connection.executemany("INSERT OR IGNORE INTO chunk VALUES (?, ?)", rows)


def _add_chunks(connection: sqlite3.Connection, held: list[tuple[int, list[bytes]]]) -> None:
    for number, ids in held:
        objects.add_chunks(connection, number, ids)


def _count_chunks(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM chunk").fetchone()[0])


def _highest_fid(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(fid), 0) FROM node").fetchone()[0])


def _fill_tree(connection: sqlite3.Connection, summary: SourceSummary, state: TreeState) -> int:
    """Write one source's tree; returns the number of its files."""
    total = state.state
    cursor = connection.execute(
        "INSERT INTO source (name, id, info, total, key_count, last_us, base_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            summary.info.name,
            summary.id,
            state.get(SOURCE_KEY) or b"",
            total.total,
            total.key_count,
            state.at_us,
            summary.first_us,
        ),
    )
    number = cursor.lastrowid
    assert number is not None
    # Until when it was covered, only the lost catalog knew: the gap begins with the last record.
    put_value(connection, f"covered:{summary.info.name}", max(state.at_us, 1))
    for part in _parts(state.rows()):
        connection.executemany("INSERT INTO dirent VALUES (?,?,?,?)", _dirents(part, number))
        connection.executemany(
            "INSERT INTO node (fid, source, type, mode, uid, gid, size, mtime_ns, ctime_ns,"
            " dev, ino, nlink, rdev, links, again, version)"
            " VALUES (?,?,?,?,?,?,?,?,?,0,0,?,?,0,1,?)",
            _nodes(part, number),
        )
    connection.execute(
        "UPDATE node SET links = (SELECT count(*) FROM dirent WHERE dirent.fid = node.fid)"
        " WHERE source = ?",
        (number,),
    )
    row = connection.execute("SELECT count(*) FROM node WHERE source = ?", (number,)).fetchone()
    return int(row[0])


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while part := list(islice(rows, _BATCH)):
        yield part


def _dirents(rows: Iterable[Row], number: int) -> Iterator[tuple[int, bytes, int, int]]:
    for key, value in rows:
        parsed = parse_dirent_key(key)
        if parsed is not None:
            parent, name = parsed
            entry = wire.decode(_DIRENT, value, "a directory entry")
            yield (-number if parent == ROOT_FID else parent), name, entry.fid, entry.type


def _nodes(rows: Iterable[Row], number: int) -> Iterator[tuple[object, ...]]:
    for key, value in rows:
        fid = parse_version_key(key)
        if fid is not None:
            version = wire.decode(_VERSION, value, "a file version")
            yield (
                fid,
                number,
                version.type,
                version.mode,
                version.uid,
                version.gid,
                version.size,
                version.mtime_ns,
                version.ctime_ns,
                version.nlink,
                version.rdev,
                value,
            )
