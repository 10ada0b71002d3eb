"""Journal segments: change records, and inline the small frames they need.

    header: e epoch, s sequence number, p hash of the previous segment, t first and t1 last record
    time,
            ack, nz, src, ks, og and om origin tables
    section j     records: msgpack array of Record, under META
    section i, c  frame table (index key) and frames of DATA     present if there are any
    section mi, m frame table (index key) and frames of META     present if there are any
    padding (Padmé), trailer with hash and signature

A segment without records or frames is never written. The hash of a segment is the one in its
trailer.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, wire
from streamd.format.crypto import Buffer
from streamd.format.envelope import (
    UNSEALED,
    Envelope,
    Header,
    Kind,
    SectionDraft,
    Signer,
    VerifyKey,
)
from streamd.format.frame import SealedBatch, encode_table
from streamd.format.keys import KeyChain, KeySource, Role, Session, index_source
from streamd.format.layout import JournalPosition
from streamd.format.pack import EncodedObject, FrameHolder, holder_of, origin_tables
from streamd.model.ids import SourceId
from streamd.model.record import NO_SOURCE, Record

RECORDS_MAX: Final = 65_536
INLINE_TARGET: Final = 4 * 1024 * 1024
INLINE_MAX: Final = 8 * 1024 * 1024
NONCE_SIZE: Final = 8
FIRST_PREVIOUS: Final = bytes(32)  # p of the very first segment of a journal
_RECORDS: Final = msgspec.msgpack.Decoder(list[Record])


class SegmentDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A segment to be written."""

    position: JournalPosition
    previous: bytes  # hash of the previous segment of this journal, over epochs too
    start_us: int
    end_us: int
    sources: tuple[SourceId, ...]
    records: Sequence[Record]
    data: Sequence[SealedBatch] = ()
    meta: Sequence[SealedBatch] = ()
    ack: int = 0


class Segment(msgspec.Struct, frozen=True):
    """A segment read back; `records` only if the reader may know them."""

    position: JournalPosition
    previous: bytes
    hash: bytes
    start_us: int
    end_us: int
    sources: tuple[SourceId, ...]
    ack: int
    envelope: Envelope

    def records(self, secret_for: Callable[[KeySource], bytes]) -> list[Record]:
        """Return the records. Raises VaultDamaged, KeyRejected."""
        records = wire.decode(_RECORDS, self.envelope.plain("j", secret_for), "the journal section")
        if len(records) > RECORDS_MAX:
            raise VaultDamaged("a segment has too many records")
        last, source_count = 0, len(self.sources)
        for record in records:
            if record.dt_us < last or not NO_SOURCE <= record.source_ix < source_count:
                raise VaultDamaged("the records are out of order or name no source")
            last = record.dt_us
        return records

    def frames(self, role: Role, secret_for: Callable[[KeySource], bytes]) -> FrameHolder | None:
        """Return the inline frames of a role, None if it has none."""
        index, frames, rows = (
            ("i", "c", self.envelope.header.og)
            if role is Role.DATA
            else ("mi", "m", self.envelope.header.om)
        )
        if self.envelope.section(index) is None:
            return None
        return holder_of(self.envelope, index, frames, rows, secret_for)


def encode_segment(
    draft: SegmentDraft, *, keys: KeyChain, meta: Session, signer: Signer, entropy: Entropy
) -> EncodedObject:
    """Return the segment's object. Its hash is `envelope.signed_hash` of the data."""
    assert len(draft.records) <= RECORDS_MAX
    assert draft.start_us <= draft.end_us
    sources = [index_source(keys.domain), meta.source]
    sections = [SectionDraft("j", (msgspec.msgpack.encode(draft.records),), 1)]
    tables: dict[str, list[tuple[int, bytes]]] = {"i": [], "mi": []}
    for index, frames, batches in (("i", "c", draft.data), ("mi", "m", draft.meta)):
        if any(batch.frames for batch in batches):
            tables[index], placed = origin_tables(batches, sources)
            parts = [frame.data for _, batch in placed for frame in batch.frames]
            sections.append(SectionDraft(index, (encode_table(placed),), 0))
            sections.append(SectionDraft(frames, parts, UNSEALED))
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=draft.start_us,
        t1=draft.end_us,
        ks=sources,
        og=tables["i"],
        om=tables["mi"],
        e=draft.position.epoch,
        s=draft.position.seq,
        p=draft.previous,
        ack=draft.ack,
        nz=entropy.token(NONCE_SIZE),
        src=list(draft.sources),
    )
    data = envelope.build(
        Kind.SEGMENT,
        header,
        sections,
        secrets={0: keys.domain_keys.index_key, 1: meta.secret},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    return EncodedObject(layout.segment_name(keys.domain, keys.writer, draft.position), data)


def decode_segment(data: Buffer, verify_key: VerifyKey) -> Segment:
    """Parse and authenticate a whole segment. Raises VaultDamaged."""
    hashed = envelope.verify_signature(data, verify_key)
    parsed = envelope.parse(data, Kind.SEGMENT)
    header = parsed.header
    return Segment(
        position=JournalPosition(header.e, header.s),
        previous=header.p,
        hash=hashed,
        start_us=header.t,
        end_us=header.t1,
        sources=tuple(SourceId(source) for source in header.src),
        ack=header.ack,
        envelope=parsed,
    )
