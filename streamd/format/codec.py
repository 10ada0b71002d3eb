"""Compression of sections and frames: a number, and a bound on what may come out.

Decompression never produces more than the authenticated header declares, so that a damaged or
hostile object cannot exhaust memory.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import zstandard

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format.crypto import Buffer

PLAIN_SIZE_MAX: Final = 64 * 1024 * 1024  # nothing in the format is larger before compression
ZSTD_WINDOW_MAX: Final = 8 * 1024 * 1024  # memory a reader needs; enough for levels up to 19


class Codec(IntEnum):
    """How a frame or section is compressed; stored with each."""

    RAW = 0
    LZ4 = 1  # block format, without a size prefix
    ZSTD = 2  # one frame; the level is the writer's business


# What level 1 means here, for frames of up to 1 MiB. The library's own looks for seven equal bytes
# in such a frame; six find 2 % more in text and 3 % more in a tree of programs, in 5 % less time,
# for fewer bytes are left to be encoded. The table, 128 KiB, and as far as a match may lie back,
# 256 KiB, stay in the cache of a core: against a table of half that and the whole frame to look
# back into, 0.6 to 1.1 % less is stored, and text takes 4 to 5 % less time, programs 3 % more.
_FAST: Final = zstandard.ZstdCompressionParameters(
    window_log=18,
    hash_log=15,
    chain_log=12,
    search_log=1,
    min_match=6,
    target_length=0,
    strategy=zstandard.STRATEGY_FAST,
    write_content_size=False,
)

# Contexts that nobody uses at the moment: making one clears the tables that it starts from. There
# are never more of them than threads that compressed at one time.
_idle: Final[list[zstandard.ZstdCompressor]] = []


def _context(level: int) -> zstandard.ZstdCompressor:
    if level == 1:
        return zstandard.ZstdCompressor(compression_params=_FAST)
    return zstandard.ZstdCompressor(level=level, write_content_size=False)


def _squeeze(plain: Buffer, level: int) -> bytes:
    if level != 1:
        return _context(level).compress(plain)
    try:
        context = _idle.pop()
    except IndexError:
        context = _context(level)
    packed = context.compress(plain)
    _idle.append(context)
    return packed


def compress(plain: Buffer, codec: Codec, level: int = 1) -> tuple[Codec, Buffer]:
    """Return the compressed bytes and the codec really used: RAW when compression does not pay."""
    if codec is Codec.RAW or len(plain) == 0:
        return Codec.RAW, plain
    if codec is Codec.LZ4:
        from lz4 import block  # where it is in use

        packed = block.compress(plain, store_size=False)
    else:
        packed = _squeeze(plain, level)
    if len(packed) >= len(plain):
        return Codec.RAW, plain
    return codec, packed


def compress_all(
    plains: Sequence[Buffer], codec: Codec, level: int = 1
) -> list[tuple[Codec, Buffer]]:
    """Do what `compress` does to each; the interpreter's lock is given away once for all."""
    if codec is not Codec.ZSTD or len(plains) <= 1 or not all(plains):
        return [compress(plain, codec, level) for plain in plains]
    many = _context(level).multi_compress_to_buffer(list(plains), threads=1)
    results: list[tuple[Codec, Buffer]] = []
    for i, plain in enumerate(plains):
        packed = memoryview(many[i])  # type: ignore[arg-type] # a buffer, says its documentation
        results.append((Codec.RAW, plain) if len(packed) >= len(plain) else (codec, packed))
    return results


def _unzstd(data: Buffer, plain_size: int) -> bytes:
    # The library believes a size in the frame's own header before it believes ours, so look first.
    if zstandard.frame_content_size(data) not in {-1, plain_size}:
        raise VaultDamaged("a part holds more or less than it declares")
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    return decompressor.decompress(data, max_output_size=plain_size, allow_extra_data=False)


def _unlz4(data: Buffer, plain_size: int) -> bytes:
    from lz4 import block

    try:
        plain: bytes = block.decompress(data, uncompressed_size=plain_size)
    except block.LZ4BlockError as error:
        raise ValueError(str(error)) from error
    return plain


def decompress(data: Buffer, codec: int, plain_size: int) -> Buffer:
    """Return exactly `plain_size` bytes, or raise VaultDamaged."""
    if not 0 <= plain_size <= PLAIN_SIZE_MAX:
        raise VaultDamaged(f"a part declares {plain_size} bytes, more than the format allows")
    plain: Buffer
    try:
        if codec == Codec.RAW:
            plain = data
        elif codec == Codec.LZ4:
            plain = _unlz4(data, plain_size)
        elif codec == Codec.ZSTD:
            plain = _unzstd(data, plain_size)
        else:
            raise FormatUnsupported(f"compression {codec} is unknown")
    except (zstandard.ZstdError, ValueError) as error:
        raise VaultDamaged("a part does not decompress") from error
    if len(plain) != plain_size:
        raise VaultDamaged(f"a part has {len(plain)} bytes and declares {plain_size}")
    return plain
