"""The type of an entry, from the type bits of its mode."""

import stat
from typing import Final

from streamd.model.entry import EntryType

# Indexed by st_mode >> 12, so that looking at an entry needs one lookup.
TYPES: Final[list[int]] = [0] * 16
for _bits, _type in (
    (stat.S_IFREG, EntryType.REGULAR),
    (stat.S_IFDIR, EntryType.DIRECTORY),
    (stat.S_IFLNK, EntryType.SYMLINK),
    (stat.S_IFIFO, EntryType.FIFO),
    (stat.S_IFCHR, EntryType.CHARACTER),
    (stat.S_IFBLK, EntryType.BLOCK),
    (stat.S_IFSOCK, EntryType.SOCKET),
):
    TYPES[_bits >> 12] = int(_type)
