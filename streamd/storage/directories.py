"""The directories of a directory vault: made on demand, durable, and removed when empty.

A new directory is worth nothing until its parent is flushed, and flushing every ancestor at every
put would be slow; so it is remembered which ones are known to be on the disk. Making and removing
happen under one lock, so that the memory and the disk never disagree within this process. Other
processes only make the put's `link` fail with ENOENT, and it tries again.
"""

import os
import threading

from streamd.errors import ContainerMissing


class Directories:
    """The tree below `root`, which itself is neither made nor removed."""

    def __init__(self, root: str, *, mode: int) -> None:
        self._root = root
        self._mode = mode
        self._lock = threading.Lock()
        self._durable = {root}

    def require_root(self) -> None:
        """Raise ContainerMissing if the vault's own directory is not there."""
        if not os.path.isdir(self._root):
            raise ContainerMissing(
                f"there is no directory {self._root}; is its disk mounted?", name=self._root
            )

    def make(self, directory: str) -> None:
        """Make `directory` and what is missing above it, but never the root."""
        self.require_root()
        with self._lock:
            for each in self._below_root(directory):
                try:
                    os.mkdir(each, self._mode)
                except FileExistsError:
                    continue
                flush_directory(os.path.dirname(each))
                self._durable.add(each)

    def make_durable(self, directory: str) -> None:
        """Flush `directory`, and every ancestor of which it is not known that it was flushed."""
        flush_directory(directory)
        with self._lock:
            for each in self._below_root(directory):
                if each not in self._durable:
                    flush_directory(os.path.dirname(each))
                    self._durable.add(each)

    def remove_empty(self, directory: str) -> None:
        """Remove `directory` if it is empty, then its parent likewise, up to the root."""
        with self._lock:
            for each in reversed(self._below_root(directory)):
                try:
                    os.rmdir(each)
                except OSError:
                    return  # not empty, or gone: both are fine
                self._durable.discard(each)

    def _below_root(self, directory: str) -> list[str]:
        """Return `directory` and its ancestors below the root, outermost first."""
        chain: list[str] = []
        while directory != self._root:
            chain.append(directory)
            directory = os.path.dirname(directory)
        return chain[::-1]


def flush_directory(directory: str) -> None:
    """Return when the names in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
