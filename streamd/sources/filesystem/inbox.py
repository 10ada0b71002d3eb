"""What the watchers of one source have found since it was last asked."""

import asyncio
from typing import Final

from streamd.sources.filesystem.scope import TreeScope, split
from streamd.sources.filesystem.sqlite import WAL_SUFFIX
from streamd.sources.port import WatchBatch

_PATHS_MAX: Final = 250_000  # more than this and a rescan is cheaper than remembering


class Inbox:
    """Collects places to look at; everything that is not protected is dropped here.

    Used on the event loop only. `wakened` is set as soon as there is something.
    """

    def __init__(self, scope: TreeScope) -> None:
        self.scope = scope
        self.wakened = asyncio.Event()
        self._batch = WatchBatch()

    @property
    def depth(self) -> int:
        """The number of places that wait to be taken."""
        return len(self._batch.paths) + len(self._batch.inodes)

    def add(self, directory: bytes, name: bytes, *, deep: bool, is_directory: bool) -> None:
        """Note that `name` in the protected `directory` changed, if it is protected."""
        if name == b".":
            self.add_path(directory, deep=deep)
            return
        path = directory + name if directory == b"/" else directory + b"/" + name
        scope = self.scope
        if (scope.rules or is_directory) and not scope.protects(path, directory=is_directory):
            return
        if name.endswith(WAL_SUFFIX):  # to us, a database and its -wal are one file
            self.add_path(path[: -len(WAL_SUFFIX)], deep=False)
        if name in scope.tags:  # whether the directory is excluded may have changed
            self.add_path(directory, deep=True)
        self.add_path(path, deep=deep)

    def add_path(self, path: bytes, *, deep: bool) -> None:
        """Note that `path` is to be looked at, with everything below it if `deep`."""
        batch = self._batch
        batch.event_count += 1
        if deep or path not in batch.paths:
            if len(batch.paths) >= _PATHS_MAX:
                self.lose("overflow", b"")
                return
            batch.paths[path] = deep
        if batch.event_count == 1:
            self.wakened.set()

    def add_inode(self, device: int, inode: int) -> None:
        """Note that an inode changed of which only the engine may know the names."""
        if len(self._batch.inodes) >= _PATHS_MAX:
            self.lose("overflow", b"")
            return
        self._batch.inodes.add((device, inode))
        self._batch.event_count += 1
        self.wakened.set()

    def lose(self, reason: str, scope: bytes) -> None:
        """Note that events below `scope` were lost; several losses become one that covers all."""
        batch = self._batch
        if batch.gap:
            batch.scope = _common(batch.scope, scope)
        else:
            batch.gap, batch.scope = reason, scope
        if not batch.scope:
            batch.paths.clear()
            batch.inodes.clear()
        self.wakened.set()

    def take(self, drained_us: int) -> WatchBatch:
        """Return what was collected, and start anew."""
        batch, self._batch = self._batch, WatchBatch()
        self.wakened.clear()
        batch.drained_us = drained_us
        return batch


def _common(one: bytes, other: bytes) -> bytes:
    """Return the deepest directory that both paths are or lie below; empty when that is "/"."""
    while one and one != other and not other.startswith(one + b"/"):
        one = b"" if split(one)[0] == b"/" else split(one)[0]
    return one if one != b"/" else b""
