"""Write checkpoints: the whole state of a source at one instant, in pages that deduplicate.

The rows come from a replay of the journal (a point of the past) or from the catalog (the present).
Only pages that the vault does not have are stored, and they are durable before the root is.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Final

import msgspec
from msgspec import field

from streamd.catalog import objects
from streamd.catalog.journal import load_head
from streamd.errors import KeyRejected, VaultDamaged
from streamd.format import batch, checkpoint, state_sum
from streamd.format.checkpoint import CheckpointRoot, JournalMark, PageRow, Row
from streamd.format.codec import Codec
from streamd.format.envelope import Kind
from streamd.format.frame import INLINE_FRAME_TARGET, FrameSealer
from streamd.format.keys import Role
from streamd.maintenance.site import Site
from streamd.model.entry import Dirent, EntryType
from streamd.model.ids import ROOT_FID, Fid, SourceId
from streamd.model.record import SOURCE_KEY, StateSum, dirent_key, dirent_prefix, version_keys
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import JournalReader
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import TreeState

_PACK_SIZE_MAX: Final = 8 * 1024 * 1024  # stored bytes of pages in one pack
_PAGE_SIZE_MAX: Final = 1024 * 1024  # longer pages are cut: a frame holds 4 MiB at most
_STEP_BYTES: Final = 4 * 1024 * 1024  # of pages made in one go, off the event loop
_SUMMED_AT_ONCE: Final = 1000  # rows
_ROWS_AT_ONCE: Final = 500  # from the catalog
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_FRAME_LEVEL: Final = 3


class CheckpointDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says besides its rows."""

    source: SourceId
    at_us: int
    marks: tuple[JournalMark, ...]
    state: StateSum


class Page(msgspec.Struct):
    """A page as the root names it, and its bytes."""

    row: PageRow
    body: bytes


class _Pages(msgspec.Struct):
    """What was written of a checkpoint so far."""

    rows: list[PageRow] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)  # objects that hold pages
    fresh: list[Page] = field(default_factory=list)  # to be stored
    fresh_ids: set[bytes] = field(default_factory=set)
    fresh_bytes: int = 0


class RowsDiffer(Exception):
    """The rows are not those of the state that was to be written; no root was."""


async def write_checkpoint(
    site: Site, draft: CheckpointDraft, rows: Iterator[Row], *, check: bool = False
) -> BlobName:
    """Write a checkpoint of `rows`, which are sorted by key, and return the root's name.

    With `check` it raises RowsDiffer when the rows do not have the draft's sum.
    """
    pages, seen = _Pages(), _Seen()
    if check:
        rows = seen.passing(rows)
    cut = cut_pages(rows, site.vault.keys.domain_keys.chunk_id)
    while step := await in_thread(partial(_next_step, cut)):
        known = await in_thread(partial(_known, site, [page.row.id for page in step]))
        for page in step:
            pages.rows.append(page.row)
            number = known.get(page.row.id)
            if number is not None:
                pages.needs.add(number)
            elif page.row.id not in pages.fresh_ids:
                pages.fresh_ids.add(page.row.id)
                pages.fresh.append(page)
                pages.fresh_bytes += len(page.body)
        if pages.fresh_bytes >= _PACK_SIZE_MAX:
            await _store(site, pages)
    if pages.fresh:
        await _store(site, pages)
    if check and seen.state != draft.state:
        raise RowsDiffer
    root = CheckpointRoot(
        source=draft.source,
        at_us=draft.at_us,
        marks=draft.marks,
        state=draft.state,
        merkle=checkpoint.merkle_of(row.id for row in pages.rows),
        pages=tuple(pages.rows),
    )
    return await publish_root(site, root, sorted(pages.needs))


class _Seen:
    """Sums up the rows that pass."""

    def __init__(self) -> None:
        self._total = self._count = 0

    @property
    def state(self) -> StateSum:
        return StateSum(state_sum.to_bytes(self._total), self._count)

    def passing(self, rows: Iterator[Row]) -> Iterator[Row]:
        while some := list(islice(rows, _SUMMED_AT_ONCE)):
            self._total += batch.sum_rows(some)
            self._count += len(some)
            yield from some


async def publish_root(site: Site, root: CheckpointRoot, needs: Sequence[int]) -> BlobName:
    """Put a root whose pages are in the vault; `needs` are the objects that hold them."""
    encoded = site.writer.encode_checkpoint(root)
    await site.publish(Kind.CHECKPOINT, encoded, needs)
    return BlobName(encoded.name)


