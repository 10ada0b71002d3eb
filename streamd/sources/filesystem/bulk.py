"""Many files in one call, by the compiled module where there is one; see bulk.c.

Three system calls a file in Python cost more than the calls themselves, and each gives the
interpreter lock away and waits for it. The compiled module does the ordinary case for a whole
directory in one go; whatever is not ordinary, it leaves to the code beside, which it never differs
from. `STREAMD_NO_BULK` in the environment leaves it out, to compare.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

from streamd.model.host import HostStat, Identity

ReadFiles = Callable[
    [int, int, list[bytes], list[HostStat], memoryview, int, int, bytes],
    list[tuple[int, int] | None],
]
StatEntries = Callable[
    [int, Sequence[bytes] | None, type[HostStat]],
    tuple[dict[bytes, HostStat], dict[bytes, int]],
]

WriteFiles = Callable[[int, list[tuple[bytes, bytes, memoryview, int, int, int, int]]], list[bool]]
Identify = Callable[[int, list[bytes], bool, type[Identity]], dict[bytes, Identity]]


def _load() -> tuple[ReadFiles | None, StatEntries | None, WriteFiles | None, Identify | None]:
    if os.environ.get("STREAMD_NO_BULK"):
        return None, None, None, None
    try:
        from streamd.sources.filesystem import _bulk
    except ImportError:  # not built: there was no compiler
        return None, None, None, None
    from streamd.sources.filesystem.kinds import TYPES

    if not hasattr(_bulk, "identify"):  # built from an older bulk.c
        return None, None, None, None
    _bulk.set_types(TYPES)
    return _bulk.read_files, _bulk.stat_entries, _bulk.write_files, _bulk.identify


_LOADED: Final = _load()
read_files: ReadFiles | None = _LOADED[0]
stat_entries: StatEntries | None = _LOADED[1]
write_files: WriteFiles | None = _LOADED[2]
identify: Identify | None = _LOADED[3]
