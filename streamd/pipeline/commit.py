"""The commit: finished findings become journal segments, durable, in order.

One transaction changes the tree, remembers the sealed segments with their bytes, and moves the
journal head; then the segments are put; then their bytes are forgotten and the findings are
acknowledged. A crash between any two of these repeats the put of the same bytes at the next start,
and nothing else.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import field

from streamd.catalog import cuts, dirty, objects
from streamd.catalog.census import add_names
from streamd.catalog.db import put_value
from streamd.catalog.dirty import Depth, DirtyPlace, Problem
from streamd.catalog.inodes import Inodes
from streamd.catalog.journal import JournalHead, blind_since, load_head, store_head
from streamd.catalog.lookup import TreeLookup
from streamd.catalog.objects import ObjectState
from streamd.catalog.suspicion import note, weigh
from streamd.catalog.tree import SourceState, TreeWriter, load_source
from streamd.effects import Clock
from streamd.format import envelope, state_sum
from streamd.format.control import EpochRecord
from streamd.format.frame import SealedBatch
from streamd.format.pack import EncodedObject
from streamd.format.segment import INLINE_TARGET, RECORDS_MAX, SegmentDraft
from streamd.model.entry import EntryType, SourceInfo
from streamd.model.ids import SourceId
from streamd.model.record import NO_SOURCE, Gap, Incident, Op, Record, StateSum
from streamd.pipeline.findings import Ready
from streamd.vault.writer import VaultWriter

DETAIL_MAX: Final = 2000  # characters of what a program said
_RECORDS_PER_SEGMENT: Final = RECORDS_MAX - 16  # room for STATE and the like
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DIRECTORY: Final = int(EntryType.DIRECTORY)


class SourceIdentity(msgspec.Struct, frozen=True):
    """What the journal says about a source besides its files."""

    name: str
    id: SourceId
    info: SourceInfo


class Entry(msgspec.Struct):
    """A finished finding, and whose it is."""

    source: SourceIdentity
    ready: Ready


class PendingPut(msgspec.Struct, frozen=True):
    """A sealed object that the catalog remembers and that has to be put."""

    number: int
    object: EncodedObject


class CommitResult(msgspec.Struct):
    """What one transaction did."""

    puts: list[PendingPut] = field(default_factory=list)
    at_us: int = 0
    record_count: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # records by source


class Journal:
    """Writes this process' epoch. All methods run in the catalog's writer thread."""

    def __init__(self, writer: VaultWriter, clock: Clock, *, has_remote: bool) -> None:
        self._writer = writer
        self._clock = clock
        self._epoch = 0  # opened by us; in force only if the transaction that opened it committed
        self.inodes = Inodes()  # of all that is recorded from now on, if somebody wants to know
        self._put_state = ObjectState.LOCAL if has_remote else ObjectState.VAULT

    # -- objects ---------------------------------------------------------------------------------

    def add_pack(self, connection: sqlite3.Connection, pack: EncodedObject) -> int:
        """Register a pack that is durable in the (local) vault."""
        return objects.add(
            connection,
            name=pack.name,
            kind=envelope.Kind.PACK,
            size=len(pack.data),
            now_us=self._clock.now_us(),
            state=self._put_state,
        )

    def mark_put(self, connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
        """The objects were put."""
        for number in numbers:
            objects.mark_put(connection, number, self._put_state)

    def _remember(
        self,
        connection: sqlite3.Connection,
        result: CommitResult,
        kind: envelope.Kind,
        encoded: EncodedObject,
        needs: Sequence[int] = (),
    ) -> int:
        number = objects.add(
            connection,
            name=encoded.name,
            kind=kind,
            size=len(encoded.data),
            now_us=self._clock.now_us(),
            state=ObjectState.UNPUT,
            needs=needs,
            data=bytes(encoded.data),
        )
        result.puts.append(PendingPut(number, encoded))
        return number

    # -- epochs ----------------------------------------------------------------------------------

    def _open_epoch(
        self, connection: sqlite3.Connection, head: JournalHead, at_us: int, result: CommitResult
    ) -> JournalHead:
        """Seal the epoch before and begin a new one, if this process has not yet."""
        if self._epoch and self._epoch == head.epoch and not head.is_sealed:
            return head
        if head.epoch > 0 and not head.is_sealed:
            head = self._append(
                connection,
                head,
                (),
                [Record(Op.SEAL, 0, NO_SOURCE, b"", _ENCODE("next epoch"))],
                at_us,
                result,
            )
        record = EpochRecord(
            epoch=head.epoch + 1,
            created_us=at_us,
            reason="start",
            previous_hash=head.hash,
            previous_seq=max(head.next_seq - 1, 0),
        )
        encoded = self._writer.encode_epoch(record)
        self._remember(connection, result, envelope.Kind.EPOCH, encoded)
        self._epoch = record.epoch
        return JournalHead(head.epoch + 1, 0, head.hash, at_us, is_sealed=False)

    def seal(self, connection: sqlite3.Connection) -> CommitResult:
        """End this process' epoch in good order, if it wrote anything."""
        result = CommitResult()
        head = load_head(connection)
        if self._epoch == head.epoch and self._epoch and not head.is_sealed:
            at_us = max(self._clock.now_us(), head.last_us + 1)
            records = [Record(Op.SEAL, 0, NO_SOURCE, b"", _ENCODE("orderly stop"))]
            head = self._append(connection, head, (), records, at_us, result)
            store_head(
                connection,
                JournalHead(head.epoch, head.next_seq, head.hash, head.last_us, is_sealed=True),
            )
        return result

    def _append(  # noqa: PLR0917 - private; the draft's parts
        self,
        connection: sqlite3.Connection,
        head: JournalHead,
        sources: tuple[SourceId, ...],
        records: list[Record],
        at_us: int,
        result: CommitResult,
        data: Sequence[SealedBatch] = (),
        meta: Sequence[SealedBatch] = (),
        needs: Sequence[int] = (),
    ) -> JournalHead:
        draft = SegmentDraft(
            position=head.next_position,
            previous=head.hash,
            start_us=at_us,
            end_us=at_us,
            sources=sources,
            records=records,
            data=data,
            meta=meta,
        )
        encoded = self._writer.encode_segment(draft)
        self._remember(connection, result, envelope.Kind.SEGMENT, encoded, needs)
        hashed = envelope.signed_hash(encoded.data)
        return JournalHead(head.epoch, head.next_seq + 1, hashed, at_us, is_sealed=False)

    # -- findings --------------------------------------------------------------------------------

    def commit(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> CommitResult:
        """Record finished findings: tree, segments, dirty set, problems; one transaction."""
        result = CommitResult()
        head = load_head(connection)
        at_us = max(self._clock.now_us(), head.last_us + 1)
        states: dict[str, SourceState] = {}
        trees: dict[str, TreeWriter] = {}
        dropped: list[set[tuple[int, bytes]]] = []
        controls: dict[str, list[tuple[int, bytes, bytes]]] = {}
        for group in _groups(entries):
            source = group[0].source
            state = states.get(source.name)
            if state is None:
                state = states[source.name] = _state_of(connection, source)
                controls[source.name] = []
                trees[source.name] = TreeWriter(connection, state)
            dropped += self._apply(trees[source.name], group)
            self._know_inodes(group)
            for entry in group:
                controls[source.name] += self._controls(connection, entry, at_us)
        buried = {name: tree.finish() for name, tree in trees.items()}
        for name, state in states.items():
            controls[name] += self._alarms(connection, state, at_us)
        troubled = {
            name: dirty.has_problems(connection, state.number) for name, state in states.items()
        }
        for entry, places in zip(entries, dropped, strict=True):
            name, lost = entry.source.name, places
            if buried[name]:  # with what was thought to be above it
                recorded = {(intent.parent, intent.name) for intent in entry.ready.intents}
                lost = places | buried[name] & recorded
            if troubled[name]:  # hardly ever: then there is nothing to look up for each entry
                self._clear(connection, states[name].number, entry.ready)
            self._note(connection, states[name].number, entry.ready, lost, at_us)
            troubled[name] = troubled[name] or bool(entry.ready.troubles)
        self._know_chunks(connection, entries)
        # Later findings may refer to inline chunks of one of which nothing else is recorded.
        carrying = {
            entry.source.name
            for entry in entries
            if entry.ready.inline_data or entry.ready.inline_meta
        }
        changed = [
            state
            for name, state in states.items()
            if state.records or controls[name] or name in carrying
        ]
        if changed:
            head = self._open_epoch(connection, head, at_us, result)
            head = self._write_segments(connection, head, changed, controls, entries, result, at_us)
            store_head(connection, head)
            result.at_us = at_us
        for state in states.values():
            self._store_state(connection, state, at_us)
            result.counts[state.name] = len(state.records)
        return result

    @staticmethod
    def _apply(tree: TreeWriter, group: Sequence[Entry]) -> list[set[tuple[int, bytes]]]:
        """Record what findings say of a tree; return the places of each that need another look."""
        tree.dropped, tree.unsure = [], []
        tree.describe(group[0].source.info)
        tree.apply([intent for entry in group for intent in entry.ready.intents])
        for parent, name in group[-1].ready.gone:
            tree.remove(parent, name)
        if not tree.dropped and not tree.unsure:
            for entry in group:
                entry.ready.is_torn = False
            return [set() for _ in group]
        dropped = {id(intent) for intent in tree.dropped}
        bad = dropped | {id(intent) for intent in tree.unsure}
        places: list[set[tuple[int, bytes]]] = []
        for entry in group:
            intents = entry.ready.intents
            entry.ready.is_torn = any(id(intent) in dropped for intent in intents)
            places.append({(one.parent, one.name) for one in intents if id(one) in bad})
        return places

    @staticmethod
    def _controls(
        connection: sqlite3.Connection, entry: Entry, at_us: int
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield what a finding says of the source besides its files."""
        for gap in entry.ready.gaps:
            ended = Gap(gap.start_us, max(gap.end_us, at_us), gap.reason, gap.scope)
            yield Op.GAP, b"", _ENCODE(ended)
        for mark in entry.ready.marks:
            if isinstance(mark, Incident):
                note(connection, entry.source.name, mark)
            yield Op.MARK, b"", _ENCODE(mark)

    @staticmethod
    def _alarms(
        connection: sqlite3.Connection, state: SourceState, at_us: int
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield the mark that is due when this transaction makes the damage to a source massive."""
        if (incident := weigh(connection, state, at_us=at_us)) is not None:
            yield Op.MARK, b"", _ENCODE(incident)

    @staticmethod
    def _clear(connection: sqlite3.Connection, number: int, ready: Ready) -> None:
        """Forget the problems of what was captured well, or is gone."""
        good = [*ready.good_paths, *_other_names(connection, number, ready)]
        dirty.clear_problems(connection, number, [*good, *ready.absent])
        files = [one.path for one in ready.found if one.stat.type != EntryType.DIRECTORY]
        dirty.clear_problems_below(connection, number, [*ready.absent, *files])

    @staticmethod
    def _note(
        connection: sqlite3.Connection,
        number: int,
        ready: Ready,
        lost: set[tuple[int, bytes]],
        at_us: int,
    ) -> None:
        """Take notes of what a finding leaves to do, or does away with."""
        if lost:
            ready.lost = [
                DirtyPlace(entry.path, Depth.BELOW, entry.since_us)
                for entry in ready.found
                if (entry.parent, entry.name) in lost
            ]
        for trouble in ready.troubles:
            problem = Problem(
                trouble.path, trouble.reason, trouble.errno, at_us, trouble.detail[:DETAIL_MAX]
            )
            dirty.set_problem(connection, number, problem)
        if ready.cuts is not None:
            cuts.remember(connection, ready.cuts)
        if ready.survey_done:
            dirty.resolve(connection, number, ready.survey_done)
            objects.age_waiting(connection, number, ready.first_us or at_us)
        if ready.again or ready.lost:
            dirty.put_back(connection, number, [*ready.again, *ready.lost])
        for path, read_us in ready.racy.items():
            dirty.note(connection, number, {path: Depth.ENTRY}, read_us)

    def _write_segments(  # noqa: PLR0917 - private, called once above
        self,
        connection: sqlite3.Connection,
        head: JournalHead,
        changed: list[SourceState],
        controls: dict[str, list[tuple[int, bytes, bytes]]],
        entries: Sequence[Entry],
        result: CommitResult,
        at_us: int,
    ) -> JournalHead:
        sources = tuple(state.id for state in changed)
        records: list[Record] = []
        for index, state in enumerate(changed):
            rows = state.records + controls[state.name]
            records.extend([Record(op, 0, index, key, value) for op, key, value in rows])
            total = StateSum(state_sum.to_bytes(state.total), state.key_count)
            records.append(Record(Op.STATE, 0, index, b"", _ENCODE(total)))
        result.record_count = len(records)
        data = [batch for entry in entries for batch in entry.ready.inline_data]
        meta = [batch for entry in entries for batch in entry.ready.inline_meta]
        needs = sorted({number for entry in entries for number in entry.ready.needs})
        while len(records) > _RECORDS_PER_SEGMENT:  # a mass removal: several segments, one instant
            part, records = records[:_RECORDS_PER_SEGMENT], records[_RECORDS_PER_SEGMENT:]
            head = self._append(connection, head, sources, part, at_us, result, needs=needs)
        while sum(batch.stored_size for batch in data) > INLINE_TARGET and len(data) > 1:
            head = self._append(connection, head, (), [], at_us, result, data=data[:1])
            self._know_inline(connection, result, data[:1])
            data = data[1:]
        head = self._append(connection, head, sources, records, at_us, result, data, meta, needs)
        self._know_inline(connection, result, [*data, *meta])
        last = result.puts[-1].number
        first_us: dict[int, int] = {}
        numbers = {state.name: state.number for state in changed}
        for entry in entries:
            number = numbers.get(entry.source.name)
            if number is not None:
                since = entry.ready.first_us or at_us
                first_us[number] = min(since, first_us.get(number, since))
        objects.wait_for(connection, last, first_us)
        return head

    def _know_inodes(self, group: Sequence[Entry]) -> None:
        """Remember which files are recorded, before anybody can see that they are."""
        if self.inodes.is_watching:
            self.inodes.add([one.stat.ino for entry in group for one in entry.ready.intents])

    @staticmethod
    def _know_chunks(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        """Remember which packs hold the new chunks of findings."""
        packs: dict[int, list[bytes]] = {}
        for entry in entries:
            for number, ids in entry.ready.new_chunks.items():
                packs.setdefault(number, []).extend(ids)
        for number in sorted(packs):
            objects.add_chunks(connection, number, packs[number])

    @staticmethod
    def _know_inline(
        connection: sqlite3.Connection, result: CommitResult, batches: Sequence[SealedBatch]
    ) -> None:
        """Remember that the segment just made holds these chunks."""
        inline = [frame.ids for batch in batches for frame in batch.frames]
        ids = [part[i : i + 32] for part in inline for i in range(0, len(part), 32)]
        objects.add_chunks(connection, result.puts[-1].number, ids)

    @staticmethod
    def _store_state(connection: sqlite3.Connection, state: SourceState, at_us: int) -> None:
        connection.execute(
            "UPDATE source SET info = ?, total = ?, key_count = ? WHERE number = ?",
            (state.info, state_sum.to_bytes(state.total), state.key_count, state.number),
        )
        if state.more_names:
            add_names(connection, state.number, state.more_names)
        if state.records:
            connection.execute(
                "UPDATE source SET last_us = ?,"
                " base_us = CASE WHEN base_us = 0 THEN ? ELSE base_us END WHERE number = ?",
                (at_us, at_us, state.number),
            )

    @staticmethod
    def remember_coverage(connection: sqlite3.Connection, covered: dict[str, int]) -> None:
        """Every change before these instants was noticed; a later gap begins there."""
        for name, at_us in covered.items():
            put_value(connection, f"covered:{name}", at_us)


def _state_of(connection: sqlite3.Connection, source: SourceIdentity) -> SourceState:
    """Return a source's state, with the record that begins it anew if the catalog was lost."""
    state = load_source(connection, source.name, source.id)
    if blind_since(connection, state.info):
        state.records.append((Op.RESET, b"", _ENCODE("the catalog was lost")))
    return state


def _groups(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield findings of one source that come one after the other: recorded like a single one.

    What is gone is removed behind what was found with it, so it ends a group.
    """
    start = 0
    for end, entry in enumerate(entries, 1):
        if entry.ready.gone or end == len(entries) or entries[end].source != entry.source:
            yield entries[start:end]
            start = end


def _other_names(connection: sqlite3.Connection, number: int, ready: Ready) -> list[bytes]:
    """Return the paths of files with several names of which one was read well: all are fine."""
    linked = [
        intent.fid
        for intent in ready.intents
        if intent.stat.nlink > 1 and intent.stat.type != _DIRECTORY
    ]
    if not linked:
        return []
    lookup, good = TreeLookup(connection, number), set(ready.good_paths)
    names = [lookup.paths_of(fid) for fid in linked]
    return [path for paths in names if not good.isdisjoint(paths) for path in paths]
