"""BlobStore in a directory: the embedded vault, the spool and the local operational copy.

An object appears whole or not at all: written under `tmp/`, flushed, then linked to its name.
`link` refuses an existing name, which makes create-if-absent atomic; the directory is flushed last,
because until then the name itself may not survive a power cut.

A failed flush is never tried again on the same file: the kernel may have dropped the pages and
report success the next time. The unfinished file is thrown away, and the caller's retry writes
all of it anew.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from streamd.errors import BlobConflict, BlobNotFound, VaultUnreachable
from streamd.storage.directories import Directories
from streamd.storage.disk import disk_errors, holds, read_range, write_all
from streamd.storage.names import TEMPORARY, check_name, check_prefix, range_end
from streamd.storage.port import BlobInfo, BlobName, Bytes

_T = TypeVar("_T")
_SCAN_BATCH: Final = 512  # objects per hop to a thread
_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_LINK_ATTEMPTS: Final = 100  # each lost to a concurrent delete that emptied the directory


class LocalBlobStore:
    """Objects as files below `root`.

    `root` must exist (ContainerMissing otherwise): a vault whose disk is not mounted must not be
    begun anew on the disk beneath. `create=True` makes it, for whoever creates a vault.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        create: bool = False,
        executor: Executor | None = None,
    ) -> None:
        self._root = os.path.abspath(root)
        self._tmp = os.path.join(self._root, TEMPORARY)
        self._executor = executor
        self._serial = itertools.count()
        self._directories = Directories(self._root, mode=_DIRECTORY_MODE)
        if create:
            with disk_errors(self._root):
                os.makedirs(self._root, mode=_DIRECTORY_MODE, exist_ok=True)

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port. Raises DiskFull when there is no space or no inode."""
        check_name(name)
        await self._run(partial(self._put, name, data))

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        return await self._run(partial(self._get, name, offset, size))

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`, in name order; reads matching directories only."""
        check_prefix(prefix)
        found = self._walk(prefix)
        while batch := await self._run(lambda: list(itertools.islice(found, _SCAN_BATCH))):
            for info in batch:
                yield info

    async def delete(self, name: BlobName) -> None:
        """Delete `name`, and directories that it leaves empty.

        Not flushed: an object that comes back after a power cut is deleted by whoever finds it.
        """
        check_name(name)
        await self._run(partial(self._delete, name))

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    def path_of(self, name: BlobName) -> str:
        """Return the file that holds `name`, for code that reads it without the event loop."""
        check_name(name)
        return os.path.join(self._root, name)

    async def sweep_tmp(self) -> int:
        """Remove what crashed writers left unfinished; return how many files that were.

        Only for the process that holds the lock on this directory: a running put would fail.
        """
        return await self._run(self._sweep_tmp)

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a thread, and outlive it even when cancelled.

        A thread cannot be cancelled, and it reads the caller's buffer: were we to return before it
        ends, the caller would reuse the buffer and the file would hold other bytes than its name.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
        if cancelled is None:
            return future.result()
        future.exception()  # looked at, or asyncio complains about an error nobody saw
        raise cancelled

    def _put(self, name: BlobName, data: Bytes) -> None:
        path = self.path_of(name)
        try:
            with disk_errors(path):
                unfinished = self._write_unfinished(data)
                try:
                    self._link(unfinished, path, data)
                finally:
                    os.unlink(unfinished)
                # Also if it existed: whoever created it may have died before this.
                self._directories.make_durable(os.path.dirname(path))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise BlobConflict(f"{name} exists with other bytes", name=name) from None
        except FileNotFoundError as error:  # somebody deletes what we write
            raise VaultUnreachable(f"{path} vanished while written", endpoint=path) from error

    def _write_unfinished(self, data: Bytes) -> str:
        while True:
            path = os.path.join(self._tmp, f"{os.getpid()}-{next(self._serial)}")
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            except FileExistsError:
                continue  # litter of an earlier process of our number
            except FileNotFoundError:
                self._directories.make(self._tmp)
                continue
            try:
                write_all(handle, data)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(handle)
            return path

    def _link(self, unfinished: str, path: str, data: Bytes) -> None:
        """Give the finished file its name; FileExistsError if other bytes than `data` have it."""
        for _ in range(_LINK_ATTEMPTS):
            try:
                os.link(unfinished, path)
            except FileExistsError:
                with suppress(FileNotFoundError):  # deleted again: the name is free
                    if not holds(path, data):
                        raise
                    return
            except FileNotFoundError:
                self._directories.make(os.path.dirname(path))
            else:
                return
        raise FileNotFoundError(path)

    def _get(self, name: BlobName, offset: int, size: int | None) -> bytes:
        path = self.path_of(name)
        try:
            with disk_errors(path):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    length = os.fstat(handle).st_size
                    end = range_end(name, length=length, offset=offset, size=size)
                    return read_range(handle, offset=offset, size=end - offset)
                finally:
                    os.close(handle)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._directories.require_root()
            raise BlobNotFound(f"there is no object {name}", name=name) from None

    def _walk(self, prefix: str) -> Iterator[BlobInfo]:
        parent, _, begin = prefix.rpartition("/")
        with disk_errors(self._root):
            self._directories.require_root()
            yield from self._walk_directory(parent + "/" if parent else "", begin)

    def _walk_directory(self, above: str, begin: str) -> Iterator[BlobInfo]:
        try:
            with os.scandir(os.path.join(self._root, above)) as entries:
                found = [
                    (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                    for entry in entries
                    if entry.name.startswith(begin) and (above or entry.name != TEMPORARY)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return
        # A directory sorts as its objects do, with the slash: "a-b" < "a/b" < "ab".
        for key, entry in sorted(found, key=lambda pair: pair[0]):
            if key.endswith("/"):
                yield from self._walk_directory(above + key, "")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted meanwhile
            yield BlobInfo(BlobName(above + key), status.st_size, status.st_mtime_ns // 1000)

    def _delete(self, name: BlobName) -> None:
        path = self.path_of(name)
        with disk_errors(path):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return
            self._directories.remove_empty(os.path.dirname(path))

    def _sweep_tmp(self) -> int:
        with disk_errors(self._tmp):
            try:
                litter = os.listdir(self._tmp)
            except FileNotFoundError:
                return 0
            for name in litter:
                os.unlink(os.path.join(self._tmp, name))
            return len(litter)
