"""What the vault knows of the sources: their names, their instants, and their state at any of them.

The state at T is the newest checkpoint at or before T, and every later record up to T. Where the
journal behind that checkpoint has been thinned, T falls back to what was kept before it, and
the answer says so.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import field

from streamd.effects import MICROSECONDS
from streamd.errors import NotFound, VaultDamaged
from streamd.format import checkpoint, envelope, layout, wire
from streamd.format.checkpoint import CheckpointRoot, JournalMark, Row
from streamd.format.envelope import Kind
from streamd.format.keys import KeySource, Role
from streamd.format.segment import FIRST_PREVIOUS, Segment
from streamd.model.entry import SourceInfo
from streamd.model.ids import SourceId, WriterId, to_text
from streamd.model.record import SOURCE_KEY, Gap, Incident, Op, Record
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.documents import utc_text
from streamd.vault.journal_reader import Damage, JournalReader, SegmentHead
from streamd.vault.layers import from_either
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.record_reader import RecordReader, heads_in
from streamd.vault.tree_state import TreeState
from streamd.vault.vault import Vault

_GAP: Final = msgspec.msgpack.Decoder(Gap)
_MARK: Final = msgspec.msgpack.Decoder(Incident)  # every mark can be read as one
_INFO: Final = msgspec.msgpack.Decoder(SourceInfo)
_PAGE_WINDOW: Final = 256  # checkpoint pages held in memory when they are wanted in order
T = TypeVar("T")


class CheckpointRow(NamedTuple):
    """A checkpoint as the listing has it; `at_ms` is rounded down."""

    at_ms: int
    name: BlobName
    source: SourceId


class SourceSummary(msgspec.Struct, frozen=True):
    """A source, and between which instants the vault has something of it (µs)."""

    id: SourceId
    info: SourceInfo
    first_us: int
    last_us: int


class _Timeline(msgspec.Struct):
    info: SourceInfo | None = None
    gaps: list[Gap] = field(default_factory=list)
    marks: list[tuple[int, Incident]] = field(default_factory=list)

    def add(self, at_us: int, record: Record) -> None:
        """Note a record that says something of the source itself."""
        if record.op == Op.SET and record.key == SOURCE_KEY:
            self.info = wire.decode(_INFO, record.value, "a source's name")
        elif record.op == Op.GAP:
            self.gaps.append(wire.decode(_GAP, record.value, "a gap"))
        elif record.op == Op.MARK:
            self.marks.append((at_us, wire.decode(_MARK, record.value, "a mark")))


class StateReader:
    """Answers questions about the sources of an open vault; remembers listings it has read."""

    def __init__(self, vault: Vault) -> None:
        self.chunks = ChunkReader(vault)
        self._vault = vault
        self._heads: list[SegmentHead] | None = None
        self._timelines: dict[SourceId, _Timeline] = {}

    def source_id(self, source: str | SourceId) -> SourceId:
        """Return the id of a source given by name or id."""
        if isinstance(source, str):
            return self._vault.keys.domain_keys.source_id(source)
        return source

    def journals(self) -> list[JournalReader]:
        """Return a reader for the journal of each writer of the domain."""
        return [JournalReader(self._vault, writer) for writer in sorted(self._vault.verify_keys)]

    # -- listings --------------------------------------------------------------------------------

    async def heads(self) -> list[SegmentHead]:
        """Return the heads of all segments of the domain, in order of time."""
        if self._heads is None:
            index = await self.chunks.index()
            found: list[SegmentHead] = []
            for each in self.journals():
                known = {} if index is None else heads_in(index, each.writer)
                found += [head async for head in each.segment_heads(known)]
            self._heads = sorted(found, key=lambda head: (head.start_us, head.position))
        return self._heads

    async def checkpoints(self, source: str | SourceId | None = None) -> list[CheckpointRow]:
        """Return the checkpoints that are listed, oldest first."""
        wanted = None if source is None else self.source_id(source)
        prefix = layout.checkpoint_prefix(self._vault.keys.domain, wanted)
        rows = []
        async for info in self._vault.store.scan(prefix):
            parsed = layout.parse_checkpoint_name(info.name)
            if parsed is not None:
                rows.append(CheckpointRow(parsed[1], info.name, parsed[0]))
        return sorted(rows)

    async def sources(self) -> list[SourceSummary]:
        """Return all sources of the domain, by name."""
        heads, rows = await self.heads(), await self.checkpoints()
        spans: dict[SourceId, list[int]] = {}
        for head in heads:
            for source in head.sources:
                spans.setdefault(source, []).extend((head.start_us, head.end_us))
        for row in rows:
            spans.setdefault(row.source, []).append(row.at_ms * 1000)
        found = []
        for source, instants in spans.items():
            info = await self._info(source, [row for row in rows if row.source == source])
            if info is not None:
                found.append(SourceSummary(source, info, min(instants), max(instants)))
        return sorted(found, key=lambda summary: summary.info.name)

    async def find_source(self, name: str) -> SourceSummary:
        """Return the source called `name`. Raises NotFound, VaultDamaged if damage may hide it."""
        summaries = await self.sources()
        for summary in summaries:
            if summary.info.name == name:
                return summary
        await self._blame_damage(name)
        known = ", ".join(summary.info.name for summary in summaries) or "none"
        raise NotFound(f'there is no source "{name}" in the vault; there is: {known}')

    async def _blame_damage(self, name: str) -> None:
        """Raise VaultDamaged if a source that cannot be found may be in what cannot be read."""
        heads, wanted = await self.heads(), self.source_id(name)
        if any(wanted in head.sources for head in heads):
            raise VaultDamaged(f"the vault has {name}, and what says where it was is damaged")
        readable = {head.name for head in heads}
        for journal in self.journals():
            rows = await journal.list_segments()
            for row in rows:
                if row.name not in readable:
                    raise VaultDamaged(
                        f"{row.name} cannot be read; {name} may be there", name=row.name
                    )
            if rows and rows[0].position.seq and not await self.checkpoints():
                first = rows[0].name
                raise VaultDamaged(
                    f"the journal before {first} is missing; {name} may be there", name=first
                )

    async def _info(self, source: SourceId, rows: list[CheckpointRow]) -> SourceInfo | None:
        """Return the newest name and paths that are cheap to find."""
        for row in reversed(rows):
            try:
                root = await self.read_checkpoint(row.name)
                last = root.pages[-1].id  # the key of the name sorts behind all others
                pages = await self.chunks.read_all([last], Role.META)
                value = dict(checkpoint.decode_page(pages[last])).get(SOURCE_KEY)
            except (VaultDamaged, IndexError):
                continue
            if value is not None:
                return wire.decode(_INFO, value, "a source's name")
        return (await self._timeline(source)).info

    async def commit_times(self, source: str | SourceId) -> list[int]:
        """Return the last record time of every segment that touched the source, oldest first."""
        wanted = self.source_id(source)
        return [head.end_us for head in await self.heads() if wanted in head.sources]

    async def gaps(self, source: str | SourceId) -> list[Gap]:
        """Return the gaps that the journal declares, in the order of their records."""
        return (await self._timeline(source)).gaps

    async def marks(self, source: str | SourceId) -> list[tuple[int, Incident]]:
        """Return the named points in the journal: (instant, mark), oldest first."""
        return (await self._timeline(source)).marks

    async def _timeline(self, source: str | SourceId) -> _Timeline:
        wanted = self.source_id(source)
        known = self._timelines.get(wanted)
        if known is None:
            known = _Timeline()
            async for at_us, record in self._records(wanted, prefixes=(SOURCE_KEY,)):
                known.add(at_us, record)
            self._timelines[wanted] = known
        return known

    async def changes(
        self,
        source: str | SourceId,
        from_us: int,
        to_us: int,
        *,
        prefixes: Sequence[bytes] | None = None,
    ) -> AsyncIterator[tuple[int, Record]]:
        """Yield (instant, record) of every kind with from_us < instant <= to_us, in order.

        For listings: the records are decrypted, but their signatures are not checked. `prefixes`
        leaves out changes of keys that begin otherwise.
        """
        records = self._records(self.source_id(source), from_us, to_us, prefixes)
        async for at_us, record in records:
            if from_us < at_us <= to_us:
                yield at_us, record

    async def _records(
        self,
        source: SourceId,
        since_us: int | None = None,
        until_us: int | None = None,
        prefixes: Sequence[bytes] | None = None,
    ) -> AsyncIterator[tuple[int, Record]]:
        heads = await self.heads()
        readings = []
        for journal in self.journals():
            own = sorted(
                (head for head in heads if head.writer == journal.writer),
                key=lambda head: head.position,
            )
            reader = RecordReader(self._vault, journal, own, source)
            readings.append(reader.records(since_us=since_us, until_us=until_us, prefixes=prefixes))
        async for item in _merged(readings, lambda item: item[0]):
            yield item

    # -- checkpoints -----------------------------------------------------------------------------

    async def read_checkpoint(self, name: BlobName) -> CheckpointRoot:
        """Return an authenticated root. Raises VaultDamaged, KeyRejected, BlobNotFound."""
        return await from_either(self._vault, name, partial(self._read_root, name))

    async def _read_root(self, name: BlobName, *, is_again: bool) -> CheckpointRoot:
        del is_again
        data = await self._vault.store.get(name)
        header = envelope.parse(data, Kind.CHECKPOINT).header
        keys = self._vault.keys
        verify_key = self._vault.verify_keys.get(WriterId(header.w))
        if verify_key is None or (header.v, header.d) != (keys.vault, keys.domain):
            raise VaultDamaged(f"{name} is not of a writer of this domain", name=name)
        root = checkpoint.decode_checkpoint(data, verify_key, keys.secret_for)
        if layout.parse_checkpoint_name(name) != (root.source, root.at_us // 1000):
            raise VaultDamaged(f"{name} stands under another checkpoint's name", name=name)
        return root

    async def checkpoint_rows(self, root: CheckpointRoot) -> AsyncIterator[list[Row]]:
        """Yield a checkpoint's pages in key order. Raises VaultDamaged."""
        ids = [page.id for page in root.pages]
        await self.chunks.locate(ids, Role.META)
        for start in range(0, len(ids), _PAGE_WINDOW):
            some = ids[start : start + _PAGE_WINDOW]
            pages = await self.chunks.read_all(some, Role.META)
            for page in some:
                yield checkpoint.decode_page(pages[page])

    async def load_checkpoint(self, root: CheckpointRoot, *, check: bool = False) -> TreeState:
        """Return the state that a checkpoint holds. Raises VaultDamaged.

        The pages are authentic by their ids; `check` also compares the state sum, which can only
        differ if whoever wrote it was wrong.
        """
        state = TreeState(SourceId(root.source))
        try:
            async for chunks in self.chunks.read_chunks(
                {page.id for page in root.pages}, Role.META
            ):
                for plain in chunks.values():
                    await in_thread(partial(_load_page, state, plain))
            if check:
                state.expect(root.state)
        except BaseException:
            state.close()
            raise
        state.at_us, state.marks = root.at_us, root.marks
        return state

    # -- states ----------------------------------------------------------------------------------

    async def state_at(self, source: str | SourceId, at_us: int) -> TreeState:
        """Return the state of a source at an instant, which the caller closes.

        `TreeState.at_us` says of which instant it is, and `note` why that is not `at_us`.
        Raises NotFound for an unknown source or an instant before the oldest, VaultDamaged if
        nothing can be had, KeyRejected.
        """
        wanted = self.source_id(source)
        rows = await self.checkpoints(wanted)
        if not rows and all(wanted not in head.sources for head in await self.heads()):
            await self._refuse(source, at_us, rows, [])
        damage: list[Damage] = []
        state = await self._newest_before(rows, at_us, damage)
        is_based = state is not None
        if state is None:
            state = TreeState(wanted)
        state.asked_us = at_us
        state.damage.extend(damage)
        later = [row for row in rows if row.at_ms * 1000 > state.at_us]
        replay = _Replay(self, state, self._vault.keys.secret_for, is_based=is_based)
        try:
            await replay.run()
            if not replay.is_complete:
                await self._refuse(source, at_us, rows, state.damage + replay.stopped)
        except BaseException:
            state.close()
            raise
        replay.conclude(is_thinned=bool(later) and not damage)
        return state

    async def _newest_before(
        self, rows: Iterable[CheckpointRow], at_us: int, damage: list[Damage]
    ) -> TreeState | None:
        for row in reversed([row for row in rows if row.at_ms * 1000 <= at_us]):
            try:
                root = await self.read_checkpoint(row.name)
                if root.at_us <= at_us:
                    return await self.load_checkpoint(root)
            except OBJECT_FAULTS as error:
                damage.append(Damage(row.name, str(error)))
        return None

    async def _refuse(
        self,
        source: str | SourceId,
        at_us: int,
        rows: list[CheckpointRow],
        damage: list[Damage],
    ) -> None:
        wanted = self.source_id(source)
        kept = [(row.at_ms + 1) * 1000 for row in rows]
        journaled = [head.start_us for head in await self.heads() if wanted in head.sources]
        if not kept and not journaled and not damage:
            await self.find_source(source if isinstance(source, str) else to_text(source))
        if damage:
            worst = damage[0]
            raise VaultDamaged(f"{worst.name}: {worst.what}", name=worst.name)
        before = [instant for instant in kept + journaled if instant > at_us]
        if not before:
            raise VaultDamaged("the journal's beginning is missing, and there is no checkpoint")
        name = source if isinstance(source, str) else to_text(source)
        raise NotFound(
            f'nothing of "{name}" is kept from {_utc(at_us)}; '
            f"the oldest is {_utc(min(before) + MICROSECONDS - 1)}"
        )


