"""Compression: what goes in comes out, and never more than was declared."""

import lz4.block
import pytest
import zstandard

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format.codec import (
    PLAIN_SIZE_MAX,
    ZSTD_WINDOW_MAX,
    Codec,
    compress,
    compress_all,
    decompress,
)

TEXT = b"the same again and " * 50
NOISE = bytes(range(256))


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_what_compresses_is_compressed(codec: Codec) -> None:
    used, packed = compress(TEXT, codec)
    assert used is codec
    assert len(packed) < len(TEXT)
    assert decompress(packed, used, len(TEXT)) == TEXT


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("plain", [b"", b"x", NOISE])
def test_what_does_not_compress_is_stored_as_it_is(codec: Codec, plain: bytes) -> None:
    assert compress(plain, codec) == (Codec.RAW, plain)
    assert decompress(plain, Codec.RAW, len(plain)) == plain


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize(
    "plains",
    [
        [TEXT],
        [TEXT, NOISE, TEXT[:100]],
        [memoryview(TEXT)[7:], bytearray(NOISE), b"x", TEXT * 5000],
        [TEXT, b"", NOISE],
        [],
    ],
)
def test_many_at_once_become_what_they_become_singly(codec: Codec, level: int, plains) -> None:
    many = [(used, bytes(packed)) for used, packed in compress_all(plains, codec, level)]
    singly = [compress(plain, codec, level) for plain in plains]
    assert many == [(used, bytes(packed)) for used, packed in singly]


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("declared", [0, 1, len(TEXT) - 1, len(TEXT) + 1])
def test_a_wrong_size_is_damage(codec: Codec, declared: int) -> None:
    with pytest.raises(VaultDamaged):
        decompress(compress(TEXT, codec)[1], codec, declared)
    with pytest.raises(VaultDamaged):
        decompress(TEXT, Codec.RAW, declared)


@pytest.mark.parametrize("declared", [-1, PLAIN_SIZE_MAX + 1, 2**63])
def test_more_than_the_format_allows_is_refused_before_decompressing(declared: int) -> None:
    with pytest.raises(VaultDamaged, match="more than the format allows"):
        decompress(b"", Codec.RAW, declared)


@pytest.mark.parametrize("codec", [3, 255, -1])
def test_an_unknown_codec_needs_a_newer_streamd(codec: int) -> None:
    with pytest.raises(FormatUnsupported):
        decompress(b"", codec, 0)


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("junk", [b"", b"\x00", b"\xff" * 40, b"\x28\xb5\x2f\xfd"])
def test_junk_does_not_decompress(codec: Codec, junk: bytes) -> None:
    with pytest.raises(VaultDamaged):
        decompress(junk, codec, 100)


def test_a_frame_that_declares_more_than_its_row_is_not_believed() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(10_000_000))  # size in its own header
    with pytest.raises(VaultDamaged, match="more or less"):
        decompress(bomb, Codec.ZSTD, 10)
    huge = b"\x28\xb5\x2f\xfd\xc0\x00" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(VaultDamaged, match="more or less"):
        decompress(huge, Codec.ZSTD, 10)


def test_a_frame_that_declares_exactly_its_row_is_read() -> None:
    packed = zstandard.ZstdCompressor().compress(TEXT)
    assert decompress(packed, Codec.ZSTD, len(TEXT)) == TEXT


def test_bytes_after_a_zstd_frame_are_damage() -> None:
    _, packed = compress(TEXT, Codec.ZSTD)
    with pytest.raises(VaultDamaged):
        decompress(bytes(packed) + b"x", Codec.ZSTD, len(TEXT))


def test_a_window_that_needs_more_memory_than_agreed_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(
        window_log=ZSTD_WINDOW_MAX.bit_length(), write_content_size=False
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(TEXT) + packer.flush()
    with pytest.raises(VaultDamaged):
        decompress(packed, Codec.ZSTD, len(TEXT))


def test_a_longer_lz4_block_is_cut_off_by_the_declared_size() -> None:
    bomb = lz4.block.compress(bytes(10_000_000), store_size=False)
    with pytest.raises(VaultDamaged):
        decompress(bomb, Codec.LZ4, 10)
