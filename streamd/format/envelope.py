"""The envelope around every binary object.

    0    8  magic "STRMD\\r\\n\\x1A"
    8    1  kind
    9    1  format major (1)
    10   2  flags, little-endian: 1 encrypted, 2 padded
    12   4  header length, little-endian, at most 1 MiB
    16   4  CRC-32 of the header (tells damage from a wrong key; not for security)
    20   .. header: a msgpack map (see `Header`)
         .. sections back to back, as the header's `sec` says; then random padding
    -100 32 BLAKE3 of everything before        signed kinds only: all but P
    -68  64 Ed25519 signature of "streamd/v1/object|" + that hash
    -4   4  "DMRT"

A sealed section is compressed, then encrypted with a key of its own: HKDF(secret of its key table
row, salt = the header's `sa`, info = "streamd/v1/section/" + tag), nonce 0, and the whole envelope
up to the sections as associated data. A section may occur once per tag.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from streamd.effects import Entropy
from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format import crypto, wire
from streamd.format.codec import Codec, compress, decompress
from streamd.format.crypto import Buffer
from streamd.format.keys import SALT_SIZE, KeySource

MAGIC: Final = b"STRMD\r\n\x1a"
MAJOR: Final = 1
FLAG_ENCRYPTED: Final = 1
FLAG_PADDED: Final = 2
FLAGS: Final = FLAG_ENCRYPTED | FLAG_PADDED  # always both; others mean a newer format
HEADER_AT: Final = 20
HEADER_SIZE_MAX: Final = 1024 * 1024
OBJECT_SIZE_MAX: Final = 64 * 1024 * 1024  # what one Put Blob request may carry
TRAILER_MAGIC: Final = b"DMRT"
TRAILER_SIZE: Final = crypto.HASH_SIZE + crypto.SIGNATURE_SIZE + len(TRAILER_MAGIC)
UNSEALED: Final = -1  # a section without encryption of its own: its frames are sealed one by one
_SIGNED_CONTEXT: Final = b"streamd/v1/object|"
SECTION_LEVEL: Final = 3


class Kind(StrEnum):
    """What an object is."""

    SEGMENT = "J"
    PACK = "P"
    CHECKPOINT = "C"
    HISTORY = "H"
    INDEX = "X"
    CONDEMN = "G"
    FINAL = "F"
    EPOCH = "E"
    RING = "K"


class Section(msgspec.Struct, array_like=True, frozen=True):
    """Where a section stands. `source` is a row of the key table, or UNSEALED."""

    tag: str
    offset: int  # from the start of the object
    size: int
    source: int
    codec: int
    plain_size: int


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The header map. Common fields first; absent fields have their defaults."""

    v: bytes  # vault id
    d: bytes  # domain id
    w: bytes  # writer id
    t: int  # created, µs
    cf: int = 0  # number of the vault configuration in force
    ks: list[KeySource] = []
    sa: bytes = b""  # salt of the sections' keys
    sec: list[Section] = []
    # P, and the frames inside J
    r: int = 0  # P: Role of its frames
    og: list[tuple[int, bytes]] = []  # origin table of data frames: (row of ks, salt)
    om: list[tuple[int, bytes]] = []  # J: origin table of META frames
    # J and E
    e: int = 0  # epoch
    s: int = 0  # sequence number
    p: bytes = b""  # BLAKE3 of the previous segment (J), of the previous epoch's last (E)
    t1: int = 0  # time of the last record, µs
    ack: int = 0  # highest condemn generation acknowledged
    nz: bytes = b""  # writer's nonce
    src: list[bytes] = []  # source ids that records refer to by position
    why: str = ""  # E: reason of the new epoch
    # G, F: generation; C: source id is in src
    g: int = 0


_HEADER: Final = msgspec.msgpack.Decoder(Header)


