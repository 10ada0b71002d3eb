"""The few cryptographic operations of the format, over one library, none of them our own.

AEAD is AES-256-GCM with 96-bit nonces; a nonce is never used twice because every key belongs to one
object and one purpose. Keys are derived with HKDF-SHA256, session keys are sealed to public keys
with HPKE (RFC 9180, base mode), objects are signed with Ed25519. Chunk ids and all other hashes
are BLAKE3.
"""

from enum import IntEnum
from typing import Final

from blake3 import blake3
from cryptography.exceptions import (
    InternalError,
    InvalidSignature,
    InvalidTag,
    UnsupportedAlgorithm,
)
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from streamd.errors import FormatUnsupported, KeyRejected, VaultDamaged

try:  # the classes ask first whether the library has these, and load 15 modules for that
    from cryptography.hazmat.bindings._rust import openssl

    _private_curve = openssl.x25519.from_private_bytes
    _public_curve = openssl.x25519.from_public_bytes
    _private_lattice = openssl.mlkem.from_mlkem768_seed_bytes
    _public_lattice = openssl.mlkem.from_mlkem768_public_bytes
except (ImportError, AttributeError):  # pragma: no cover - a library other than the pinned one
    _private_curve = x25519.X25519PrivateKey.from_private_bytes
    _public_curve = x25519.X25519PublicKey.from_public_bytes
    _private_lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes
    _public_lattice = mlkem.MLKEM768PublicKey.from_public_bytes

Buffer = bytes | bytearray | memoryview

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
HASH_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
_NONCE_SIZE: Final = 12
_MLKEM_SEED_SIZE: Final = 64
_MLKEM_PUBLIC_SIZE: Final = 1184
_HPKE_AEAD: Final = hpke.AEAD.AES_256_GCM
_HPKE_KDF: Final = hpke.KDF.HKDF_SHA256


class AeadSuite(IntEnum):
    """How sections and frames are encrypted."""

    AES256GCM = 1


class Kem(IntEnum):
    """How session keys are sealed to a public key."""

    X25519 = 1
    MLKEM768_X25519 = 2  # post-quantum hybrid, the default


KEM_NAMES: Final = {Kem.X25519: "x25519", Kem.MLKEM768_X25519: "mlkem768-x25519"}


def digest(data: Buffer) -> bytes:
    """Return the BLAKE3-256 of `data`."""
    return blake3(data).digest()


def keyed_digest(key: bytes, data: Buffer) -> bytes:
    """Return the keyed BLAKE3-256 of `data`: the id of a chunk."""
    return blake3(data, key=key).digest()


def derive(secret: bytes, *, salt: bytes, info: bytes, size: int = KEY_SIZE) -> bytes:
    """Return `size` bytes of key material for one purpose (HKDF-SHA256)."""
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=salt, info=info).derive(secret)


def nonce_of(ordinal: int) -> bytes:
    """Return the 96-bit big-endian nonce of the `ordinal`-th message under a key."""
    return ordinal.to_bytes(_NONCE_SIZE, "big")


def encrypt(cipher: AESGCM, ordinal: int, plain: Buffer, aad: bytes) -> bytearray:
    """Return ciphertext and tag. Releases the interpreter lock while it works."""
    out = bytearray(len(plain) + TAG_SIZE)
    cipher.encrypt_into(nonce_of(ordinal), plain, aad, out)
    return out


def decrypt(cipher: AESGCM, ordinal: int, data: Buffer, aad: bytes) -> bytes:
    """Return the plaintext, or raise VaultDamaged if `data` or `aad` is not what was sealed."""
    try:
        return cipher.decrypt(nonce_of(ordinal), data, aad)
    except (InvalidTag, ValueError) as error:
        raise VaultDamaged("an encrypted part does not authenticate") from error


def cipher_for(key: bytes) -> AESGCM:
    """Return the AEAD for `key`."""
    return AESGCM(key)


def check_suite(number: int) -> None:
    """Raise FormatUnsupported unless parts under this suite can be opened here."""
    if number != AeadSuite.AES256GCM:
        raise FormatUnsupported(f"encryption suite {number} is unknown")


# -- sealing to public keys ----------------------------------------------------------------------


def generate_private(kem: Kem) -> bytes:
    """Return a new private key in its stored form: X25519 raw, or ML-KEM seed then X25519 raw."""
    curve = x25519.X25519PrivateKey.generate().private_bytes_raw()
    if kem is Kem.X25519:
        return curve
    return mlkem.MLKEM768PrivateKey.generate().private_bytes_raw() + curve


