"""The kernel's fanotify, as far as watching whole file systems needs it.

One group with one mark reports every change of a file system: the handle of the directory, the name
in it, and the handle of the file itself. Needs CAP_SYS_ADMIN for the mark, CAP_DAC_READ_SEARCH to
turn handles into paths, and Linux 5.17.
"""

import ctypes
import errno
import fcntl
import os
import struct
import termios
from typing import Final, NamedTuple

from streamd.sources.filesystem.native import last_error

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
CREATE: Final = 0x100
DELETE: Final = 0x200
OVERFLOW: Final = 0x4000
RENAME: Final = 0x1000_0000
ON_DIRECTORY: Final = 0x4000_0000
_MASK: Final = MODIFY | ATTRIB | CLOSE_WRITE | CREATE | DELETE | RENAME | ON_DIRECTORY

_CLOEXEC_NONBLOCK: Final = 0x1 | 0x2
_REPORT_NAMES_AND_TARGET: Final = 0x200 | 0x400 | 0x800 | 0x1000
_MARK_ADD_FILESYSTEM: Final = 0x1 | 0x100
# Add an ignore mark that stays when the directory changes and goes when its inode is evicted.
_MARK_IGNORE: Final = 0x1 | 0x400 | 0x40 | 0x200
_EVENT_ON_CHILD: Final = 0x0800_0000
_AT_FDCWD: Final = -100
_READ_SIZE: Final = 16 * 1024  # some 200 events: between two reads others may be due
_HANDLE_MAX: Final = 128

_INFO_FID: Final = 1
_INFO_DFID: Final = 3
_INFO_NAMED: Final = frozenset({2, 10, 12})  # directory and name; the old and new ones of a rename
_META: Final = struct.Struct("=IBBHQii")
_INFO: Final = struct.Struct("=BBH")
_SIZE: Final = struct.Struct("=I")
_COUNT: Final = struct.Struct("=i")
_FSID_SIZE: Final = 8
# The root of a whole btrfs, whatever subvolume is mounted: inode 256 of tree 5, any generation.
_BTRFS_TOP: Final = struct.pack("=IiQQI", 20, 0x4D, 256, 5, 0)
_MINOR_BITS: Final = 20  # of a device number inside of the kernel

_libc = ctypes.CDLL(None, use_errno=True)
_init = _libc["fanotify_init"]
_init.argtypes = [ctypes.c_uint, ctypes.c_uint]
_mark = _libc["fanotify_mark"]
_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
_open_by_handle = _libc["open_by_handle_at"]
_open_by_handle.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
_name_to_handle = _libc["name_to_handle_at"]
_name_to_handle.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
]


class Event(NamedTuple):
    """One event: where (directory handle and name; two for a rename), and the file's handle."""

    mask: int
    pid: int
    places: list[tuple[bytes, bytes]]
    target: bytes