def cut_pages(rows: Iterator[Row], chunk_id: Callable[[bytes], bytes]) -> Iterator[Page]:
    """Yield the pages of a state, rows sorted by key: the same state is cut the same way again."""
    for page in checkpoint.split_pages(rows):
        for part in _bounded(page):
            body = checkpoint.encode_page(part)
            yield Page(PageRow(part[0][0], chunk_id(body), len(part)), body)


def _bounded(page: list[Row]) -> Iterator[list[Row]]:
    """Cut a page that is too long for a frame; the same page is always cut the same way."""
    if sum(map(len, chain.from_iterable(page))) <= _PAGE_SIZE_MAX:
        yield page
        return
    part: list[Row] = []
    size = 0
    for row in page:
        row_size = len(row[0]) + len(row[1])
        if part and size + row_size > _PAGE_SIZE_MAX:
            yield part
            part, size = [], 0
        part.append(row)
        size += row_size
    yield part


def _next_step(pages: Iterator[Page]) -> list[Page]:
    step: list[Page] = []
    size = 0
    for page in pages:
        step.append(page)
        size += len(page.body)
        if size >= _STEP_BYTES:
            break
    return step


def _known(site: Site, ids: list[bytes]) -> dict[bytes, int]:
    with site.catalog.reader() as connection:
        return objects.find_chunks(connection, ids)


async def _store(site: Site, pages: _Pages) -> None:
    """Put the fresh pages collected so far into a pack."""
    fresh, pages.fresh, pages.fresh_bytes = pages.fresh, [], 0
    sealer = site.writer.sealer(Role.META)
    await in_thread(partial(_seal, sealer, fresh))
    encoded = await in_thread(partial(site.writer.encode_pack, [sealer.finish()], Role.META))
    number = await site.publish_pack(encoded, [page.row.id for page in fresh])
    pages.needs.add(number)


def _seal(sealer: FrameSealer, pages: list[Page]) -> None:
    group: list[Page] = []
    size = 0
    for page in pages:
        if group and size + len(page.body) > INLINE_FRAME_TARGET:
            _seal_group(sealer, group)
            group, size = [], 0
        group.append(page)
        size += len(page.body)
    _seal_group(sealer, group)


def _seal_group(sealer: FrameSealer, group: list[Page]) -> None:
    sealer.seal(
        b"".join([page.body for page in group]),
        b"".join([page.row.id for page in group]),
        [len(page.body) for page in group],
        codec=Codec.ZSTD,
        level=_FRAME_LEVEL,
    )


# -- the past: replay ------------------------------------------------------------------------------


async def replay(
    site: Site, reader: StateReader, source: SourceId, instants: Sequence[int]
) -> AsyncIterator[TreeState]:
    """Yield the state of a source at each of these instants, ascending: one state, moved on.

    Every instant must be the end of a segment, or of a checkpoint. Raises VaultDamaged if one of
    the states cannot be had exactly.
    """
    secret_for = site.vault.keys.secret_for
    with await reader.state_at(source, instants[0]) as state:
        if state.damage or state.at_us != instants[0] or len(state.marks) != 1:
            raise VaultDamaged(f"the state at {instants[0]} cannot be replayed: {state.note}")
        yield state
        rest = list(instants[1:])
        if not rest:
            return
        journal = JournalReader(site.vault, site.vault.keys.writer)
        async for segment in journal.journal(state.marks[0], until_us=rest[-1]):
            while segment.start_us > rest[0]:
                state.at_us = rest.pop(0)
                yield state
            if source in segment.sources:
                number = segment.sources.index(source)
                records = [
                    record
                    for record in await in_thread(partial(segment.records, secret_for))
                    if record.source_ix == number
                ]
                await in_thread(partial(state.apply, records))
            position = segment.position
            state.marks = (JournalMark(journal.writer, position.epoch, position.seq, segment.hash),)
        for at_us in rest:
            state.at_us = at_us
            yield state


async def checkpoint_replayed(site: Site, state: TreeState) -> BlobName:
    """Write a checkpoint of a replayed state."""
    draft = CheckpointDraft(
        source=state.source, at_us=state.at_us, marks=state.marks, state=state.state
    )
    return await write_checkpoint(site, draft, state.rows())


