"""Reflink clones: a file frozen at one instant, where its file system can share blocks.

A clone waits for a write that is under way and then takes milliseconds, whatever the size. It has
no name: it goes away when it is closed, or with the process. xfs and btrfs can; ext4 and tmpfs
cannot. It needs a directory of the same file system that streamd may write to.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from typing import Final

from streamd.effects import Clock

_FICLONE: Final = 0x40049409
_FLAGS: Final = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_TRY_AGAIN_SECONDS: Final = 300.0  # it may have been mounted or allowed otherwise meanwhile
_NEVER: Final = frozenset(  # not for any file here; others may still be cloned otherwise
    {
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EXDEV,
        errno.ENOSYS,
        errno.EISDIR,  # a kernel without O_TMPFILE
        errno.ENOENT,
    }
)


class Cloner:
    """Clones files. Threads may share one.

    `directories` are streamd's own, tried before the directory that the file itself is in.
    """

    def __init__(self, clock: Clock, directories: Sequence[bytes] = ()) -> None:
        self._clock = clock
        self._directories = tuple(directories)
        self._lock = threading.Lock()
        self._refused: dict[tuple[int, bytes], float] = {}  # (device, directory) -> until when

    def clone(self, fd: int, dir_fd: int) -> int | None:
        """Return a descriptor of a clone of `fd`, a file in `dir_fd`; None where there is none."""
        device = os.fstat(fd).st_dev
        for directory in (*self._directories, b""):
            if self._is_refused(device, directory):
                continue
            try:
                return _clone(fd, directory or b".", None if directory else dir_fd)
            except OSError as error:
                if error.errno in _NEVER:
                    with self._lock:
                        until = self._clock.monotonic() + _TRY_AGAIN_SECONDS
                        self._refused[device, directory] = until
        return None

    def _is_refused(self, device: int, directory: bytes) -> bool:
        with self._lock:
            return self._refused.get((device, directory), -1.0) > self._clock.monotonic()


def _clone(fd: int, directory: bytes, dir_fd: int | None) -> int:
    copy = os.open(directory, _FLAGS, 0o600, dir_fd=dir_fd)
    try:
        fcntl.ioctl(copy, _FICLONE, fd)
    except OSError:
        os.close(copy)
        raise
    return copy
