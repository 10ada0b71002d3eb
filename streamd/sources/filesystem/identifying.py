"""Which files are behind names: inode, generation by the file's handle, and time of birth.

A handle is used where it is the same for as long as the file is there. Others are not: of FUSE
file systems it has a number that the kernel draws anew when it has forgotten the file.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from streamd.model.host import Identity
from streamd.sources.filesystem import bulk
from streamd.sources.filesystem.native import BirthClock

# ext2/3/4, xfs, btrfs, tmpfs, f2fs: `f_type` of statfs(2)
_WITH_HANDLES: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0xF2F52010})
_AT_EMPTY_PATH: Final = 0x1000
_HANDLE_MAX: Final = 128
_HEAD: Final = struct.Struct("=Ii")  # handle_bytes, handle_type
_WORD: Final = struct.Struct("@l")
_STATFS_SIZE: Final = 256
_FNV_START: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_MASK: Final = (1 << 64) - 1
_SIGNED_MASK: Final = (1 << 63) - 1  # a number of the catalog is signed
_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_fstatfs = _libc["fstatfs"]
_fstatfs.argtypes = [ctypes.c_int, ctypes.c_char_p]
_name_to_handle = _libc["name_to_handle_at"]
_name_to_handle.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
]


def identify(dir_fd: int, names: Sequence[bytes], *, births: bool) -> dict[bytes, Identity]:
    """Say which files are behind names in an open directory, without those that are not there.

    Where there is a generation, the time of birth is looked up only if `births`.
    """
    if bulk.identify is not None:
        return bulk.identify(dir_fd, list(names), births, Identity)
    found = {}
    for name in names:
        try:
            fd = os.open(name, _FLAGS, dir_fd=dir_fd)
        except OSError:
            continue
        try:
            found[name] = identify_open(fd, births=births)
        finally:
            os.close(fd)
    return found


def identify_path(path: bytes, *, births: bool) -> Identity:
    """Say which file is at a path, itself no link. Raises OSError."""
    fd = os.open(path, _FLAGS)
    try:
        return identify_open(fd, births=births)
    finally:
        os.close(fd)


def identify_open(fd: int, *, births: bool) -> Identity:
    """Say which file is open."""
    status, generation = os.fstat(fd), generation_of(fd)
    birth_ns = BirthClock().of(fd) if births or not generation else 0
    return Identity(status.st_dev, status.st_ino, generation, birth_ns)


def generation_of(fd: int) -> int:
    """Return what tells this use of an inode number from others; 0 where there is no handle."""
    if not _has_handles(fd):
        return 0
    buffer = ctypes.create_string_buffer(_HEAD.pack(_HANDLE_MAX, 0), _HEAD.size + _HANDLE_MAX)
    if _name_to_handle(fd, b"", buffer, ctypes.byref(ctypes.c_int()), _AT_EMPTY_PATH) < 0:
        return 0  # the file system cannot, or a filter of system calls does not let us
    size, _ = _HEAD.unpack_from(buffer)
    number = _FNV_START  # FNV-1a of type and handle, as in bulk.c
    for byte in buffer.raw[4 : _HEAD.size + size]:
        number = (number ^ byte) * _FNV_PRIME & _MASK
    return number & _SIGNED_MASK or 1


def _has_handles(fd: int) -> bool:
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _fstatfs(fd, buffer) < 0:
        return False
    return _WORD.unpack_from(buffer)[0] & 0xFFFFFFFF in _WITH_HANDLES
