"""Texture: what the beginning of a file's content looks like.

Encrypted bytes look like random ones, and they do not say what they are. Compressed formats look
random too, but begin with a magic number; text and programs do not look random. So a file that did
not look random and now does, without a magic number, was most likely encrypted.

Pure, and asked of every file that is read: nearly all are answered by one or two calls that run in
C. Only what may be random is counted byte by byte.
"""

from collections import Counter
from enum import Enum
from typing import Final

SAMPLE_BYTES: Final = 4096  # of the beginning that are looked at
SAMPLE_BYTES_MIN: Final = 256  # chance decides about less
# The sum of squared deviations of 256 counts (chi-square) is 255 on average for random bytes, with
# a deviation of 22.6, whatever the size of the sample; for text and programs it is some thousands.
_UNEVENNESS_MAX: Final = 255 + 6 * 22.6
_COUNTED_BYTES: Final = 1024  # of the sample: enough to tell, and a quarter of the time
# Of random bytes 29 of 256 are control characters. Text of any script has hardly any; programs and
# tables have many, most of them zeros.
_NO_CONTROLS: Final = bytes({*range(32, 256), *b"\t\n\r"})
_CONTROLS_MIN: Final = 0.03
_CONTROLS_MAX: Final = 0.25

_FTYP: Final = b"ftyp"  # of MP4, HEIC and their kind, at offset 4
_MAGIC: Final = (
    # archives and compressed streams
    *(b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf"),
    *(b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"Rar!", b"LZIP", b"\x5d\x00\x00", b"xar!"),
    *(b"\xff\x06\x00\x00sNaPpY", b"MSCF", b"hsqs", b"!<arch>", b"\xed\xab\xee\xdb"),
    *(b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"),  # zlib: git's objects
    # pictures, sound, films
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*", b"\xff\x0a", b"8BPS"),
    *(b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"FLV\x01"),
    *(b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75", b"FORM"),
    # documents, fonts, tables
    *(b"%PDF", b"\xd0\xcf\x11\xe0", b"wOFF", b"wOF2", b"PAR1", b"Obj\x01", b"ORC", b"\x89HDF"),
    *(b"\x93NUMPY", b"SQLite format 3", b"PACK", b"DIRC", b"AT&TFORM", b"ITOLITLS"),
)


class Texture(Enum):
    """What a beginning looks like."""

    PLAIN = 0  # like data of a known kind, or too little to tell
    RANDOM = 1  # like random bytes, and nothing says of which kind they are
    BLANK = 2  # one byte over and over


def texture(sample: bytes) -> Texture:
    """Return what the first `SAMPLE_BYTES` of a file, or all of it, look like."""
    if len(sample) < SAMPLE_BYTES_MIN or sample.isascii():
        return Texture.BLANK if sample and _is_blank(sample) else Texture.PLAIN
    controls = len(sample.translate(None, _NO_CONTROLS)) / len(sample)
    if not _CONTROLS_MIN < controls < _CONTROLS_MAX:
        return Texture.BLANK if _is_blank(sample) else Texture.PLAIN
    if sample.startswith(_MAGIC) or sample[4:8] == _FTYP:
        return Texture.PLAIN
    is_even = _unevenness(sample[:_COUNTED_BYTES]) <= _UNEVENNESS_MAX
    return Texture.RANDOM if is_even else Texture.PLAIN


def _is_blank(sample: bytes) -> bool:
    """Say whether a sample is one byte; in a small file that means something of zeros only."""
    first = sample[0]
    if first != sample[-1] or first != sample[len(sample) // 2]:
        return False  # as nearly always, and counting takes its time
    return sample.count(first) == len(sample) and (len(sample) >= SAMPLE_BYTES_MIN or first == 0)


def _unevenness(sample: bytes) -> float:
    """Return chi-square of the byte values against all of them being equally likely."""
    size = len(sample)
    return sum(count * count for count in Counter(sample).values()) * 256 / size - size