class Group:
    """A queue of events, bounded by the system (fs.fanotify.max_queued_events)."""

    def __init__(self, fd: int | None = None) -> None:
        """Begin a new one, or go on with the one behind `fd`.

        Raise OSError where the kernel or our rights do not allow it.
        """
        if fd is not None:
            os.set_blocking(fd, False)
            self.fd = fd
            return
        self.fd = int(_init(_CLOEXEC_NONBLOCK | _REPORT_NAMES_AND_TARGET, os.O_RDONLY))
        if self.fd < 0:
            raise last_error("fanotify_init")

    def mark_filesystem(self, path: bytes) -> None:
        """Report every change in the file system that `path` is on. Raises OSError.

        A mount of a btrfs subvolume cannot be marked itself (EXDEV); the root of its volume can.
        """
        if _mark(self.fd, _MARK_ADD_FILESYSTEM, _MASK, _AT_FDCWD, path) == 0:
            return
        error = last_error("fanotify_mark")
        if error.errno != errno.EXDEV:
            raise error
        self._mark_volume_of(path)

    def _mark_volume_of(self, path: bytes) -> None:
        mount_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            top = open_handle(mount_fd, _BTRFS_TOP)
        finally:
            os.close(mount_fd)
        try:
            if _mark(self.fd, _MARK_ADD_FILESYSTEM, _MASK, top, b".") < 0:
                raise last_error("fanotify_mark")
        finally:
            os.close(top)

    def ignore_directory(self, path: bytes) -> bool:
        """Do not even queue what happens directly in `path`; say whether that can be had."""
        mask = _MASK | _EVENT_ON_CHILD
        return int(_mark(self.fd, _MARK_IGNORE, mask, _AT_FDCWD, path)) == 0

    def read(self) -> list[Event]:
        """Return the next events; none when the queue is empty."""
        try:
            return parse(os.read(self.fd, _READ_SIZE))
        except BlockingIOError:
            return []

    def waiting(self) -> int:
        """Return how many events are in the queue.

        The kernel answers FIONREAD with the size of their fixed parts alone, see fanotify(7) and
        fanotify_ioctl in fs/notify/fanotify/fanotify_user.c.
        """
        answer = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(_COUNT.size))
        return int(_COUNT.unpack(answer)[0]) // _META.size

    def close(self) -> None:
        """Stop watching, unless somebody else holds the descriptor too."""
        os.close(self.fd)


def watches(fd: int, device: int) -> bool:
    """Say whether a group still has the mark on a whole file system, with all that we ask for.

    `device` is the file system's, as in mountinfo. From /proc/self/fdinfo, see proc(5).
    """
    sdev = b"fanotify sdev:%x " % (os.major(device) << _MINOR_BITS | os.minor(device))
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            lines = [line for line in file if line.startswith(sdev)]
    except OSError:
        return False
    masks = [int(line.partition(b" mask:")[2].split(b" ")[0], 16) for line in lines]
    return any(mask & _MASK == _MASK for mask in masks)


def parse(buffer: bytes) -> list[Event]:
    """Return the events in what was read from a group."""
    events = []
    at = 0
    while at < len(buffer):
        length, _, _, head, mask, _, pid = _META.unpack_from(buffer, at)
        places = []
        target = b""
        info = at + head
        at += length
        while info < at:
            kind, _, size = _INFO.unpack_from(buffer, info)
            start = info + _INFO.size + _FSID_SIZE
            if kind in _INFO_NAMED:
                end = start + 8 + _SIZE.unpack_from(buffer, start)[0]
                places.append((buffer[start:end], buffer[end : buffer.index(0, end)]))
            elif kind == _INFO_FID:
                target = buffer[start : start + 8 + _SIZE.unpack_from(buffer, start)[0]]
            elif kind == _INFO_DFID:
                end = start + 8 + _SIZE.unpack_from(buffer, start)[0]
                places.append((buffer[start:end], b"."))
            info += size
        events.append(Event(mask, pid, places, target))
    return events


def open_handle(mount_fd: int, handle: bytes) -> int:
    """Return an O_PATH descriptor of the file with this handle; ESTALE when it is gone."""
    fd = int(_open_by_handle(mount_fd, handle, os.O_PATH | os.O_CLOEXEC))
    if fd < 0:
        raise last_error("open_by_handle_at")
    return fd


def handle_of(path: bytes) -> bytes:
    """Return the handle of what is at `path`. Raises OSError."""
    buffer = ctypes.create_string_buffer(_SIZE.pack(_HANDLE_MAX), 8 + _HANDLE_MAX)
    mount_id = ctypes.c_int()
    if _name_to_handle(_AT_FDCWD, path, buffer, ctypes.byref(mount_id), 0) < 0:
        raise last_error("name_to_handle_at")
    return buffer.raw[: 8 + _SIZE.unpack_from(buffer)[0]]


def path_of(fd: int) -> bytes:
    """Return where the file behind a descriptor is now."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def mount_id(fd: int) -> int:
    """Return the number, as in mountinfo, of the mount that a descriptor was opened through."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line.partition(b":")[2])
    return 0