# -- the present: the catalog ----------------------------------------------------------------------


async def checkpoint_current(site: Site, source: str) -> BlobName | None:
    """Write a checkpoint of what the catalog knows of `source`; one read, consistent in itself.

    None: nothing was captured yet, or this state has a checkpoint already.
    """
    with closing(site.catalog.open_reader()) as connection:
        connection.execute("BEGIN")
        found = await in_thread(partial(_current_draft, site, connection, source))
        if found is None:
            return None
        number, draft, info = found
        reader = StateReader(site.vault)
        for row in reversed(await reader.checkpoints(draft.source)):
            if row.at_ms == draft.at_us // 1000 and await _says(reader, row.name, draft):
                return None
        return await write_checkpoint(site, draft, current_rows(connection, number, info))


async def checkpoint_newest(
    site: Site, name: str, source: SourceId, at_us: int, state: StateSum
) -> BlobName | None:
    """Write a checkpoint of what the catalog knows of a source, if that is `state` at `at_us`.

    None if it is not. Raises RowsDiffer if the catalog does not have the rows of that state.
    """
    with closing(site.catalog.open_reader()) as connection:
        connection.execute("BEGIN")
        found = await in_thread(partial(_current_draft, site, connection, name))
        if found is None:
            return None
        number, draft, info = found
        if (draft.source, draft.at_us, draft.state) != (source, at_us, state):
            return None
        rows = current_rows(connection, number, info)
        return await write_checkpoint(site, draft, rows, check=True)


async def _says(reader: StateReader, name: BlobName, draft: CheckpointDraft) -> bool:
    """Whether a checkpoint of the same millisecond is of the same state."""
    try:
        root = await reader.read_checkpoint(name)
    except KeyRejected:  # a host that may not read: two states in one millisecond are none of its
        return True
    except OBJECT_FAULTS:
        return False
    return root.at_us == draft.at_us and root.state == draft.state


def _current_draft(
    site: Site, connection: sqlite3.Connection, source: str
) -> tuple[int, CheckpointDraft, bytes] | None:
    row = connection.execute(
        "SELECT number, id, info, total, key_count, last_us FROM source WHERE name = ?", (source,)
    ).fetchone()
    head = load_head(connection)
    if row is None or not row[5] or head.next_seq == 0:
        return None
    number, source_id, info, total, key_count, last_us = row
    mark = JournalMark(site.vault.keys.writer, head.epoch, head.next_seq - 1, head.hash)
    draft = CheckpointDraft(
        source=SourceId(source_id),
        at_us=last_us,
        marks=(mark,),
        state=StateSum(total, key_count),
    )
    return number, draft, info


class _Prefixes(dict[int, bytes]):
    """What the keys of a directory's entries begin with, made once for each directory."""

    def __missing__(self, parent: int) -> bytes:
        self.clear()  # they come sorted: the one before is done with
        prefix = self[parent] = dirent_prefix(Fid(parent))
        return prefix


def current_rows(connection: sqlite3.Connection, number: int, info: bytes) -> Iterator[Row]:
    """Yield the rows of a source's present state in key order, as the journal would spell them."""
    # Keys are d, parent, name; f, fid; s. The root's entries come first: its fid is the lowest.
    top = connection.execute(
        "SELECT name, fid, type FROM dirent WHERE parent = ? ORDER BY name", (-number,)
    )
    for name, fid, entry_type in top:
        yield dirent_key(ROOT_FID, name), _ENCODE(Dirent(fid, entry_type))
    below = connection.execute(
        "SELECT n.fid, d.name, d.fid, d.type FROM node n CROSS JOIN dirent d ON d.parent = n.fid"
        " WHERE n.source = ? AND n.type = ? ORDER BY n.fid, d.name",
        (number, int(EntryType.DIRECTORY)),
    )
    encode, prefixes = _ENCODE, _Prefixes()
    while some := below.fetchmany(_ROWS_AT_ONCE):
        yield from [
            (prefixes[parent] + name, encode((fid, kind))) for parent, name, fid, kind in some
        ]
    versions = connection.execute(
        "SELECT fid, version FROM node WHERE source = ? ORDER BY fid", (number,)
    )
    while some := versions.fetchmany(_ROWS_AT_ONCE):
        keys = version_keys([fid for fid, _ in some])
        yield from zip(keys, [version for _, version in some], strict=True)
    if info:
        yield SOURCE_KEY, info
