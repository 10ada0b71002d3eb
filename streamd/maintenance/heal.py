"""Heal: store again, in new packs, chunks that a verification found nowhere whole.

Content is addressed by its hash, so whoever still has it can give it back: the copy of the vault
on this host, the file it was read from if it has not changed, or, for a checkpoint's page, the
catalog. What nobody has is taken out of the index: the next capture that meets it stores it again.
A damaged object is never touched; collection drops it when nothing in it is needed any more.
"""

import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from streamd.catalog.db import get_bytes, put_value
from streamd.catalog.lookup import TreeLookup
from streamd.catalog.objects import ObjectState
from streamd.errors import BlobNotFound, StreamdError, VaultDamaged
from streamd.format.chunker import Cutter
from streamd.format.chunklist import LEVELS_MAX, paginate
from streamd.format.codec import Codec
from streamd.format.crypto import Buffer
from streamd.format.frame import FRAME_PLAIN_MAX, PACK_FRAME_TARGET
from streamd.format.keys import Role
from streamd.maintenance.checkpointing import current_rows, cut_pages
from streamd.maintenance.site import Site
from streamd.maintenance.verify_listing import is_known_name, prove
from streamd.maintenance.verify_report import FrameId, VerifyReport
from streamd.model.entry import ContentRun, EntryType, FileVersion
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.tree_state import decode_version
from streamd.vault.vault import no_other_layer

WAITS: Final = "what was healed is in the local copy, and not in the container yet"
_LOG: Final = get_logger("heal")
_BAD_FRAMES: Final = "bad_frames"  # in table meta: frames that nothing may be counted on
_BAD_FRAMES_MAX: Final = 100_000
_PACK_BYTES: Final = 16 * 1024 * 1024  # plain
_BATCH: Final = 2_000
_CUT_BYTES: Final = 8 * 1024 * 1024
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_DECODER: Final = msgspec.msgpack.Decoder(list[tuple[str, int, int]])


class _Found(msgspec.Struct):
    """Chunks that somebody still had, on their way into a pack."""

    chunks: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    size: int = 0

    def add(self, chunk: bytes, body: bytes) -> None:
        self.chunks[chunk] = body
        self.size += len(body)


async def heal_all(
    healer: Callable[[], "Healer"],
    report: VerifyReport,
    verify: Callable[[], Awaitable[VerifyReport]],
    arrived: Callable[[Sequence[int]], Awaitable[bool]],
) -> VerifyReport:
    """Heal what a verification found, verify again, and so on while that helps.

    A chunk list that was healed may name more that is missing. The report returned is that of the
    last look, with the damage that any of them found. `arrived` says whether what was put is in the
    vault of record: looked at before, everything would be missing still, and be healed again.
    """
    damage, healed = report.damage, 0
    for _ in range(LEVELS_MAX + 1):
        one = healer()
        await one.run(report)
        healed += report.healed_count
        if not one.put:
            break
        if not await arrived(one.put):
            report.notes.append(WAITS)
            break
        report = await verify()
    report.damage = list(dict.fromkeys([*damage, *report.damage]))
    report.healed_count = healed
    return report


