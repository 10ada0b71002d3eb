"""What is done to each of many small files, for a batch of them in one call.

The functions of Python here are the definition; the compiled ones (batch.c), which are used where
they are built, give the same bytes. They spare a capture most of what the interpreter does for each
file, and `chunk_ids` gives its lock away once a batch instead of once a file.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from blake3 import blake3

from streamd.format import state_sum
from streamd.model.host import HostStat
from streamd.model.ids import Fid
from streamd.model.record import dirent_key, version_key

_ENCODE: Final = msgspec.msgpack.Encoder().encode

Record = tuple[int, bytes, bytes]  # op, key, value
Row = tuple[bytes, bytes]  # key, value
Content = Sequence[tuple[bytes | None, int, int]]  # pieces: id, where they were read, size
NewFile = tuple[int, bytes, int, int, bytes]  # directory, name, file, type, version

ChunkIds = Callable[[bytes, memoryview, list[int], list[int]], list[bytes]]
Versions = Callable[
    [
        list[HostStat],
        list[int],
        list[Content],
        int,
        Callable[[int], bytes],
        Callable[[int], bytes],
    ],
    list[bytes],
]


def chunk_ids_singly(
    key: bytes, data: memoryview, starts: list[int], sizes: list[int]
) -> list[bytes]:
    """Return the keyed hash of each part of `data`."""
    return [
        blake3(data[start : start + size], key=key).digest()
        for start, size in zip(starts, sizes, strict=True)
    ]


def sum_terms_singly(records: list[Record] | list[Row]) -> bytes:
    """Return the sum of the state sum's terms of records, as 32 bytes."""
    return state_sum.to_bytes(sum(state_sum.term(key, value) for *_, key, value in records))


def sum_rows(rows: list[Record] | list[Row]) -> int:
    """Return what these live keys add to the state sum, modulo 2^256."""
    return int.from_bytes(sum_terms(rows), "little")


def page_end_singly(rows: list[Row], start: int, average: int) -> int:
    """Return the number of the first row from `start` on whose key ends a page; -1: none does."""
    for number in range(start, len(rows)):
        if int.from_bytes(blake3(rows[number][0]).digest()[:2], "little") % average == 0:
            return number
    return -1


def versions_singly(
    stats: list[HostStat],
    births: list[int],
    pieces: list[Content],
    profile: int,
    user_name: Callable[[int], bytes],
    group_name: Callable[[int], bytes],
) -> list[bytes]:
    """Return the encoded FileVersions of ordinary files: regular, whole, without attributes."""
    return [
        version(
            stat,
            birth,
            [(chunk_id, size) for chunk_id, _, size in content],
            profile=profile,
            user=user_name(stat.uid),
            group=group_name(stat.gid),
        )
        for stat, birth, content in zip(stats, births, pieces, strict=True)
    ]


def version(
    stat: HostStat,
    btime_ns: int,
    runs: Sequence[Any],
    *,
    profile: int,
    user: bytes,
    group: bytes,
    size: int = -1,
    target: bytes = b"",
    xattrs: tuple[tuple[bytes, bytes], ...] = (),
    levels: int = 0,
    flags: int = 0,
) -> bytes:
    """Return an encoded FileVersion; `size` where it is not the stat's.

    The fields in order, as a tuple: the same bytes for less than half of the time.
    """
    kind, mode, uid, gid, stat_size, mtime_ns, ctime_ns, _, _, nlink, rdev = stat
    return _ENCODE(
        (
            kind,
            mode,
            uid,
            gid,
            user,
            group,
            mtime_ns,
            ctime_ns,
            btime_ns,
            stat_size if size < 0 else size,
            nlink,
            rdev,
            target,
            xattrs,
            profile,
            levels,
            runs,
            b"",  # fhash
            flags,
        )
    )


def new_records_singly(op: int, files: list[NewFile]) -> list[Record]:
    """Return the records that set the entry and the version of new files."""
    records: list[Record] = []
    for parent, name, fid, kind, encoded in files:
        records.append((op, dirent_key(Fid(parent), name), _ENCODE((fid, kind))))
        records.append((op, version_key(Fid(fid)), encoded))
    return records


def _load() -> tuple[
    ChunkIds,
    Callable[[list[Record] | list[Row]], bytes],
    Versions,
    Callable[[int, list[NewFile]], list[Record]],
    Callable[[list[Row], int, int], int],
]:
    singly = (
        chunk_ids_singly,
        sum_terms_singly,
        versions_singly,
        new_records_singly,
        page_end_singly,
    )
    try:
        from streamd.format import _batch as compiled
    except ImportError:  # not built: there was no compiler
        return singly
    if not hasattr(compiled, "page_end"):  # built from an older batch.c
        return singly
    return (
        compiled.chunk_ids,
        compiled.sum_terms,
        compiled.versions,
        compiled.new_records,
        compiled.page_end,
    )


chunk_ids, sum_terms, versions, new_records, page_end = _load()
