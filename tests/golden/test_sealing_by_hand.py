"""How session keys are sealed, from RFC 9180 and FIPS 203 alone: nothing of ours, no HPKE library.

This is what a reader in another language has to do; docs/format.md section 5 says it in words.
"""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from golden.materials import VECTORS

SESSIONS: dict[str, dict[str, Any]] = json.loads((VECTORS / "sessions.json").read_text("utf-8"))
KEYS: dict[str, str] = json.loads((VECTORS / "manifest.json").read_text("utf-8"))["keys"]
DHKEM, XWING = 0x0020, 0x647A
HKDF_SHA256, AES_256_GCM = 0x0001, 0x0002
XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")


def _extract(salt: bytes, key: bytes) -> bytes:
    return hmac.new(salt or bytes(32), key, hashlib.sha256).digest()


def _expand(key: bytes, info: bytes, size: int) -> bytes:
    out, block = b"", b""
    for counter in range(1, 4):
        block = hmac.new(key, block + info + bytes((counter,)), hashlib.sha256).digest()
        out += block
    return out[:size]


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return _extract(salt, b"HPKE-v1" + suite + label + key)


def _labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return _expand(key, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, size)


def _dhkem(private: bytes, enc: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    suite = b"KEM" + DHKEM.to_bytes(2, "big")
    prk = _labeled_extract(suite, b"", b"eae_prk", shared)
    context = enc + key.public_key().public_bytes_raw()
    return _labeled_expand(suite, prk, b"shared_secret", context, 32)


def _xwing(private: bytes, enc: bytes) -> bytes:
    lattice = MLKEM768PrivateKey.from_seed_bytes(private[:64])
    curve = X25519PrivateKey.from_private_bytes(private[64:])
    inner, point = enc[:1088], enc[1088:]
    first = lattice.decapsulate(inner)
    second = curve.exchange(X25519PublicKey.from_public_bytes(point))
    public = curve.public_key().public_bytes_raw()
    return hashlib.sha3_256(first + second + point + public + XWING_LABEL).digest()


def open_by_hand(row: dict[str, Any], private: bytes) -> bytes:
    """Return the session secret behind a row of `sessions.json`."""
    kem, size, decapsulate = ((DHKEM, 32, _dhkem), (XWING, 1120, _xwing))[row["kem"] - 1]
    sealed = bytes.fromhex(row["sealed"])
    enc, body = sealed[:size], sealed[size:]
    info = (
        b"streamd/v1/session|"
        + bytes.fromhex(KEYS["vault"])
        + bytes((row["role"],))
        + row["generation"].to_bytes(4, "big")
        + bytes.fromhex(row["session"])
    )
    suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (kem, HKDF_SHA256, AES_256_GCM))
    context = (
        b"\x00"
        + _labeled_extract(suite, b"", b"psk_id_hash", b"")
        + _labeled_extract(suite, b"", b"info_hash", info)
    )
    secret = _labeled_extract(suite, decapsulate(private, enc), b"secret", b"")
    key = _labeled_expand(suite, secret, b"key", context, 32)
    nonce = _labeled_expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, body, b"")


@pytest.mark.parametrize(
    ("session", "key"),
    [
        ("meta", "meta_private_mlkem768_x25519"),
        ("data", "data_private_mlkem768_x25519"),
        ("data-2", "data_private_mlkem768_x25519"),
        ("data-x25519", "data_private_x25519"),
    ],
)
def test_the_recorded_sessions_open_by_the_standards_alone(session: str, key: str) -> None:
    row = SESSIONS[session]
    assert open_by_hand(row, bytes.fromhex(KEYS[key])).hex() == row["secret"]
