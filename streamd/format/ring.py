"""The key ring in the vault, and the slots that open it.

The ring (kind K, section k) holds the private ring under a random key encryption key. A slot is a
small JSON object holding that key wrapped by something a person or machine keeps: here a recovery
code, which is 160 random bits printed in groups, stretched with Argon2id.
"""

import base64
from typing import Final

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from streamd.effects import Entropy
from streamd.errors import KeyRejected, VaultDamaged
from streamd.format import crypto, envelope, layout, wire
from streamd.format.crypto import AeadSuite, Buffer
from streamd.format.envelope import Header, Kind, SectionDraft, Signer
from streamd.format.keys import KeySource, PrivateRing, PublicRing, Role
from streamd.format.pack import EncodedObject

CODE_SIZE: Final = 20  # bytes of a recovery code
_GROUP: Final = 4  # characters between dashes
ARGON_ITERATIONS: Final = 3
ARGON_LANES: Final = 4
ARGON_MEMORY_KIB: Final = 256 * 1024
ARGON_MEMORY_KIB_MAX: Final = 1024 * 1024  # refuse a hostile slot that asks for more
ARGON_ITERATIONS_MAX: Final = 16
ARGON_LANES_MAX: Final = 64
ARGON_SALT_MIN: Final = 8  # what the algorithm asks for; we write 16
SLOT_ID_SIZE: Final = 8


class RingContent(msgspec.Struct, frozen=True, kw_only=True):
    """What the ring holds."""

    private: PrivateRing
    public: PublicRing


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A wrapped key encryption key (JSON; byte fields are base64)."""

    kind: str  # recovery-code
    vault: bytes
    kdf: str  # argon2id
    iterations: int
    lanes: int
    memory_kib: int
    salt: bytes
    wrapped: bytes


_CONTENT: Final = msgspec.msgpack.Decoder(RingContent)
_SLOT: Final = msgspec.json.Decoder(Slot)


def new_recovery_code(entropy: Entropy) -> str:
    """Return a code of 160 bits for people to keep: eight groups of four letters and digits."""
    text = base64.b32encode(entropy.token(CODE_SIZE)).decode("ascii")
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def _stretch(code: str, slot: Slot) -> bytes:
    if (
        slot.kdf != "argon2id"
        or not 1 <= slot.iterations <= ARGON_ITERATIONS_MAX
        or not 1 <= slot.lanes <= ARGON_LANES_MAX
        or not 8 * slot.lanes <= slot.memory_kib <= ARGON_MEMORY_KIB_MAX
        or len(slot.salt) < ARGON_SALT_MIN
    ):
        raise VaultDamaged("a key slot has impossible parameters")
    secret = code.replace("-", "").replace(" ", "").upper().encode()
    return Argon2id(
        salt=slot.salt,
        length=crypto.KEY_SIZE,
        iterations=slot.iterations,
        lanes=slot.lanes,
        memory_cost=slot.memory_kib,
    ).derive(secret)


def _slot_aad(vault: bytes, kind: str) -> bytes:
    return b"streamd/v1/slot|" + vault + kind.encode()


def new_code_slot(vault: bytes, kek: bytes, code: str, entropy: Entropy) -> tuple[str, bytes]:
    """Return (object name, bytes) of a slot that `code` opens."""
    slot = Slot(
        kind="recovery-code",
        vault=vault,
        kdf="argon2id",
        iterations=ARGON_ITERATIONS,
        lanes=ARGON_LANES,
        memory_kib=ARGON_MEMORY_KIB,
        salt=entropy.token(16),
        wrapped=b"",
    )
    cipher = crypto.cipher_for(_stretch(code, slot))
    wrapped = bytes(crypto.encrypt(cipher, 0, kek, _slot_aad(vault, slot.kind)))
    slot = msgspec.structs.replace(slot, wrapped=wrapped)
    name = layout.slot_name(entropy.token(SLOT_ID_SIZE))
    return name, msgspec.json.format(msgspec.json.encode(slot), indent=2) + b"\n"


def open_slot(data: bytes, vault: bytes, code: str) -> bytes:
    """Return the key encryption key. Raises KeyRejected for a wrong code, VaultDamaged."""
    slot = wire.decode(_SLOT, data, "a key slot")
    if slot.vault != vault:
        raise VaultDamaged("a key slot belongs to another vault")
    cipher = crypto.cipher_for(_stretch(code, slot))
    try:
        return crypto.decrypt(cipher, 0, slot.wrapped, _slot_aad(vault, slot.kind))
    except VaultDamaged as error:
        raise KeyRejected("the recovery code does not open this slot") from error


def encode_ring(
    content: RingContent,
    kek: bytes,
    *,
    vault: bytes,
    now_us: int,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    """Return the ring's object; signed by the admin key."""
    source = KeySource(
        AeadSuite.AES256GCM, 0, Role.RING, content.public.generation, entropy.token(8), b""
    )
    header = Header(v=vault, d=b"", w=b"", t=now_us, ks=[source], g=content.public.generation)
    data = envelope.build(
        Kind.RING,
        header,
        [SectionDraft("k", (msgspec.msgpack.encode(content),), 0)],
        secrets={0: kek},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    # The name is new each time: an attempt to create a vault that died half-way is in nobody's way.
    name = layout.ring_name(content.public.generation, entropy.token(SLOT_ID_SIZE))
    return EncodedObject(name, data)


def decode_ring(data: Buffer, kek: bytes) -> RingContent:
    """Open the ring, and check that its own admin key signed it. Raises VaultDamaged."""
    plain = envelope.parse(data, Kind.RING).plain("k", lambda _: kek)
    content = wire.decode(_CONTENT, plain, "the key ring")
    envelope.verify_signature(data, content.public.admin)
    return content
