"""Control objects: epoch records, condemn lists and final lists.

    E  header: e epoch, p hash of the last segment of the epoch before, s its sequence number, why
    G  header: g generation; section g = Condemned, under the index key
    F  header: g generation; section g = Finalised, under the index key

Deletion is: publish a condemn list, let every writer acknowledge it, check again, publish the final
list, delete what it says. Nothing is deleted that no final list names.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, wire
from streamd.format.checkpoint import JournalMark
from streamd.format.crypto import Buffer
from streamd.format.envelope import Header, Kind, SectionDraft, Signer, VerifyKey
from streamd.format.keys import KeyChain, KeySource, index_source
from streamd.format.pack import EncodedObject
from streamd.format.segment import FIRST_PREVIOUS


class EpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A writer begins a new epoch of its journal."""

    epoch: int
    created_us: int
    reason: str
    previous_hash: bytes = FIRST_PREVIOUS  # of the SEAL that ended the epoch before
    previous_seq: int = 0


class Condemned(msgspec.Struct, array_like=True, frozen=True):
    """Objects nobody may refer to any more, as far as `marks` of the journals."""

    generation: int
    marks: tuple[JournalMark, ...]
    names: tuple[str, ...]


class Finalised(msgspec.Struct, array_like=True, frozen=True):
    """The verdict over a condemn list."""

    generation: int
    delete: tuple[str, ...]
    cancel: tuple[str, ...]


_CONDEMNED: Final = msgspec.msgpack.Decoder(Condemned)
_FINALISED: Final = msgspec.msgpack.Decoder(Finalised)


def encode_epoch(
    record: EpochRecord, *, keys: KeyChain, signer: Signer, entropy: Entropy
) -> EncodedObject:
    """Return an epoch record's object."""
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=record.created_us,
        e=record.epoch,
        s=record.previous_seq,
        p=record.previous_hash,
        why=record.reason,
    )
    data = envelope.build(Kind.EPOCH, header, [], secrets={}, entropy=entropy, signer=signer)
    return EncodedObject(layout.epoch_name(keys.domain, keys.writer, record.epoch), data)


def decode_epoch(data: Buffer, verify_key: VerifyKey) -> EpochRecord:
    """Parse and authenticate an epoch record. Raises VaultDamaged."""
    envelope.verify_signature(data, verify_key)
    header = envelope.parse(data, Kind.EPOCH).header
    return EpochRecord(
        epoch=header.e,
        created_us=header.t,
        reason=header.why,
        previous_hash=header.p,
        previous_seq=header.s,
    )


def encode_condemned(
    condemned: Condemned, *, keys: KeyChain, now_us: int, signer: Signer, entropy: Entropy
) -> EncodedObject:
    """Return a condemn list's object."""
    name = layout.condemn_name(keys.domain, condemned.generation)
    body = msgspec.msgpack.encode(condemned)
    return _list(Kind.CONDEMN, name, condemned.generation, body, keys, now_us, signer, entropy)


def encode_finalised(
    final: Finalised, *, keys: KeyChain, now_us: int, signer: Signer, entropy: Entropy
) -> EncodedObject:
    """Return a final list's object."""
    name = layout.final_name(keys.domain, final.generation)
    body = msgspec.msgpack.encode(final)
    return _list(Kind.FINAL, name, final.generation, body, keys, now_us, signer, entropy)


def _list(  # noqa: PLR0917 - private, called twice above
    kind: Kind,
    name: str,
    generation: int,
    body: bytes,
    keys: KeyChain,
    now_us: int,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=now_us,
        ks=[index_source(keys.domain)],
        g=generation,
    )
    data = envelope.build(
        kind,
        header,
        [SectionDraft("g", (body,), 0)],
        secrets={0: keys.domain_keys.index_key},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    return EncodedObject(name, data)


def decode_condemned(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> Condemned:
    """Parse and authenticate a condemn list. Raises VaultDamaged."""
    envelope.verify_signature(data, verify_key)
    parsed = envelope.parse(data, Kind.CONDEMN)
    condemned = wire.decode(_CONDEMNED, parsed.plain("g", secret_for), "a condemn list")
    if condemned.generation != parsed.header.g:
        raise VaultDamaged("a condemn list contradicts its header")
    return condemned


def decode_finalised(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> Finalised:
    """Parse and authenticate a final list. Raises VaultDamaged."""
    envelope.verify_signature(data, verify_key)
    parsed = envelope.parse(data, Kind.FINAL)
    final = wire.decode(_FINALISED, parsed.plain("g", secret_for), "a final list")
    if final.generation != parsed.header.g:
        raise VaultDamaged("a final list contradicts its header")
    return final
