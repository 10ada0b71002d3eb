"""Read one writer's journal back: segments in order, authenticated, chained, without holes.

The journal is the dense prefix whose signatures and chain verify; whatever stands behind the first
hole or bad segment is reported and not believed. Objects whose names do not parse are not part of
the journal at all. Old segments may have been collected, so a journal may begin anywhere: its first
segment is believed for its signature alone, unless a checkpoint's mark says what precedes it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, segment
from streamd.format.checkpoint import JournalMark
from streamd.format.envelope import HEADER_AT, OBJECT_SIZE_MAX, Envelope, Kind
from streamd.format.layout import JournalPosition
from streamd.format.segment import Segment
from streamd.model.ids import SourceId, WriterId
from streamd.model.record import Record
from streamd.storage.port import BlobName
from streamd.vault.layers import from_either
from streamd.vault.parallel import OBJECT_FAULTS, in_waves
from streamd.vault.vault import Vault

WAVE_SEGMENTS: Final = 16
WAVE_BYTES: Final = 32 * 1024 * 1024
HEAD_GUESS: Final = 8 * 1024  # a first read that usually holds the header, and small records too


class Damage(msgspec.Struct, frozen=True):
    """An object of the vault, and what is wrong with it, in words."""

    name: str
    what: str


class SegmentRow(NamedTuple):
    """A segment as the listing has it."""

    position: JournalPosition
    name: BlobName
    size_bytes: int


class SegmentHead(NamedTuple):
    """What a segment's header says; times in µs."""

    writer: WriterId
    position: JournalPosition
    start_us: int
    end_us: int
    sources: tuple[SourceId, ...]
    size_bytes: int
    name: BlobName


def follows(position: JournalPosition, last: JournalPosition) -> bool:
    """Say whether `position` may come right after `last`: the next number, or a later epoch."""
    return position == (last.epoch, last.seq + 1) or (
        position.epoch > last.epoch and position.seq == 0
    )


