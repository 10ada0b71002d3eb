"""Entries that a survey found and nobody has committed yet: not firm ground for other surveys."""

import threading
from collections.abc import Iterable
from typing import TypeVar

from streamd.pipeline.findings import Found

K = TypeVar("K")
V = TypeVar("V")
Key = tuple[int, bytes]  # parent, name


class InFlight:
    """Entries found, or found gone, and not yet committed.

    The survey thread adds, the loop removes. A file counts under each of its names: who finds it
    under another name must not be committed first with what is newer.
    """

    def __init__(self) -> None:
        self.entries: dict[Key, object] = {}  # (parent, name) -> the survey
        self._lock = threading.Lock()
        self._found: dict[Key, Found] = {}
        self._by_fid: dict[int, dict[Key, object]] = {}
        self._by_inode: dict[tuple[int, int], dict[Key, int]] = {}
        self._by_parent: dict[int, dict[Key, object]] = {}

    def add(self, found: Found, survey: object) -> None:
        """Remember an entry until it is committed."""
        key = (found.parent, found.name)
        with self._lock:
            self.entries[key] = survey
            self._found[key] = found
            self._by_parent.setdefault(found.parent, {})[key] = survey
            self._by_fid.setdefault(found.fid, {})[key] = survey
            self._by_inode.setdefault((found.stat.dev, found.stat.ino), {})[key] = found.fid

    def add_gone(self, key: Key, survey: object) -> None:
        """Remember that an entry is gone until that is committed."""
        with self._lock:
            self.entries[key] = survey

    def fid_of(self, dev: int, ino: int) -> int | None:
        """Return the file in flight with this identity."""
        with self._lock:
            return next(iter(self._by_inode.get((dev, ino), {}).values()), None)

    def is_moving(self, key: Key, fid: int) -> bool:
        """Say whether anything but a new version of file `fid` is on its way to this place."""
        with self._lock:
            if key not in self.entries:
                return False
            found = self._found.get(key)
            return found is None or found.fid != fid

    def paths_of(self, dev: int, ino: int) -> list[bytes]:
        """Return the paths under which a file with this identity is in flight."""
        with self._lock:
            return [self._found[key].path for key in self._by_inode.get((dev, ino), ())]

    def names_in(self, parent: int, survey: object) -> list[bytes]:
        """Return the names in a directory that other surveys have found."""
        with self._lock:
            found = self._by_parent.get(parent, {})
            return sorted(name for (_, name), each in found.items() if each is not survey)

    def is_held(self, fid: int, survey: object) -> bool:
        """Say whether another survey has found this file, under whatever name."""
        with self._lock:
            return any(each is not survey for each in self._by_fid.get(fid, {}).values())

    def settle(self, keys: Iterable[Key]) -> None:
        """Forget entries that are committed or given up."""
        with self._lock:
            for key in keys:
                self.entries.pop(key, None)
                found = self._found.pop(key, None)
                if found is not None:
                    _discard(self._by_fid, found.fid, key)
                    _discard(self._by_parent, found.parent, key)
                    _discard(self._by_inode, (found.stat.dev, found.stat.ino), key)


def _discard(index: dict[K, dict[Key, V]], at: K, key: Key) -> None:
    keys = index.get(at, {})
    keys.pop(key, None)
    if not keys:
        index.pop(at, None)


class SourceMissing(Exception):
    """A root of the source is gone, or what is mounted there is. Nothing is concluded from that."""

    def __init__(self, root: bytes) -> None:
        super().__init__(root)
        self.root = root
