"""Checkpoints: the whole state of one source at one instant, in sorted, deduplicated pages.

Rows are (key, value) in key order. A page ends after a row whose key's BLAKE3 says so (2 bytes
modulo 512), between 64 and 4096 rows; equal rows make equal pages, so a daily checkpoint costs
what changed.
Pages are META chunks in META packs, put before the root. The root object (kind C) is signed:

    header: src = [source], t = instant of the state, ks, sa
    section c   CheckpointRoot, under META
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import crypto, envelope, layout, wire
from streamd.format.batch import page_end
from streamd.format.crypto import Buffer
from streamd.format.envelope import Header, Kind, SectionDraft, Signer, VerifyKey
from streamd.format.keys import KeyChain, KeySource, Session
from streamd.format.pack import EncodedObject
from streamd.model.ids import SourceId
from streamd.model.record import StateSum

PAGE_AVERAGE: Final = 512
PAGE_MIN: Final = 64
PAGE_MAX: Final = 4096
PAGES_MAX: Final = 65_536

Row = tuple[bytes, bytes]
_PAGE: Final = msgspec.msgpack.Decoder(list[Row])


class JournalMark(msgspec.Struct, array_like=True, frozen=True):
    """The last segment of one writer that a checkpoint contains."""

    writer: bytes
    epoch: int
    seq: int
    hash: bytes


class PageRow(msgspec.Struct, array_like=True, frozen=True):
    """One page of a checkpoint."""

    first_key: bytes
    id: bytes
    row_count: int


class CheckpointRoot(msgspec.Struct, array_like=True, frozen=True):
    """The decrypted root. Replay continues with the first segment after `marks`."""

    source: bytes
    at_us: int  # time of the last record contained
    marks: tuple[JournalMark, ...]
    state: StateSum
    merkle: bytes  # BLAKE3 over the page ids
    pages: tuple[PageRow, ...]


_ROOT: Final = msgspec.msgpack.Decoder(CheckpointRoot)


def split_pages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut sorted rows into pages."""
    rest = iter(rows)
    held = list(islice(rest, PAGE_MAX))
    while held:
        count = page_end(held, PAGE_MIN - 1, PAGE_AVERAGE) + 1 or len(held)
        yield held[:count]
        del held[:count]
        held += islice(rest, count)


def encode_page(page: Sequence[Row]) -> bytes:
    """Return a page's bytes: what its id is the hash of."""
    return msgspec.msgpack.encode(page)


def decode_page(data: Buffer) -> list[Row]:
    """Parse a page. Raises VaultDamaged."""
    rows = wire.decode(_PAGE, data, "a checkpoint page")
    if not 0 < len(rows) <= PAGE_MAX:
        raise VaultDamaged("a checkpoint page has an impossible length")
    return rows


def merkle_of(page_ids: Iterable[bytes]) -> bytes:
    """Return the hash over the ids of all pages in order."""
    return crypto.digest(b"".join(page_ids))


def encode_checkpoint(
    root: CheckpointRoot,
    *,
    keys: KeyChain,
    meta: Session,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    """Return the root's object."""
    assert len(root.pages) <= PAGES_MAX
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=root.at_us,
        ks=[meta.source],
        src=[root.source],
    )
    data = envelope.build(
        Kind.CHECKPOINT,
        header,
        [SectionDraft("c", (msgspec.msgpack.encode(root),), 0)],
        secrets={0: meta.secret},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    unique = entropy.token(layout.UNIQUE_SIZE)
    name = layout.checkpoint_name(keys.domain, SourceId(root.source), root.at_us, unique)
    return EncodedObject(name, data)


def decode_checkpoint(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> CheckpointRoot:
    """Parse and authenticate a root. Raises VaultDamaged, KeyRejected."""
    envelope.verify_signature(data, verify_key)
    parsed = envelope.parse(data, Kind.CHECKPOINT)
    root = wire.decode(_ROOT, parsed.plain("c", secret_for), "a checkpoint root")
    if len(root.pages) > PAGES_MAX:
        raise VaultDamaged("a checkpoint has too many pages")
    if root.merkle != merkle_of(page.id for page in root.pages):
        raise VaultDamaged("a checkpoint root contradicts itself")
    if [root.source] != parsed.header.src or root.at_us != parsed.header.t:
        raise VaultDamaged("a checkpoint root contradicts its header")
    return root
