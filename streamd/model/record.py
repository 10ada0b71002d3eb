"""Journal records: the key/value log that is a source's history.

A record's time is its segment's time plus `dt_us`, never decreasing inside a journal. The state of
a source at T is: its last checkpoint at or before T, then every record up to T in order.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from streamd.model.ids import Fid


class Op(IntEnum):
    """What a record does."""

    SET = 0
    DEL = 1
    PATCH = 2  # reserved: content splice for big files
    MARK = 3  # a named recovery point: value is a Mark
    GAP = 4  # nothing is promised inside: value is a Gap
    CKPT = 5  # a checkpoint was published: key is its object name
    ACK = 6  # condemn generation acknowledged: value is an 8-byte big-endian number
    STATE = 7  # value is a StateSum: what replay must arrive at
    SEAL = 8  # the last record of an epoch: value says why
    NOTE = 9
    RESET = 10  # the source's state is empty from here on: value says why


NO_SOURCE: Final = -1  # source_ix of records that concern the writer, not a source


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record of a segment; `source_ix` points into the segment header's table of sources."""

    op: int
    dt_us: int
    source_ix: int
    key: bytes
    value: bytes


class Gap(msgspec.Struct, array_like=True, frozen=True):
    """Between `start_us` and `end_us` changes below `scope` may be missing or late."""

    start_us: int
    end_us: int
    reason: str  # overflow, not-watching, unclean-stop, mount-changed, unsettled, …
    scope: bytes = b""  # path prefix; empty: the whole source


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """A named recovery point."""

    label: str
    consistency: str = "crash"  # crash | filesystem | application
    hold_until_us: int = 0  # kept at least until then


SUSPECT: Final = "suspect"  # kinds of an incident
RELEASED: Final = "released"


class Incident(Mark, array_like=True, frozen=True):
    """A mark that names a point of the past: what the source was before it was damaged in mass.

    Every mark can be read as one; an ordinary one has no kind. Between one of kind `SUSPECT` and
    the next `RELEASED` one of a source, nothing of it is thinned.
    """

    kind: str = ""
    point_us: int = 0  # the named point is the last change at or before it
    reason: str = ""  # encrypted, deleted
    file_count: int = 0


class StateSum(msgspec.Struct, array_like=True, frozen=True):
    """Sum over all live keys of one source, see `format.state_sum`."""

    total: bytes  # 32 bytes, little-endian
    key_count: int


SOURCE_KEY: Final = b"s"
_DIRENT: Final = b"d"
_VERSION: Final = b"f"
_FID_SIZE: Final = 8
_DIRENT_NAME_AT: Final = 1 + _FID_SIZE


def dirent_key(parent: Fid, name: bytes) -> bytes:
    """Return the key of the entry `name` in directory `parent`; its value is a Dirent."""
    return _DIRENT + parent.to_bytes(_FID_SIZE, "big") + name


def version_key(fid: Fid) -> bytes:
    """Return the key of a file's version; its value is a FileVersion."""
    return _VERSION + fid.to_bytes(_FID_SIZE, "big")


def version_keys(fids: Iterable[int]) -> list[bytes]:
    """Return the keys of the versions of many files: `version_key` without a call for each."""
    return [_VERSION + fid.to_bytes(_FID_SIZE, "big") for fid in fids]


def version_values(rows: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the values of those rows, (key, value), that are versions: see `is_version_key`."""
    return [value for key, value in rows if len(key) == _DIRENT_NAME_AT and key[:1] == _VERSION]


def dirent_prefix(parent: Fid) -> bytes:
    """Return the prefix shared by the keys of all entries of directory `parent`."""
    return _DIRENT + parent.to_bytes(_FID_SIZE, "big")


def parse_dirent_key(key: bytes) -> tuple[Fid, bytes] | None:
    """Return (parent, name) if `key` is that of a directory entry, else None."""
    if key[:1] != _DIRENT or len(key) <= _DIRENT_NAME_AT:
        return None
    return Fid(int.from_bytes(key[1:_DIRENT_NAME_AT], "big")), key[_DIRENT_NAME_AT:]


def is_version_key(key: bytes) -> bool:
    """Return whether `key` is that of a file version."""
    return len(key) == _DIRENT_NAME_AT and key[:1] == _VERSION


def parse_version_key(key: bytes) -> Fid | None:
    """Return the fid if `key` is that of a file version, else None."""
    if key[:1] != _VERSION or len(key) != _DIRENT_NAME_AT:
        return None
    return Fid(int.from_bytes(key[1:], "big"))
