"""Packs: many frames of one role in one object, named by the hash of its bytes.

    header: r = role, ks = key table, og = origin table
    section i   frame table (`format.frame`), under the domain's index key
    section c   the frames, back to back
    padding to a multiple of 256 KiB (small packs: Padmé)

A pack is not signed: its name is its hash, and what it holds authenticates by itself.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import crypto, envelope, layout
from streamd.format.crypto import Buffer
from streamd.format.envelope import UNSEALED, Envelope, Header, Kind, SectionDraft
from streamd.format.frame import FrameTable, Origin, SealedBatch, decode_table, encode_table
from streamd.format.keys import KeyChain, KeySource, Role, index_source
from streamd.model.ids import DomainId

PACK_STEP: Final = 256 * 1024
PACK_HEAD_GUESS: Final = 128 * 1024  # a first read that usually holds header and index


class EncodedObject(msgspec.Struct, frozen=True):
    """An object ready to be put."""

    name: str
    data: bytearray


class FrameHolder(msgspec.Struct, frozen=True):
    """What is known of an object's frames: packs, and segments for each role."""

    table: FrameTable
    origins: tuple[Origin, ...]
    frames_at: int  # offset of the frame section in the object
    created_us: int


def padded_pack_size(size: int) -> int:
    """Return the size of a pack with that many bytes in it."""
    if size < PACK_STEP * 4:
        return envelope.padme(size)
    return envelope.multiple_of(PACK_STEP)(size)


def origin_tables(
    batches: Sequence[SealedBatch], sources: list[KeySource]
) -> tuple[list[tuple[int, bytes]], list[tuple[int, SealedBatch]]]:
    """Return (origin table, batches with their row); appends key sources to `sources`.

    Batches of the same origin share a row, which happens when frames are moved.
    """
    rows: dict[Origin, int] = {}
    table: list[tuple[int, bytes]] = []
    placed: list[tuple[int, SealedBatch]] = []
    for batch in batches:
        if batch.origin not in rows:
            if batch.origin.source not in sources:
                sources.append(batch.origin.source)
            rows[batch.origin] = len(table)
            table.append((sources.index(batch.origin.source), batch.origin.salt))
        placed.append((rows[batch.origin], batch))
    return table, placed


def encode_pack(
    batches: Sequence[SealedBatch],
    *,
    role: Role,
    keys: KeyChain,
    now_us: int,
    entropy: Entropy,
) -> EncodedObject:
    """Return a pack of these frames."""
    sources = [index_source(keys.domain)]
    origins, placed = origin_tables(batches, sources)
    header = Header(
        v=keys.vault, d=keys.domain, w=keys.writer, t=now_us, ks=sources, r=role, og=origins
    )
    frames = [frame.data for _, batch in placed for frame in batch.frames]
    data = envelope.build(
        Kind.PACK,
        header,
        [
            SectionDraft("i", (encode_table(placed),), 0),
            SectionDraft("c", frames, UNSEALED),
        ],
        secrets={0: keys.domain_keys.index_key},
        entropy=entropy,
        padded_size=padded_pack_size,
    )
    return EncodedObject(layout.pack_name(DomainId(keys.domain), crypto.digest(data)), data)


def index_end(prefix: Buffer) -> int:
    """Return how many bytes from the start hold header and index. Raises VaultDamaged."""
    parsed = envelope.parse(prefix, Kind.PACK)
    section = parsed.section("i")
    if section is None:
        raise VaultDamaged("a pack has no index")
    return section.offset + section.size


def decode_pack_index(prefix: Buffer, secret_for: Callable[[KeySource], bytes]) -> FrameHolder:
    """Parse header and index of a pack from its beginning. Raises VaultDamaged, KeyRejected."""
    parsed = envelope.parse(prefix, Kind.PACK)
    return holder_of(parsed, "i", "c", parsed.header.og, secret_for)


def holder_of(
    parsed: Envelope,
    index_tag: str,
    frames_tag: str,
    origin_rows: Iterable[tuple[int, bytes]],
    secret_for: Callable[[KeySource], bytes],
) -> FrameHolder:
    """Return the frames of one role of a parsed pack or segment."""
    header = parsed.header
    frames = parsed.section(frames_tag)
    if frames is None:
        raise VaultDamaged(f"section {frames_tag!r} is missing")
    origins = []
    for row, salt in origin_rows:
        if not 0 <= row < len(header.ks):
            raise VaultDamaged("an origin names no key")
        origins.append(Origin(header.ks[row], salt))
    table = decode_table(parsed.plain(index_tag, secret_for), len(origins))
    last = table.frames[-1] if table.frames else None
    if last is not None and last.offset + last.stored_size != frames.size:
        raise VaultDamaged("the frames are not what the index says")
    return FrameHolder(table, tuple(origins), frames.offset, header.t)


def verify_pack_name(name: str, data: Buffer) -> None:
    """Raise VaultDamaged unless a pack's bytes match its name."""
    if layout.parse_pack_name(name) != crypto.digest(data):
        raise VaultDamaged(f"{name} does not match its name")
