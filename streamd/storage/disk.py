"""Whole reads and writes of files, and what a disk's errors mean to streamd."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from streamd.errors import DiskFull, StorageRefused, VaultDamaged, VaultUnreachable
from streamd.storage.port import Bytes

_COMPARE_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 20
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_REFUSED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Translate what the system says about `path`.

    No space, no inode or no quota is DiskFull, missing rights are StorageRefused, a symbolic link
    where there ought to be a file is VaultDamaged. That a file is there or not goes through: only
    the caller knows what it means. All else, such as EIO, ESTALE or too many open files, may end by
    itself: VaultUnreachable.
    """
    try:
        yield
    except (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        what = f"{path}: {error.strerror}"
        if error.errno in _FULL:
            raise DiskFull(what, path=path) from error
        if error.errno in _REFUSED:
            raise StorageRefused(what, path=path) from error
        if error.errno == errno.ELOOP:
            raise VaultDamaged(what, path=path) from error
        raise VaultUnreachable(what, endpoint=path) from error


def write_all(handle: int, data: Bytes) -> None:
    """Write all of `data` and return when it survives a power cut.

    In pieces: for a large buffer at once the kernel looks for large runs of free memory, and takes
    up to six times as long when it finds none.
    """
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(handle, rest[:_WRITE_BYTES]) :]
    os.fsync(handle)


def read_range(handle: int, *, offset: int, size: int) -> bytes:
    """Return exactly `size` bytes; VaultDamaged if the file shrank since it was measured."""
    content = os.pread(handle, size, offset)
    if len(content) == size:
        return content
    pieces = [content]  # the system reads at most 2 GiB at once
    while pieces[-1] and (got := sum(map(len, pieces))) < size:
        pieces.append(os.pread(handle, size - got, offset + got))
    content = b"".join(pieces)
    if len(content) != size:
        raise VaultDamaged(f"{len(content)} bytes where {size} were to be read")
    return content


def holds(path: str, data: Bytes) -> bool:
    """Return whether the file at `path` consists of exactly `data`."""
    expected = memoryview(data).cast("B")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_size != len(expected):
            return False
        for start in range(0, len(expected), _COMPARE_BYTES):
            piece = expected[start : start + _COMPARE_BYTES]
            if os.pread(handle, len(piece), start) != piece:
                return False
        return True
    finally:
        os.close(handle)
