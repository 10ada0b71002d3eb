"""Files that hold secrets: written for us alone, whole or not at all, and refused when others can
read them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
        with _held(path) as old:
            os.rename(new, path)
            _wipe(old)  # only now: a crash before leaves the old file whole
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


@contextmanager
def _held(path: str) -> Iterator[int | None]:
    """Lend a descriptor of the file that is about to be replaced, if nothing else refers to it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield descriptor if os.fstat(descriptor).st_nlink == 1 else None
    finally:
        os.close(descriptor)


def _wipe(descriptor: int | None) -> None:
    """Overwrite a secret that was replaced, as far as the file system writes in place."""
    if descriptor is not None:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)


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
