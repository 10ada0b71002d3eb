"""Files that hold secrets: written for us alone, whole or not at all, and refused when others can
read them.
"""

import os
from typing import Final

from streamd.errors import SecretUnreadable

MODE: Final = 0o600
_OTHERS: Final = 0o077


def write_private(path: str, data: bytes) -> None:
    """Create or replace `path`, readable by us alone, durable. Raises SecretUnreadable."""
    new = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _discard(new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, MODE), "wb") as file:
            file.write(data)
            file.flush()
            _keep_owner(path, file.fileno())
            os.fsync(file.fileno())
        os.rename(new, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SecretUnreadable(f"{path} cannot be written: {error.strerror}", path=path) from error


def _keep_owner(path: str, descriptor: int) -> None:
    """Give a file that replaces another to whom that one belonged: root works for a service."""
    try:
        known = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, known.st_uid, known.st_gid)


def _discard(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def read_private(path: str, size_max: int) -> bytes:
    """Return what a secret file holds. Raises SecretUnreadable, also if others can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS and not path.startswith("/dev/"):
                raise SecretUnreadable(f"{path} can be read by others", path=path)
            data = file.read(size_max + 1)
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}", path=path) from error
    if len(data) > size_max:
        raise SecretUnreadable(f"{path} is too long", path=path)
    return data
