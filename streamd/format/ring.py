"""The key ring in the vault: every private key, under a random key encryption key.

Each change of keys or slots makes a new ring, of the next edition, under a new key encryption key,
which the slots hold (`format.slots`). Rings are never changed; the configuration names the one
in force.
"""

from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, wire
from streamd.format.crypto import AeadSuite, Buffer
from streamd.format.envelope import Header, Kind, SectionDraft, Signer
from streamd.format.keys import KeySource, PrivateRing, PublicRing, Role
from streamd.format.pack import EncodedObject

RING_SIZE_MAX: Final = 16 * 1024 * 1024  # of the object: 10,000 domains and slots are below 4 MiB


class RingContent(msgspec.Struct, frozen=True, kw_only=True):
    """What the ring holds."""

    private: PrivateRing
    public: PublicRing


_CONTENT: Final = msgspec.msgpack.Decoder(RingContent)


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
    edition = content.private.edition or content.public.generation
    source = KeySource(
        AeadSuite.AES256GCM, 0, Role.RING, content.public.generation, entropy.token(8), b""
    )
    header = Header(v=vault, d=b"", w=b"", t=now_us, ks=[source], g=edition)
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
    name = layout.ring_name(edition, entropy.token(layout.UNIQUE_SIZE))
    return EncodedObject(name, data)


def decode_ring(data: Buffer, kek: bytes, *, vault: bytes | None = None) -> RingContent:
    """Open the ring, and check that its own admin key signed it. Raises VaultDamaged."""
    parsed = envelope.parse(data, Kind.RING)
    if vault is not None and parsed.header.v != vault:
        raise VaultDamaged("a key ring belongs to another vault")
    plain = parsed.plain("k", lambda _: kek)
    content = wire.decode(_CONTENT, plain, "the key ring")
    envelope.verify_signature(data, content.public.admin)
    return content