class JournalReader:
    """Reads the journal of `writer`."""

    def __init__(self, vault: Vault, writer: WriterId) -> None:
        self._vault = vault
        self.writer = writer
        self.went_past = False  # the last `journal` ended because there is more behind `until_us`

    async def list_segments(self) -> list[SegmentRow]:
        """Return the segments that are there, in journal order, by their names alone."""
        prefix = layout.journal_prefix(self._vault.keys.domain, self.writer)
        rows = []
        async for info in self._vault.store.scan(prefix):
            position = layout.parse_segment_name(info.name)
            if position is not None:
                rows.append(SegmentRow(position, info.name, info.size_bytes))
        rows.sort()
        return rows

    async def journal(
        self,
        after: JournalMark | None = None,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        on_damage: Callable[[Damage], None] | None = None,
    ) -> AsyncIterator[Segment]:
        """Yield segments behind `after` that begin at or before `until_us`.

        `since_us` leaves out leading segments that ended before it. At a hole, a bad segment or a
        broken chain `on_damage` is called and the journal ends there; without it VaultDamaged is
        raised. Raises VaultUnreachable and its kind.
        """
        rows = await self.list_segments()
        chain = _Chain(self, after)
        if after is not None:
            rows = [row for row in rows if row.position > (after.epoch, after.seq)]
        if since_us is not None:
            start = await self._first_since(rows, since_us)
            if start > 0:
                rows, chain = rows[start:], _Chain(self, None)
        reading = in_waves(
            rows,
            self.read_segment,
            width=WAVE_SEGMENTS,
            size_of=lambda row: row.size_bytes,
            bytes_max=WAVE_BYTES,
        )
        async for row, result in reading:
            damage = chain.fault_before(row)
            if damage is None and isinstance(result, Exception):
                damage = Damage(row.name, str(result))
            if damage is None:
                assert isinstance(result, Segment)
                if until_us is not None and result.start_us > until_us:
                    self.went_past = True
                    return
                damage = chain.fault_at(row, result)
                if damage is None:
                    yield result
                    continue
            if on_damage is None:
                raise VaultDamaged(f"{damage.name}: {damage.what}", name=damage.name)
            on_damage(damage)
            return

    async def read_segment(self, row: SegmentRow) -> Segment:
        """Return one authenticated segment. Raises VaultDamaged, BlobNotFound."""
        return await from_either(self._vault, row.name, partial(self._read_segment, row))

    async def _read_segment(self, row: SegmentRow, *, is_again: bool) -> Segment:
        del is_again
        if row.size_bytes > OBJECT_SIZE_MAX:
            raise VaultDamaged("larger than the format allows")
        data = await self._vault.store.get(row.name)
        verify_key = self._vault.verify_keys.get(self.writer)
        if verify_key is None:
            raise VaultDamaged("its writer has no certificate")
        decoded = segment.decode_segment(data, verify_key)
        self._check_identity(decoded.envelope, row)
        return decoded

    # -- listings: header and records only, believed without a signature --------------------------

    async def segment_heads(
        self, known: Mapping[BlobName, SegmentHead] = MappingProxyType({})
    ) -> AsyncIterator[SegmentHead]:
        """Yield what the headers say, unauthenticated; segments that do not parse are left out.

        Those that are `known` are not read, unless they have another size by now.
        """

        async def head_of(row: SegmentRow) -> SegmentHead:
            head = known.get(row.name)
            if head is not None and head.size_bytes == row.size_bytes:
                return head
            return await self.read_head(row)

        rows = await self.list_segments()
        async for _, head in in_waves(rows, head_of, width=WAVE_SEGMENTS):
            if isinstance(head, SegmentHead):
                yield head

    async def read_head(self, row: SegmentRow) -> SegmentHead:
        """Return what a segment's header says, unauthenticated. Raises VaultDamaged."""
        return self._head_of(row, await self._read_head(row))

    async def records_of(self, head: SegmentHead) -> list[Record]:
        """Return the records of one segment, unauthenticated: for listings. Raises VaultDamaged."""
        row = SegmentRow(head.position, head.name, head.size_bytes)
        _, records = await self._read_records(row)
        return records

    async def records(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> AsyncIterator[tuple[SegmentHead, list[Record]]]:
        """Yield (head, records) without reading inline content, unauthenticated: for listings.

        Segments that do not parse are left out. Raises KeyRejected.
        """
        rows = await self.list_segments()
        if since_us is not None:
            rows = rows[await self._first_since(rows, since_us) :]
        async for row, result in in_waves(rows, self._read_records, width=WAVE_SEGMENTS):
            if isinstance(result, Exception):
                continue
            parsed, records = result
            head = self._head_of(row, parsed)
            if until_us is not None and head.start_us > until_us:
                return
            yield head, records

    def _head_of(self, row: SegmentRow, parsed: Envelope) -> SegmentHead:
        header = parsed.header
        size_bytes = max(row.size_bytes, len(parsed.data))  # a row of what is cut off says less
        sources = tuple(SourceId(source) for source in header.src)
        return SegmentHead(
            self.writer, row.position, header.t, header.t1, sources, size_bytes, row.name
        )

    async def _read_head(self, row: SegmentRow) -> Envelope:
        return await from_either(self._vault, row.name, partial(self._head_in, row))

    async def _head_in(self, row: SegmentRow, *, is_again: bool) -> Envelope:
        data = await self._beginning(row, HEAD_GUESS, is_again=is_again)
        end = envelope.header_end(data)
        if end > len(data):
            data = await self._beginning(row, end, is_again=is_again)
        parsed = envelope.parse(data, Kind.SEGMENT)
        self._check_identity(parsed, row)
        return parsed

    async def _read_records(self, row: SegmentRow) -> tuple[Envelope, list[Record]]:
        return await from_either(self._vault, row.name, partial(self._records_in, row))

    async def _records_in(
        self, row: SegmentRow, *, is_again: bool
    ) -> tuple[Envelope, list[Record]]:
        parsed = await self._head_in(row, is_again=is_again)
        section = parsed.section("j")
        if section is not None and section.offset + section.size > len(parsed.data):
            end = section.offset + section.size
            data = await self._beginning(row, end, is_again=is_again)
            parsed = envelope.parse(data, Kind.SEGMENT)
        unverified = Segment(
            position=row.position,
            previous=parsed.header.p,
            hash=b"",
            start_us=parsed.header.t,
            end_us=parsed.header.t1,
            sources=tuple(SourceId(source) for source in parsed.header.src),
            ack=parsed.header.ack,
            envelope=parsed,
        )
        return parsed, unverified.records(self._vault.keys.secret_for)

    async def _beginning(self, row: SegmentRow, size: int, *, is_again: bool) -> bytes:
        if is_again:  # the row may have the size of what was wrong
            return await self._vault.store.get(row.name)
        size = min(size, row.size_bytes)
        if size < HEADER_AT:
            raise VaultDamaged("the object is cut off")
        return await self._vault.store.get(row.name, offset=0, size=size)

    def _check_identity(self, parsed: Envelope, row: SegmentRow) -> None:
        header, keys = parsed.header, self._vault.keys
        if (header.v, header.d, header.w) != (keys.vault, keys.domain, self.writer):
            raise VaultDamaged("the object belongs to another journal")
        if (header.e, header.s) != row.position:
            raise VaultDamaged("the object stands under another segment's name")

    async def _first_since(self, rows: list[SegmentRow], since_us: int) -> int:
        """Return the index of the last segment that begins at or before `since_us` (bisection)."""
        low, high = 0, len(rows)  # rows[:low] begin in time, rows[high:] do not
        while low < high:
            middle = (low + high) // 2
            try:
                head = await self._read_head(rows[middle])
            except OBJECT_FAULTS:
                return max(low - 1, 0)  # unreadable: begin before it, and let the chain report it
            if head.header.t <= since_us:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    def name_of(self, position: JournalPosition) -> BlobName:
        """Return the object name of a segment of this journal."""
        return BlobName(layout.segment_name(self._vault.keys.domain, self.writer, position))


class _Chain:
    """Knows what must come next."""

    def __init__(self, reader: JournalReader, after: JournalMark | None) -> None:
        self._reader = reader
        self._last = None if after is None else JournalPosition(after.epoch, after.seq)
        self._hash = None if after is None else after.hash

    def fault_before(self, row: SegmentRow) -> Damage | None:
        """Say what is missing in front of `row`."""
        last = self._last
        if last is None or follows(row.position, last):
            return None
        missing = last.seq + 1 if row.position.epoch == last.epoch else 0
        position = JournalPosition(row.position.epoch, missing)
        return Damage(self._reader.name_of(position), "missing, although later segments are there")

    def fault_at(self, row: SegmentRow, found: Segment) -> Damage | None:
        """Say what is wrong with the place of `found`; if nothing, it is the last one now."""
        if self._hash is not None and found.previous != self._hash:
            return Damage(row.name, "does not continue the segment before it")
        self._last, self._hash = row.position, found.hash
        return None