class Healer:
    """Heals what one verification of `record`, the vault of record, found.

    `copies` are other stores with objects of this vault, `earlier` those of earlier versions.
    """

    def __init__(
        self,
        site: Site,
        record: BlobStore,
        copies: Sequence[BlobStore] = (),
        earlier: Sequence[BlobStore] = (),
    ) -> None:
        self._site = site
        self._record = record
        self._copies = copies
        self._earlier = earlier
        self._chunk_id = site.vault.keys.domain_keys.chunk_id
        self._wanted: set[bytes] = set()
        self._found = {Role.DATA: _Found(), Role.META: _Found()}
        self._healed = 0
        self.put: list[int] = []  # objects, by their number in the catalog

    async def run(self, report: VerifyReport) -> None:
        """Heal; `healed_count` and `lost_count` of the report say what came of it."""
        await self._site.catalog.write(_remember_bad, report.bad_frames)
        await self._upload_again(report)
        self._wanted = set(report.missing)
        if self._wanted:
            for store in self._copies:
                await self._from_copy(store)
            await self._from_pages()
            await self._from_files()
            for store in self._earlier if self._wanted else ():  # last: a listing of all versions
                await self._from_copy(store)
            for role in self._found:
                await self._flush(role)
            await self._site.catalog.write(_forget_chunks, sorted(self._wanted))
        report.healed_count = self._healed
        report.lost_count = len(self._wanted)
        if report.healed_count or report.lost_count:
            _LOG.warning("healed", chunks=report.healed_count, lost=report.lost_count)

    # -- whole objects ---------------------------------------------------------------------------

    async def _upload_again(self, report: VerifyReport) -> None:
        """An object that is gone from the vault of record, and whole here, is sent once more."""
        for damage in report.damage if self._copies else ():
            name = BlobName(damage.name)
            if not is_known_name(name) or await self._is_there(name):
                continue
            for store in self._copies:
                try:
                    await in_thread(partial(prove, self._site.vault, name, await store.get(name)))
                except OBJECT_FAULTS:
                    continue
                number = await self._site.catalog.write(_send_again, name)
                self.put += [] if number is None else [number]

    async def _is_there(self, name: BlobName) -> bool:
        """Whether the vault of record has an object: what it has cannot be put again."""
        try:
            await self._record.get(name, offset=0, size=1)
        except BlobNotFound:
            return False
        except VaultDamaged:  # it is empty
            return True
        return True

    # -- chunks ----------------------------------------------------------------------------------

    async def _take(self, role: Role, chunk: bytes, body: bytes) -> None:
        """Somebody had this chunk."""
        if chunk not in self._wanted or self._chunk_id(body) != chunk:
            return
        self._wanted.discard(chunk)
        self._found[role].add(chunk, body)
        if self._found[role].size >= _PACK_BYTES:
            await self._flush(role)

    async def _flush(self, role: Role) -> None:
        """Put what was found into a pack; the index finds it there from now on."""
        found, self._found[role] = self._found[role], _Found()
        if not found.chunks:
            return
        sealer = self._site.writer.sealer(role)

        def seal() -> None:
            for group in _groups(found.chunks):
                sealer.seal(
                    b"".join(found.chunks[chunk] for chunk in group),
                    b"".join(group),
                    [len(found.chunks[chunk]) for chunk in group],
                    codec=Codec.ZSTD,
                )

        await in_thread(seal)
        batch = sealer.finish()
        encoded = await in_thread(partial(self._site.writer.encode_pack, [batch], role))
        number = await self._site.publish_pack(encoded)
        self.put.append(number)
        await self._site.catalog.write(_move_here, number, list(found.chunks))
        self._healed += len(found.chunks)

    async def _from_copy(self, store: BlobStore) -> None:
        vault = replace(self._site.vault, store=store, distrust=no_other_layer)
        reader = ChunkReader(vault)
        for role in (Role.DATA, Role.META):
            there = self._wanted - await reader.locate(self._wanted, role)
            try:
                async for chunks in reader.read_chunks(there, role):
                    for chunk, body in chunks.items():
                        await self._take(role, chunk, bytes(body))
            except StreamdError as error:  # some of them are damaged here, too, or it is gone
                _LOG.info("copy-incomplete", what=str(error))

    async def _from_pages(self) -> None:
        """Make the pages of the present state again: an unchanged part has the same bytes."""
        with closing(self._site.catalog.open_reader()) as connection:
            sources = connection.execute("SELECT number, info FROM source").fetchall()
            for number, info in sources:
                pages = cut_pages(current_rows(connection, number, info), self._chunk_id)
                while (page := await in_thread(partial(next, pages, None))) is not None:
                    await self._take(Role.META, page.row.id, page.body)

    async def _from_files(self) -> None:
        """Read again the files whose present version needs a chunk that is missing."""
        reader = ChunkReader(self._site.vault)
        with closing(self._site.catalog.open_reader()) as connection:
            rows = connection.execute(
                "SELECT fid, source, version FROM node WHERE type = ?", (int(EntryType.REGULAR),)
            )
            while self._wanted:
                batch = await in_thread(partial(rows.fetchmany, _BATCH))
                if not batch:
                    return
                for fid, source, encoded in batch:
                    version = decode_version(encoded)
                    runs = await self._runs_of(reader, version)
                    if runs is not None and not any(run.id in self._wanted for run in runs):
                        continue
                    for path in TreeLookup(connection, source).paths_of(fid):
                        await self._from_file(path, version, runs)

    async def _runs_of(
        self, reader: ChunkReader, version: FileVersion
    ) -> Sequence[ContentRun] | None:
        """Return a file's runs; None if its chunk list is missing and must be cut again."""
        if not version.levels:
            return version.content
        try:
            return await reader.expand(version)
        except VaultDamaged:
            return None

    async def _from_file(
        self, path: bytes, version: FileVersion, runs: Sequence[ContentRun] | None
    ) -> None:
        try:
            descriptor = os.open(path, _OPEN)
        except OSError:
            return
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            if runs is None:
                runs = await self._cut_again(descriptor, version)
            offset = 0
            for run in runs:
                if run.id is not None and run.id in self._wanted:
                    body = await in_thread(partial(os.pread, descriptor, run.size, offset))
                    await self._take(Role.DATA, run.id, body)
                offset += run.size
        except OSError as error:
            _LOG.info("file-unreadable", what=error.strerror)
        finally:
            os.close(descriptor)

    async def _cut_again(self, descriptor: int, version: FileVersion) -> list[ContentRun]:
        """Cut a file as a capture would; if it has not changed, its chunk list comes out again."""
        if os.fstat(descriptor).st_size != version.size:
            return []
        cutter = Cutter(self._site.vault.keys.domain_keys.chunker_seed)
        runs = await in_thread(lambda: list(_cut(descriptor, cutter, self._chunk_id)))
        _, _, pages = paginate(runs, self._chunk_id)
        for page, body in pages.items():
            await self._take(Role.META, page, body)
        return runs


