"""Whether an entry is a file that is known: the same use of an inode number, or a later one.

A file's handle tells (ext4 and xfs: inode and generation; btrfs: object, subvolume, generation).
Where there are no handles to rely on, the time of birth does, to within a tick of the kernel's
clock. Where there is neither, what changes with every new file has to serve: its times.
"""

from typing import Final

import msgspec

from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity

_DIRECTORY: Final = int(EntryType.DIRECTORY)


class Known(msgspec.Struct, frozen=True):
    """A file as it was captured. 0: not known."""

    stat: HostStat
    generation: int
    birth_ns: int


def is_same_file(known: Known, now: HostStat, seen: Identity, *, is_in_place: bool) -> bool:
    """Say whether an entry, `now` and `seen`, is the known file that had its inode number.

    `is_in_place`: it has a name at which that file was captured.
    """
    if known.stat.ino != now.ino or known.stat.type != now.type:
        return False
    if known.generation and seen.generation:
        return known.generation == seen.generation
    if known.birth_ns and seen.birth_ns:
        return known.birth_ns == seen.birth_ns
    if is_in_place or (now.nlink > 1 and now.type != _DIRECTORY):
        return True
    # A rename keeps size and mtime. A directory that was changed too is taken for a new one: what
    # is in it is recognised file by file, while a wrong guess would show what was never there.
    return known.stat.size == now.size and known.stat.mtime_ns == now.mtime_ns
