"""The vault's configuration and the writers' certificates: signed JSON, readable by a person.

    {"body": {...}, "sig": "<hex>"}

The signature is Ed25519 by the admin key over "streamd/v1/json|" and the exact bytes of `body` as
they stand in the file. A reader keeps those bytes; it never re-encodes them.
"""

import re
from typing import Final, TypeVar

import msgspec

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format import crypto, wire
from streamd.format.envelope import MAJOR
from streamd.format.keys import PublicRing

FORMAT: Final = "streamd-vault"
_CONTEXT: Final = b"streamd/v1/json|"
KNOWN_FEATURES: Final = frozenset[str]()  # mandatory features this streamd understands


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """The algorithms of this vault, by name, for people; numbers stand in the objects."""

    aead: str = "aes256gcm"
    kem: str = "mlkem768-x25519"
    id: str = "blake3-keyed"
    signature: str = "ed25519"


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """Mandatory features by kind of operation: an unknown one forbids that operation."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    maintain: tuple[str, ...] = ()


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What hosts seal to from now on, in hex; they follow a newer generation by themselves."""

    kem: int
    generation: int
    meta: str
    data: str


class VaultConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person with nothing else needs to know about a vault."""

    format: str
    major: int
    id: str
    created: str  # RFC 3339
    number: int
    suite: Suite
    features: Features
    domains: dict[str, tuple[str, ...]]  # domain id -> writer ids
    admin_public: str  # hex
    specification: str  # where the format is described
    public: PublicKeys | None = None
    ring: str = ""  # object name of the key ring in force


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The admin vouches for a writer's signing key."""

    vault: str
    domain: str
    writer: str
    number: int
    public: str  # Ed25519, hex
    host: str
    created: str
    revoked_from_us: int = 0


class _Signed(msgspec.Struct, frozen=True):
    body: msgspec.Raw
    sig: str


class _FormatOnly(msgspec.Struct, frozen=True):
    format: str
    major: int


_SIGNED: Final = msgspec.json.Decoder(_Signed)
_FORMAT_ONLY: Final = msgspec.json.Decoder(_FormatOnly)
_HEX_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")
T = TypeVar("T", VaultConfig, Certificate)


def encode_signed(body: VaultConfig | Certificate, admin_key: bytes) -> bytes:
    """Return the signed JSON of `body`."""
    raw = msgspec.json.format(msgspec.json.encode(body), indent=2)
    signature = crypto.sign(admin_key, _CONTEXT + raw)
    return b'{"body": ' + raw + b', "sig": "' + signature.hex().encode() + b'"}\n'


def decode_signed(data: bytes, admin_public: bytes, kind: type[T]) -> T:
    """Parse and authenticate signed JSON. Raises VaultDamaged.

    Raises FormatUnsupported for a configuration of another format, which an older one of this
    format must not stand in for.
    """
    signed = wire.decode(_SIGNED, data, "a signed document")
    raw = bytes(signed.body)
    if not _HEX_SIGNATURE.fullmatch(signed.sig):  # one spelling only: lower case, no blanks
        raise VaultDamaged("the signature of a document does not parse")
    if not crypto.is_signed(admin_public, bytes.fromhex(signed.sig), _CONTEXT + raw):
        raise VaultDamaged("a signed document is not signed by the vault's admin key")
    if kind is VaultConfig:  # whatever else it says may be said in another way in another format
        _check_format(wire.decode(_FORMAT_ONLY, raw, "a signed document"))
    return wire.decode(msgspec.json.Decoder(kind), raw, "a signed document")


def _check_format(config: "VaultConfig | _FormatOnly") -> None:
    if config.format != FORMAT or config.major != MAJOR:
        raise FormatUnsupported(f"the vault has format {config.format} {config.major}")


def decode_unsigned(data: bytes, kind: type[T]) -> T:
    """Parse signed JSON without believing it: for what finds a key first. Raises VaultDamaged."""
    signed = wire.decode(_SIGNED, data, "a signed document")
    return wire.decode(msgspec.json.Decoder(kind), bytes(signed.body), "a signed document")


def published(public: PublicRing) -> PublicKeys:
    """Return the public keys as the configuration shows them."""
    return PublicKeys(
        kem=public.kem,
        generation=public.generation,
        meta=public.meta.hex(),
        data=public.data.hex(),
    )


def public_ring(config: VaultConfig, pinned: PublicRing) -> PublicRing:
    """Return the public keys in force: those of the configuration unless `pinned` are newer.

    Raises VaultDamaged if the configuration's do not parse; the admin key is the pinned one.
    """
    shown = config.public
    if shown is None or shown.generation <= pinned.generation:
        return pinned
    try:
        meta, data = bytes.fromhex(shown.meta), bytes.fromhex(shown.data)
    except ValueError as error:
        raise VaultDamaged("the public keys of the configuration do not parse") from error
    crypto.check_public(crypto.kem_of(shown.kem), meta)
    crypto.check_public(crypto.kem_of(shown.kem), data)
    return PublicRing(
        kem=shown.kem, generation=shown.generation, meta=meta, data=data, admin=pinned.admin
    )


def check_supported(config: VaultConfig, features: tuple[str, ...]) -> None:
    """Raise FormatUnsupported unless this streamd may do an operation that needs `features`."""
    _check_format(config)
    unknown = sorted(set(features) - KNOWN_FEATURES)
    if unknown:
        raise FormatUnsupported(f"the vault needs features unknown here: {', '.join(unknown)}")
