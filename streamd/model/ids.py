"""Identifiers: what they are made of, and how they are printed.

All are bytes inside; text is lower-case RFC 4648 base32 without padding, as in object names.
"""

import base64
import binascii
from typing import Final, NewType

VaultId = NewType("VaultId", bytes)  # 16 random bytes
DomainId = NewType("DomainId", bytes)  # 16 random bytes: one dedup domain, by default one host
WriterId = NewType("WriterId", bytes)  # 16 random bytes: one journal
SourceId = NewType("SourceId", bytes)  # 16 bytes, keyed hash of the source's name
ChunkId = NewType("ChunkId", bytes)  # 32 bytes, keyed BLAKE3 of the plaintext
Fid = NewType("Fid", int)  # u64, one file of one source, never used again

ID_SIZE: Final = 16
CHUNK_ID_SIZE: Final = 32
ROOT_FID: Final = Fid(1)  # the virtual root: its entries are the source's configured paths
FID_EPOCH_SHIFT: Final = 40  # fid = epoch << 40 | counter: unique without asking anybody


def to_text(raw: bytes) -> str:
    """Return `raw` in base32, lower case, unpadded."""
    return base64.b32encode(raw).decode("ascii").rstrip("=").lower()


def from_text(text: str) -> bytes:
    """Return the bytes that `to_text` printed. Raises ValueError for anything else."""
    try:
        raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except binascii.Error as error:
        raise ValueError(f"not base32: {text!r}") from error
    if to_text(raw) != text:
        raise ValueError(f"not canonical base32: {text!r}")
    return raw
