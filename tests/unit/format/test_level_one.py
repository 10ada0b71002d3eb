"""What level 1 of zstd is: smaller than the library's own, and any reader's to open."""

import random

import zstandard

from streamd.format.codec import Codec, compress, decompress


def words(size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    some = [rng.randbytes(rng.randrange(2, 10)).hex().encode() for _ in range(2000)]
    return b" ".join(rng.choices(some, k=size // 8))[:size]


def test_level_one_is_smaller_than_the_librarys_own():
    plain = words(1 << 20, 1)
    own = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(plain)
    codec, packed = compress(plain, Codec.ZSTD, 1)
    assert codec is Codec.ZSTD
    assert len(packed) < len(own)
    assert zstandard.ZstdDecompressor().decompress(packed, max_output_size=len(plain)) == plain


def test_a_context_that_was_used_compresses_like_a_new_one():
    plain = words(300_000, 2)
    first = bytes(compress(plain, Codec.ZSTD, 1)[1])
    compress(words(1 << 20, 3), Codec.ZSTD, 1)
    compress(plain, Codec.ZSTD, 6)
    assert bytes(compress(plain, Codec.ZSTD, 1)[1]) == first
    assert decompress(first, Codec.ZSTD, len(plain)) == plain