def _cut(
    descriptor: int, cutter: Cutter, chunk_id: Callable[[Buffer], bytes]
) -> Iterator[ContentRun]:
    rest, offset = b"", 0
    while True:
        part = os.pread(descriptor, _CUT_BYTES, offset)
        offset += len(part)
        buffer, at = memoryview(rest + part), 0
        for size in cutter.cut(buffer, final=not part):
            yield ContentRun(chunk_id(buffer[at : at + size]), size)
            at += size
        rest = bytes(buffer[at:])
        if not part:
            return


def _groups(chunks: dict[bytes, bytes]) -> Iterator[list[bytes]]:
    """Divide chunks into frames of a good size."""
    group: list[bytes] = []
    size = 0
    for chunk, body in chunks.items():
        if group and size + len(body) > min(PACK_FRAME_TARGET, FRAME_PLAIN_MAX):
            yield group
            group, size = [], 0
        group.append(chunk)
        size += len(body)
    if group:
        yield group


def _send_again(connection: sqlite3.Connection, name: str) -> int | None:
    row = connection.execute(
        "UPDATE object SET state = ? WHERE name = ? AND state = ? RETURNING number",
        (int(ObjectState.LOCAL), name, int(ObjectState.VAULT)),
    ).fetchone()
    return None if row is None else int(row[0])


def _move_here(connection: sqlite3.Connection, number: int, ids: Sequence[bytes]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO chunk VALUES (?, ?)", [(chunk, number) for chunk in ids]
    )


def _forget_chunks(connection: sqlite3.Connection, ids: Sequence[bytes]) -> None:
    connection.executemany("DELETE FROM chunk WHERE id = ?", [(chunk,) for chunk in ids])


def _remember_bad(connection: sqlite3.Connection, frames: Iterable[FrameId]) -> None:
    known = read_bad_frames(connection) | set(frames)
    alive = {
        name
        for name in {frame.name for frame in known}
        if connection.execute("SELECT 1 FROM object WHERE name = ?", (name,)).fetchone()
    }
    rows = sorted(frame for frame in known if frame.name in alive)[:_BAD_FRAMES_MAX]
    stored = [(str(row.name), int(row.role), row.first_chunk) for row in rows]
    put_value(connection, _BAD_FRAMES, msgspec.msgpack.encode(stored))


def read_bad_frames(connection: sqlite3.Connection) -> set[FrameId]:
    """Return the frames that a verification found damaged: collection must not count on them."""
    stored = get_bytes(connection, _BAD_FRAMES)
    rows = _DECODER.decode(stored) if stored else []
    return {FrameId(BlobName(name), Role(role), first) for name, role, first in rows}
