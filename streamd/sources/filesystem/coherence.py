"""When a read of a file can be trusted.

A read is coherent when nobody can have written during it: the stat is equal before and after, and
for files changed lately nobody has the file open for writing. Such a file could be in the middle of
one long write, which sets the time only once, at its start; and a mapped page that is still dirty
takes further stores without any new time. Writing back write-protects it, so that the next shows.
"""

import os
import select
import stat
from typing import Final

from streamd.effects import MICROSECONDS
from streamd.sources.filesystem.native import has_writer, write_back

TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.002
# A dirty mapped page is written back, and so protected, after half a minute by default.
RECENT_US: Final = 60 * MICROSECONDS
# One write of a file that was opened for writing is taken to be over after this time.
_QUIET_US: Final = 10 * MICROSECONDS


def _age_us(status: os.stat_result, now_us: int) -> int:
    """Return how long ago the file last changed; negative for times in the future."""
    return now_us - max(status.st_mtime_ns, status.st_ctime_ns) // 1000


def settle(fd: int, now_us: int, *, probe: bool = False) -> tuple[os.stat_result, bool | None]:
    """Return the stat that a following read must find again, and whether there is a writer.

    None: it cannot be told. A file that has been left alone for long is not probed unless `probe`.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or (not probe and _age_us(status, now_us) > RECENT_US):
        return status, False
    writer = has_writer(fd)
    if writer is not False:
        write_back(fd)
        status = os.fstat(fd)
    return status, writer


def is_coherent(
    fd: int, before: os.stat_result, after: os.stat_result, now_us: int, *, writer: bool | None
) -> bool:
    """Say whether what was read between `before` and `after` is one state of the file."""
    if (
        before.st_mtime_ns != after.st_mtime_ns
        or before.st_ctime_ns != after.st_ctime_ns
        or before.st_size != after.st_size
    ):
        return False
    if _age_us(after, now_us) > _QUIET_US:
        return True
    # Old kernels' clocks tick in milliseconds: a change right before us and one during the read
    # may have the same time. Where probing is impossible, the event of the write's end must do.
    return not writer and not has_writer(fd)


def pause(attempt: int) -> None:
    """Wait a moment before trying again; blocks the calling thread."""
    select.select((), (), (), _PAUSE_SECONDS * 4**attempt)