class Signer(Protocol):
    """Signs objects as one writer (or as the admin)."""

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`."""


class KeySigner(msgspec.Struct, frozen=True):
    """Signs with a raw Ed25519 private key."""

    signing_key: bytes

    def sign(self, message: bytes) -> bytes:
        return crypto.sign(self.signing_key, message)

    def __repr__(self) -> str:
        return "KeySigner(…)"


class SectionDraft(msgspec.Struct, frozen=True):
    """A section to be written: `parts` are joined; `source` is a row of `Header.ks` or UNSEALED."""

    tag: str
    parts: Sequence[Buffer]
    source: int
    codec: Codec = Codec.ZSTD


class Envelope(msgspec.Struct, frozen=True):
    """A parsed object, or the beginning of one. `data` may end inside the sections."""

    kind: Kind
    header: Header
    associated: bytes  # envelope and header: the sections' associated data
    data: memoryview

    def section(self, tag: str) -> Section | None:
        """Return the section called `tag`, if there is one."""
        return next((section for section in self.header.sec if section.tag == tag), None)

    def raw(self, section: Section) -> memoryview:
        """Return the stored bytes of a section. Raises VaultDamaged if they are cut off."""
        end = section.offset + section.size
        if end > len(self.data):
            raise VaultDamaged(f"section {section.tag!r} is cut off")
        return self.data[section.offset : end]

    def plain(self, tag: str, secret_for: Callable[[KeySource], bytes]) -> Buffer:
        """Return a sealed section's plaintext. Raises VaultDamaged, KeyRejected."""
        section = self.section(tag)
        if section is None or not 0 <= section.source < len(self.header.ks):
            raise VaultDamaged(f"section {tag!r} is missing")
        source = self.header.ks[section.source]
        crypto.check_suite(source.suite)
        secret = secret_for(source)
        cipher = crypto.cipher_for(_section_key(secret, self.header.sa, tag))
        packed = crypto.decrypt(cipher, 0, self.raw(section), self.associated)
        return decompress(packed, section.codec, section.plain_size)


def _section_key(secret: bytes, salt: bytes, tag: str) -> bytes:
    return crypto.derive(secret, salt=salt, info=b"streamd/v1/section/" + tag.encode())


def build(
    kind: Kind,
    header: Header,
    drafts: Sequence[SectionDraft],
    *,
    secrets: Mapping[int, bytes],
    entropy: Entropy,
    signer: Signer | None = None,
    padded_size: Callable[[int], int] = lambda size: size,
) -> bytearray:
    """Return a whole object. `secrets` maps rows of `header.ks` to the secrets of sealed sections.

    `header.sa` and `header.sec` are filled in here. `padded_size` says how large an object of that
    many bytes shall be; the difference is random padding.
    """
    assert len({draft.tag for draft in drafts}) == len(drafts), "one tag, one key, one nonce"
    packed: list[tuple[SectionDraft, Codec, Sequence[Buffer], int, int]] = []
    for draft in drafts:
        plain_size = sum(len(part) for part in draft.parts)
        if draft.source == UNSEALED:
            packed.append((draft, Codec.RAW, draft.parts, plain_size, plain_size))
        else:
            joined = draft.parts[0] if len(draft.parts) == 1 else b"".join(draft.parts)
            codec, body = compress(joined, draft.codec, SECTION_LEVEL)
            packed.append((draft, codec, (body,), len(body) + crypto.TAG_SIZE, plain_size))
    head, sections = _place(kind, header, packed, entropy)
    trailer = 0 if signer is None else TRAILER_SIZE
    end = sections[-1].offset + sections[-1].size if sections else len(head)
    padding = padded_size(end + trailer) - end - trailer
    whole: list[Buffer] = [head]
    salt = _salt_of(head)
    for draft, _, parts, _, _ in packed:
        if draft.source == UNSEALED:
            whole += parts
        else:
            key = _section_key(secrets[draft.source], salt, draft.tag)
            whole.append(crypto.encrypt(crypto.cipher_for(key), 0, parts[0], head))
    whole.append(entropy.token(padding))
    out = bytearray().join(whole)  # at once: growing it would move what is there several times
    if signer is not None:
        hashed = crypto.digest(out)
        out += hashed + signer.sign(_SIGNED_CONTEXT + hashed) + TRAILER_MAGIC
    assert len(out) <= OBJECT_SIZE_MAX, "an object larger than one request was built"
    return out


def _salt_of(head: bytes) -> bytes:
    return _HEADER.decode(head[HEADER_AT:]).sa


def _place(
    kind: Kind,
    header: Header,
    packed: Sequence[tuple[SectionDraft, Codec, Sequence[Buffer], int, int]],
    entropy: Entropy,
) -> tuple[bytes, list[Section]]:
    """Return envelope and header. Offsets depend on the header's length and the other way round."""
    salt = entropy.token(SALT_SIZE) if packed else b""
    start = HEADER_AT
    while True:
        sections, at = [], start
        for draft, codec, _, size, plain_size in packed:
            sections.append(Section(draft.tag, at, size, draft.source, codec, plain_size))
            at += size
        body = msgspec.msgpack.encode(msgspec.structs.replace(header, sa=salt, sec=sections))
        if HEADER_AT + len(body) == start:
            break
        start = HEADER_AT + len(body)  # larger offsets need no fewer bytes: this ends
    assert len(body) <= HEADER_SIZE_MAX, "a header larger than the format allows was built"
    prefix = (
        MAGIC
        + kind.encode()
        + bytes((MAJOR,))
        + FLAGS.to_bytes(2, "little")
        + len(body).to_bytes(4, "little")
        + zlib.crc32(body).to_bytes(4, "little")
    )
    return prefix + body, sections


def header_end(prefix: Buffer) -> int:
    """Return where the header ends, given at least 20 bytes of an object. Raises VaultDamaged."""
    if len(prefix) < HEADER_AT or bytes(prefix[:8]) != MAGIC:
        raise VaultDamaged("not an object of streamd")
    if prefix[9] != MAJOR:
        raise FormatUnsupported(f"the object has format {prefix[9]}, this streamd reads {MAJOR}")
    flags = int.from_bytes(prefix[10:12], "little")
    if flags & ~FLAGS:
        raise FormatUnsupported(f"the object has flags {flags:#06x}, some unknown here")
    size = int.from_bytes(prefix[12:16], "little")
    if size > HEADER_SIZE_MAX:
        raise VaultDamaged("the header is longer than the format allows")
    return HEADER_AT + size


def parse(data: Buffer, kind: Kind) -> Envelope:
    """Parse an object of the expected kind, or its beginning. Raises VaultDamaged."""
    end = header_end(data)
    if bytes(data[8:9]) != kind.encode():
        raise VaultDamaged(f"an object of kind {bytes(data[8:9])!r} stands where {kind} belongs")
    view = memoryview(data)
    body = bytes(view[HEADER_AT:end])
    if len(view) < end or zlib.crc32(body) != int.from_bytes(view[16:20], "little"):
        raise VaultDamaged("the header is damaged")
    header = wire.decode(_HEADER, body, "the header")
    _check_sections(header.sec, end)
    return Envelope(kind, header, bytes(view[:end]), view)


def _check_sections(sections: Sequence[Section], start: int) -> None:
    if len({section.tag for section in sections}) != len(sections):
        raise VaultDamaged("the header lists a section twice")
    at = start
    for section in sections:
        if section.offset != at or section.size < 0:
            raise VaultDamaged("the sections do not stand back to back")
        at += section.size
    if at > OBJECT_SIZE_MAX:
        raise VaultDamaged("the object is longer than the format allows")


class CertifiedKey(msgspec.Struct, frozen=True):
    """A public key that the admin vouches for, up to an instant (0: without end)."""

    public: bytes
    revoked_from_us: int = 0


WriterKeys = tuple[CertifiedKey, ...]  # of one writer: the one in use, and those before it
VerifyKey = bytes | WriterKeys


def verify_signature(data: Buffer, verify_key: VerifyKey) -> bytes:
    """Return the object's hash (for the chain) if it is whole and signed. Raises VaultDamaged.

    With a writer's keys, any of them is good that was not revoked when the object was made.
    """
    view = memoryview(data)
    if len(view) < HEADER_AT + TRAILER_SIZE or bytes(view[-4:]) != TRAILER_MAGIC:
        raise VaultDamaged("the object is cut off")
    hashed = bytes(view[-TRAILER_SIZE : -TRAILER_SIZE + crypto.HASH_SIZE])
    signature = bytes(view[-TRAILER_SIZE + crypto.HASH_SIZE : -4])
    if crypto.digest(view[:-TRAILER_SIZE]) != hashed:
        raise VaultDamaged("the object does not match its hash")
    keys = (CertifiedKey(verify_key),) if isinstance(verify_key, bytes) else verify_key
    for key in keys:
        if crypto.is_signed(key.public, signature, _SIGNED_CONTEXT + hashed):
            if key.revoked_from_us and _created_us(view) >= key.revoked_from_us:
                raise VaultDamaged("the object is signed with a key that was revoked by then")
            return hashed
    raise VaultDamaged("the object is not signed by its writer")


def _created_us(view: memoryview) -> int:
    body = bytes(view[HEADER_AT : header_end(view)])
    return wire.decode(_HEADER, body, "the header").t


def signed_hash(data: Buffer) -> bytes:
    """Return the hash stored in a signed object's trailer, unchecked: for our own fresh objects."""
    return bytes(data[-TRAILER_SIZE : -TRAILER_SIZE + crypto.HASH_SIZE])


def padme(size: int) -> int:
    """Return `size` rounded up by Padmé: at most 12 % more, and few distinct sizes (PETS 2019)."""
    if size < 2:  # noqa: PLR2004 - no bits to round
        return size
    exponent = size.bit_length() - 1
    free_bits = exponent - exponent.bit_length()
    mask = (1 << max(free_bits, 0)) - 1
    return (size + mask) & ~mask


def multiple_of(step: int) -> Callable[[int], int]:
    """Return a rounding of sizes up to multiples of `step`."""
    return lambda size: -(-size // step) * step
