"""Many files in one call, by the compiled module where there is one; see bulk.c.

Three system calls a file in Python cost more than the calls themselves, and each gives the
interpreter lock away and waits for it. The compiled module does the ordinary case for a whole
directory in one go; whatever is not ordinary, it leaves to the code beside, which it never differs
from. `STREAMD_NO_BULK` in the environment leaves it out, to compare.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from streamd.model.host import HostStat, Identity
from streamd.sources.port import KnownRow, ReadRequest

Group = tuple[bytes, int, list[ReadRequest]]  # a directory; its descriptor or -1; what of it
ReadBatch = Callable[
    [int, list[Group], memoryview, int, int, bool, tuple[bytes, ...]],
    list[list[tuple[int, Any] | None]],  # time of birth; offset of a file, target of a link
]
StatEntries = Callable[
    [int, Sequence[bytes] | None, type[HostStat]],
    tuple[dict[bytes, HostStat], dict[bytes, int]],
]

StatUnlike = Callable[
    [int, list[KnownRow], type[HostStat], bytes],
    tuple[dict[bytes, HostStat], dict[bytes, int], list[KnownRow], dict[bytes, KnownRow]],
]
LookUnlike = Callable[
    [bytes, Callable[[], list[KnownRow]], type[HostStat], bytes, int],
    tuple[HostStat, dict[bytes, HostStat], dict[bytes, int], list[KnownRow], dict[bytes, KnownRow]]
    | None,
]
WriteFiles = Callable[[int, list[tuple[bytes, bytes, memoryview, int, int, int, int]]], list[bool]]
Identify = Callable[[int, list[bytes], bool, type[Identity]], dict[bytes, Identity]]
Seen = tuple[
    HostStat, dict[bytes, HostStat], dict[bytes, int], list[bytes], dict[bytes, Identity] | None
]
Look = Callable[
    [bytes, Sequence[bytes] | None, type[HostStat], type[Identity], int, int], Seen | None
]


class Bulk(NamedTuple):
    """What the compiled module does; None where it is not there."""

    read_batch: ReadBatch | None = None
    stat_entries: StatEntries | None = None
    stat_unlike: StatUnlike | None = None
    write_files: WriteFiles | None = None
    identify: Identify | None = None
    look: Look | None = None
    look_unlike: LookUnlike | None = None


def _load() -> Bulk:
    if os.environ.get("STREAMD_NO_BULK"):
        return Bulk()
    try:
        from streamd.sources.filesystem import _bulk
    except ImportError:  # not built: there was no compiler
        return Bulk()
    from streamd.sources.filesystem.kinds import TYPES

    if not hasattr(_bulk, "look_unlike"):  # built from an older bulk.c
        return Bulk()
    _bulk.set_types(TYPES)
    return Bulk(
        _bulk.read_batch,
        _bulk.stat_entries,
        _bulk.stat_unlike,
        _bulk.write_files,
        _bulk.identify,
        _bulk.look,
        _bulk.look_unlike,
    )


_LOADED: Final = _load()
read_batch: ReadBatch | None = _LOADED.read_batch
stat_entries: StatEntries | None = _LOADED.stat_entries
stat_unlike: StatUnlike | None = _LOADED.stat_unlike
write_files: WriteFiles | None = _LOADED.write_files
identify: Identify | None = _LOADED.identify
look: Look | None = _LOADED.look
look_unlike: LookUnlike | None = _LOADED.look_unlike
