"""What is recorded of one file: its directory entry and its version.

These structs are also the stored form (msgpack arrays, positional): a new field goes to the end,
with a
default, and unknown trailing fields are ignored by older readers. Names are bytes, sizes are bytes,
times are nanoseconds (the file system's own unit).
"""

from enum import IntEnum, IntFlag
from typing import Final

import msgspec


class EntryType(IntEnum):
    """The kind of a directory entry."""

    REGULAR = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    CHARACTER = 5
    BLOCK = 6
    SOCKET = 7


class VersionFlag(IntFlag):
    """What a reader must know about the content of a version."""

    FUZZY = 1  # changed while it was read, every time we tried
    PARTIAL = 2  # a part could not be read; that part is a hole
    SPARSE = 4  # has holes that must stay holes
    DERIVED = 8  # not the file's bytes but a copy made by its application (an SQLite backup)
    RANDOM = 16  # begins like random bytes and not like a known format, see policy.texture
    BLANK = 32  # begins with one byte over and over


class ContentRun(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One run of a file's content: a chunk, or a hole when `id` is nil."""

    id: bytes | None
    size: int


class FileVersion(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Everything about one file except its names.

    `content` lists the chunks in order when `levels` is 0. Otherwise it lists META chunks, each the
    msgpack array of runs of the level below (see `format.chunklist`). `size` equals the sum of the
    runs' sizes for regular files. `xattrs` are sorted by name; POSIX ACLs are among them.
    """

    type: int
    mode: int  # permission bits, 0o7777
    uid: int
    gid: int
    user: bytes
    group: bytes
    mtime_ns: int
    ctime_ns: int
    btime_ns: int  # 0: unknown
    size: int
    nlink: int
    rdev: int
    target: bytes  # of a symbolic link
    xattrs: tuple[tuple[bytes, bytes], ...]
    profile: int  # chunker profile, see format.chunker
    levels: int
    content: tuple[ContentRun, ...]
    fhash: bytes  # reserved: keyed hash of the whole content; empty when not computed
    flags: int


class Dirent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of one directory entry."""

    fid: int
    type: int


class SourceInfo(msgspec.Struct, array_like=True, frozen=True):
    """What the vault knows about a source, so that it can be restored by name."""

    name: str
    paths: tuple[bytes, ...]


NAME_SIZE_MAX: Final = 4096  # entries of the virtual root are whole paths; all others <= 255
