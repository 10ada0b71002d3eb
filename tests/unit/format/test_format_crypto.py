"""The cryptographic operations: they agree with themselves and fail in one way."""

import pytest
from golden.materials import WRITER_PUBLIC, fixed, private_key

from streamd.errors import FormatUnsupported, KeyRejected, VaultDamaged
from streamd.format import crypto
from streamd.format.crypto import Kem

CIPHER = crypto.cipher_for(fixed("some key"))


def test_what_is_encrypted_comes_back_and_is_bound_to_ordinal_and_data() -> None:
    sealed = crypto.encrypt(CIPHER, 7, b"plain", b"about")
    assert len(sealed) == 5 + crypto.TAG_SIZE
    assert crypto.decrypt(CIPHER, 7, sealed, b"about") == b"plain"
    for ordinal, aad in ((8, b"about"), (7, b"another")):
        with pytest.raises(VaultDamaged):
            crypto.decrypt(CIPHER, ordinal, sealed, aad)


@pytest.mark.parametrize("size", [0, 1, crypto.TAG_SIZE - 1])
def test_less_than_a_tag_is_damage(size: int) -> None:
    with pytest.raises(VaultDamaged):
        crypto.decrypt(CIPHER, 0, bytes(size), b"")


def test_a_nonce_is_twelve_bytes_big_endian() -> None:
    assert crypto.nonce_of(258) == bytes(10) + b"\x01\x02"


def test_hkdf_is_that_of_rfc_5869() -> None:
    derived = crypto.derive(
        bytes([0x0B]) * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), size=42
    )
    assert derived.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


@pytest.mark.parametrize("kem", list(Kem))
def test_a_sealed_secret_opens_with_the_right_key_and_info_only(kem: Kem) -> None:
    private, other = crypto.generate_private(kem), crypto.generate_private(kem)
    sealed = crypto.seal_to(kem, crypto.public_of(kem, private), b"secret", b"info")
    assert crypto.open_sealed(kem, private, sealed, b"info") == b"secret"
    for key, box, info in (
        (other, sealed, b"info"),
        (private, sealed, b"inf"),
        (private, sealed[:-1], b"info"),
        (private, b"", b"info"),
        (private[:-1], sealed, b"info"),
        (b"", sealed, b"info"),
    ):
        with pytest.raises(KeyRejected):
            crypto.open_sealed(kem, key, box, info)


def test_public_keys_follow_from_stored_private_keys() -> None:
    hybrid = crypto.public_of(Kem.MLKEM768_X25519, private_key(Kem.MLKEM768_X25519, "META"))
    assert len(hybrid) == 1184 + 32
    curve = private_key(Kem.MLKEM768_X25519, "META")[64:]
    assert hybrid[1184:] == crypto.public_of(Kem.X25519, curve)


def test_numbers_from_the_future_are_told_apart_from_damage() -> None:
    assert crypto.kem_of(1) is Kem.X25519
    for unknown in (0, 3, -1, 2**70):
        with pytest.raises(FormatUnsupported):
            crypto.kem_of(unknown)
    crypto.check_suite(1)
    for unknown in (0, 2, 2**70):
        with pytest.raises(FormatUnsupported):
            crypto.check_suite(unknown)


def test_a_signature_is_good_for_its_message_and_key_only() -> None:
    signing = crypto.generate_signing_key()
    public = crypto.verify_key_of(signing)
    signature = crypto.sign(signing, b"message")
    assert crypto.is_signed(public, signature, b"message")
    assert not crypto.is_signed(public, signature, b"massage")
    assert not crypto.is_signed(WRITER_PUBLIC, signature, b"message")
    assert not crypto.is_signed(public, b"", b"message")
    assert not crypto.is_signed(b"short", signature, b"message")
