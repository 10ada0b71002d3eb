"""What the host says of one file: the key by which the catalog sees that it changed."""

from typing import NamedTuple


class HostStat(NamedTuple):
    """What lstat says of one entry; two equal ones mean "nothing to capture"."""

    type: int  # model.entry.EntryType
    mode: int  # 0o7777
    uid: int
    gid: int
    size: int  # 0 unless regular or symlink
    mtime_ns: int
    ctime_ns: int
    dev: int
    ino: int
    nlink: int
    rdev: int


class Identity(NamedTuple):
    """Which file this is. Inode numbers are used again, most file systems do so at once."""

    dev: int
    ino: int
    generation: int  # of this use of the number, from the file's handle; 0: not known
    birth_ns: int  # when this use began; 0: not known