def private_from(kem: Kem, secret: bytes, info: bytes) -> bytes:
    """Return the private key, in its stored form, that follows from a secret."""
    size = KEY_SIZE if kem is Kem.X25519 else _MLKEM_SEED_SIZE + KEY_SIZE
    return derive(secret, salt=b"", info=info, size=size)


def has_kem(kem: Kem) -> bool:
    """Say whether the library here can seal with `kem`; not every build of it has ML-KEM."""
    try:
        public_of(kem, private_from(kem, bytes(KEY_SIZE), b""))
    except (UnsupportedAlgorithm, InternalError):
        return False
    return True


def best_kem() -> Kem:
    """Return the strongest KEM that the library here has: what a new vault uses."""
    return Kem.MLKEM768_X25519 if has_kem(Kem.MLKEM768_X25519) else Kem.X25519


def check_kem(kem: Kem) -> None:
    """Raise FormatUnsupported unless the library here can seal and open with `kem`."""
    if not has_kem(kem):
        raise FormatUnsupported(f"the vault seals with {KEM_NAMES[kem]}, unknown to the library")


def public_of(kem: Kem, private: bytes) -> bytes:
    """Return the public key of `private`, in its stored form."""
    if kem is Kem.X25519:
        return _private_curve(private).public_key().public_bytes_raw()
    seed, curve = private[:_MLKEM_SEED_SIZE], private[_MLKEM_SEED_SIZE:]
    lattice = _private_lattice(seed).public_key().public_bytes_raw()
    return lattice + public_of(Kem.X25519, curve)


def check_public(kem: Kem, public: bytes) -> None:
    """Raise VaultDamaged unless `public` can be a public key of that KEM."""
    if len(public) != KEY_SIZE + (0 if kem is Kem.X25519 else _MLKEM_PUBLIC_SIZE):
        raise VaultDamaged("a public key has the wrong size")


def _suite(kem: Kem) -> hpke.Suite:
    chosen = hpke.KEM.X25519 if kem is Kem.X25519 else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(chosen, _HPKE_KDF, _HPKE_AEAD)


def seal_to(kem: Kem, public: bytes, secret: bytes, info: bytes) -> bytes:
    """Return `secret`, readable only with the private key of `public` and the same `info`."""
    if kem is Kem.X25519:
        return _suite(kem).encrypt(secret, _public_curve(public), info)
    key = hpke.MLKEM768X25519PublicKey(
        _public_lattice(public[:_MLKEM_PUBLIC_SIZE]),
        _public_curve(public[_MLKEM_PUBLIC_SIZE:]),
    )
    return _suite(kem).encrypt(secret, key, info)


def open_sealed(kem: Kem, private: bytes, sealed: bytes, info: bytes) -> bytes:
    """Return what `seal_to` sealed. Raises KeyRejected for another key or altered bytes."""
    try:
        if kem is Kem.X25519:
            return _suite(kem).decrypt(sealed, _private_curve(private), info)
        key = hpke.MLKEM768X25519PrivateKey(
            _private_lattice(private[:_MLKEM_SEED_SIZE]),
            _private_curve(private[_MLKEM_SEED_SIZE:]),
        )
        return _suite(kem).decrypt(sealed, key, info)
    except (InvalidTag, ValueError) as error:
        raise KeyRejected("the private key does not open a session key") from error


def kem_of(number: int) -> Kem:
    """Return the KEM with that number. Raises FormatUnsupported."""
    try:
        return Kem(number)
    except ValueError as error:
        raise FormatUnsupported(f"key encapsulation {number} is unknown") from error


# -- signatures ----------------------------------------------------------------------------------


def generate_signing_key() -> bytes:
    """Return a new Ed25519 private key, raw."""
    return ed25519.Ed25519PrivateKey.generate().private_bytes_raw()


def verify_key_of(signing_key: bytes) -> bytes:
    """Return the public half of an Ed25519 key, raw."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(signing_key)
    return key.public_key().public_bytes_raw()


def sign(signing_key: bytes, message: bytes) -> bytes:
    """Return the Ed25519 signature of `message`."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(signing_key).sign(message)


def is_signed(verify_key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether `signature` over `message` was made with the private half of `verify_key`."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(verify_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
