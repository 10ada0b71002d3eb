"""The state sum: one number that any replay can be checked against, for the price of a hash.

The sum, modulo 2^256, of BLAKE3(u32 length of key | key | value) over all live keys of a source. It
guards against our own mistakes, not against an adversary: signatures do that.
"""

from typing import Final

from blake3 import blake3

MODULUS: Final = 1 << 256


def term(key: bytes, value: bytes) -> int:
    """Return what one live key adds to the sum."""
    data = len(key).to_bytes(4, "little") + key + value
    return int.from_bytes(blake3(data).digest(), "little")


def to_bytes(total: int) -> bytes:
    """Return the stored form of a sum."""
    return (total % MODULUS).to_bytes(32, "little")
