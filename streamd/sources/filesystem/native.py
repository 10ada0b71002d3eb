"""The system calls that Python does not have: openat2, statx, sync_file_range, leases.

Every function takes and returns plain values and raises OSError like the functions of `os`.
"""

import ctypes
import errno
import fcntl
import os
import signal
import struct
import threading
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_OPENAT2: Final = 437  # the same number on every architecture
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_RESOLVE_NO_SYMLINKS: Final = 0x04
_STATX_BTIME: Final = 0x800
_STATX_SIZE: Final = 256
_SYNC_WAIT_WRITE_WAIT: Final = 7
_F_SETLEASE: Final = 1024
_NANOSECONDS: Final = 1_000_000_000

_openat2 = _libc["syscall"]
_openat2.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
]
_openat2.restype = ctypes.c_long
_open_how = struct.Struct("=QQQ")
_statx_birth = struct.Struct("=I76xqI")  # stx_mask, and stx_btime at offset 80

_statx = _libc["statx"]
_statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
_sync_file_range = _libc["sync_file_range"]
_sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def last_error(what: str) -> OSError:
    """Return the error that the last native call left behind."""
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


def open_beneath(path: bytes, flags: int, *, dir_fd: int | None = None) -> int:
    """Open `path` without following any symbolic link in it; ELOOP when there is one."""
    how = _open_how.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    at = _AT_FDCWD if dir_fd is None else dir_fd
    fd: int = _openat2(_SYS_OPENAT2, at, path, how, len(how))
    if fd < 0:
        raise last_error("openat2")
    return fd


def _openat2_works() -> bool:
    try:
        os.close(open_beneath(b"/", os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False  # an old kernel, or a system call filter
    return True


HAVE_OPENAT2: Final = _openat2_works()


class BirthClock:
    """Reads birth times; holds one buffer, so it belongs to one thread."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_STATX_SIZE)

    def of(self, dir_fd: int, name: bytes = b"") -> int:
        """Return the birth time in nanoseconds, 0 when it is not known.

        Without a name it is that of the file behind the descriptor itself.
        """
        flags = _AT_STATX_DONT_SYNC | (_AT_EMPTY_PATH if not name else 0x100)  # SYMLINK_NOFOLLOW
        if _statx(dir_fd, name, flags, _STATX_BTIME, self._buffer) < 0:
            return 0
        mask, seconds, nanoseconds = _statx_birth.unpack_from(self._buffer)
        if not mask & _STATX_BTIME:
            return 0
        return int(seconds) * _NANOSECONDS + int(nanoseconds)


def write_back(fd: int) -> None:
    """Write the file's dirty pages and wait.

    It is not about durability: it write-protects pages that are mapped by somebody, so that the
    next store to them is visible as a new modification time.
    """
    if _sync_file_range(fd, 0, 0, _SYNC_WAIT_WRITE_WAIT) < 0:
        os.fdatasync(fd)


_lease_ready = threading.Lock()
_lease_state = {"ready": False}


def prepare_leases() -> None:
    """Make the lease probe safe: the signal of a broken lease must not end the process."""
    with _lease_ready:
        if _lease_state["ready"]:
            return
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
                signal.signal(signal.SIGIO, signal.SIG_IGN)
            _lease_state["ready"] = True


def can_probe() -> bool:
    """Say whether `has_writer` can tell anything."""
    return _lease_state["ready"]


def has_writer(fd: int) -> bool | None:
    """Say whether anybody has this file open for writing or mapped writable; None: cannot tell.

    A read lease is granted only when nobody has. It is given back at once: while it is held, an
    opener would wait for us.
    """
    if not _lease_state["ready"]:
        return None
    try:
        fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, _F_SETLEASE, fcntl.F_UNLCK)
    return False