class _Replay:
    """Brings a state forward to the instant asked for, segment by segment over all journals."""

    def __init__(
        self,
        reader: StateReader,
        state: TreeState,
        secret_for: Callable[[KeySource], bytes],
        *,
        is_based: bool,
    ) -> None:
        self.is_complete = is_based
        self.stopped: list[Damage] = []
        self._is_based = is_based
        self._reader = reader
        self._state = state
        self._secret_for = secret_for
        self._base_us = state.at_us
        self._end_us = state.at_us
        self._marked = {mark.writer: mark for mark in state.marks}  # as the checkpoint says
        self._marks = dict(self._marked)
        self._begins = True  # what there is of the source begins with a journal's first segment
        self._went_past = False

    async def run(self) -> None:
        """Apply what there is. `is_complete` says whether a state came out of it."""
        readings = [self._segments(journal) for journal in self._reader.journals()]
        async for writer, segment in _merged(readings, lambda item: item[1].start_us):
            # Behind a hole in one journal nothing is certain any more, in no journal.
            if self.stopped:
                break
            if writer not in self._marks and segment.previous != FIRST_PREVIOUS:
                self._begins = False
            self._marks[writer] = JournalMark(
                writer, segment.position.epoch, segment.position.seq, segment.hash
            )
            if self._state.source in segment.sources:
                self._end_us = max(self._end_us, min(segment.end_us, self._state.asked_us))
                await in_thread(partial(self._apply, writer, segment))
        if not self._is_based:
            proven = self._begins or self._state.sums_checked > 0
            self.is_complete = proven and self._state.get(SOURCE_KEY) is not None

    async def _segments(self, journal: JournalReader) -> AsyncIterator[tuple[bytes, Segment]]:
        mark = self._marked.get(journal.writer)
        # A writer that the checkpoint does not know had nothing to say about the source before it.
        since_us = self._base_us if self._is_based and mark is None else None
        async for segment in journal.journal(
            mark,
            since_us=since_us,
            until_us=self._state.asked_us,
            on_damage=self.stopped.append,
        ):
            yield journal.writer, segment
        self._went_past = self._went_past or journal.went_past

    def _apply(self, writer: bytes, segment: Segment) -> None:
        number = segment.sources.index(self._state.source)
        latest = self._state.asked_us - segment.start_us
        earliest = -1 if writer in self._marked else self._base_us - segment.start_us
        records = [
            record
            for record in segment.records(self._secret_for)
            if record.source_ix == number and earliest < record.dt_us <= latest
        ]
        try:
            self._state.apply(records)
        except VaultDamaged as error:
            name = f"journal segment {segment.position.epoch:x}/{segment.position.seq:x}"
            self._state.damage.append(Damage(name, str(error)))

    def conclude(self, *, is_thinned: bool) -> None:
        """Say of which instant the state is, and why. A hole before a checkpoint is thinning."""
        state = self._state
        state.marks = tuple(self._marks.values())
        state.at_us = state.asked_us if self._went_past else self._end_us
        if self.stopped:
            state.at_us, state.is_exact = self._end_us, False
            if is_thinned:
                state.note = f"thinned: this is the newest point kept before {_utc(state.asked_us)}"
            else:
                state.damage.extend(self.stopped)
                state.note = f"the journal is damaged behind {_utc(state.at_us)}"


def _load_page(state: TreeState, plain: memoryview) -> None:
    state.load(checkpoint.decode_page(plain))


def _utc(at_us: int) -> str:
    try:
        return utc_text(at_us)
    except (ValueError, OverflowError, OSError):
        return "the end of time" if at_us > 0 else "the beginning of time"


async def _merged(
    readings: Iterable[AsyncIterator[T]], key: Callable[[T], int]
) -> AsyncIterator[T]:
    """Merge readings that are in order of `key` each."""
    heads: list[tuple[T, AsyncIterator[T]]] = []
    for reading in readings:
        async for item in reading:
            heads.append((item, reading))
            break
    while heads:
        index = min(range(len(heads)), key=lambda each: key(heads[each][0]))
        item, reading = heads[index]
        yield item
        try:
            heads[index] = (await anext(reading), reading)
        except StopAsyncIteration:
            del heads[index]
