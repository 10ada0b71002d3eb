"""Opening a directory of a source such that no symbolic link can lead out of it."""

import errno
import os
from collections.abc import Callable
from typing import Final

from streamd.sources.filesystem import native
from streamd.sources.filesystem.scope import TreeScope

PIECE_MAX: Final = 3500  # the kernel takes paths up to 4096; names are at most 255
_DIRECTORY: Final = os.O_DIRECTORY | os.O_CLOEXEC
_Opener = Callable[[bytes, int, int | None], int]


def open_directory(scope: TreeScope, path: bytes, *, flags: int = os.O_PATH) -> int:
    """Open directory `path` of a source; raises OSError.

    Below the source's root no component may be a symbolic link (ENOTDIR). The way to the root is
    the administrator's and may have them, but the root itself may not be one.
    """
    opener = _by_kernel if native.HAVE_OPENAT2 else _by_component
    if len(path) < PIECE_MAX:
        try:
            return opener(path, flags, None)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
    root = scope.root_of(path)
    if root is None:  # the directory that holds a root
        return os.open(path, flags | _DIRECTORY)
    if root == path:
        return os.open(path, flags | _DIRECTORY | os.O_NOFOLLOW)
    return _open_in_pieces(root, scope.relative(root, path), flags, opener)


def _open_in_pieces(root: bytes, relative: bytes, flags: int, opener: _Opener) -> int:
    fd = os.open(root, os.O_PATH | _DIRECTORY | os.O_NOFOLLOW)
    while relative:
        piece, relative = _cut(relative)
        try:
            deeper = opener(piece, os.O_PATH if relative else flags, fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
            raise
        finally:
            os.close(fd)
        fd = deeper
    return fd


def _cut(relative: bytes) -> tuple[bytes, bytes]:
    if len(relative) <= PIECE_MAX:
        return relative, b""
    end = relative.rfind(b"/", 0, PIECE_MAX)
    if end < 0:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return relative[:end], relative[end + 1 :]


def _by_kernel(path: bytes, flags: int, dir_fd: int | None) -> int:
    return native.open_beneath(path, flags | _DIRECTORY, dir_fd=dir_fd)


def _by_component(path: bytes, flags: int, dir_fd: int | None) -> int:
    """Do what openat2 does, one component at a time."""
    fd = os.open(b"/", os.O_PATH | _DIRECTORY) if dir_fd is None else os.dup(dir_fd)
    parts = [part for part in path.split(b"/") if part]
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        try:
            deeper = os.open(
                part, (flags if last else os.O_PATH) | _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd
            )
        finally:
            os.close(fd)
        fd = deeper
    if not parts and not flags & os.O_PATH:
        deeper = os.open(b".", flags | _DIRECTORY, dir_fd=fd)
        os.close(fd)
        return deeper
    return fd
