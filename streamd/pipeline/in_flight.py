"""Entries that a survey found and nobody has committed yet: not firm ground for other surveys."""

import threading
from collections.abc import Iterable, Sequence
from typing import TypeVar

from streamd.model.host import HostStat
from streamd.pipeline.findings import Found

K = TypeVar("K")
Key = tuple[int, bytes]  # parent, name


class InFlight:
    """Entries found, or found gone, and not yet committed.

    The survey thread adds, the loop removes. A file counts under each of its names: who finds it
    under another name must not be committed first with what is newer.

    Most of what a first capture finds is committed before anybody has asked for it by anything but
    its place. So new files are entered under the rest when somebody asks (`_late`).
    """

    def __init__(self) -> None:
        self.entries: dict[Key, object] = {}  # (parent, name) -> the survey
        self._lock = threading.Lock()
        self._found: dict[Key, Found] = {}
        # Nearly every file has one name: its key alone, and a dictionary only for several.
        self._by_fid: dict[int, Key | dict[Key, None]] = {}
        self._by_inode: dict[tuple[int, int], Key | dict[Key, None]] = {}
        self._by_parent: dict[int, dict[Key, object]] = {}
        self._late: set[Key] = set()  # in the first two only
        self._late_of: set[object] = set()  # the surveys that found those

    def add(self, found: Found, survey: object) -> None:
        """Remember an entry until it is committed."""
        key = (found.parent, found.name)
        with self._lock:
            if key in self._found:  # found again as another file
                self._forget(key)
            self.entries[key] = survey
            self._index(key, found, survey)

    def add_new(self, found: Sequence[Found], survey: object) -> None:
        """Remember new files in places where nothing is in flight until they are committed."""
        keys = [each[:2] for each in found]
        with self._lock:
            self.entries.update(dict.fromkeys(keys, survey))
            self._found.update(zip(keys, found, strict=True))
            self._late.update(keys)
            self._late_of.add(survey)

    def _index(self, key: Key, found: Found, survey: object) -> None:
        parent, _, _, fid, stat, *_ = found
        identity = (stat.dev, stat.ino)
        self._found[key] = found
        siblings = self._by_parent.get(parent)
        if siblings is None:
            self._by_parent[parent] = {key: survey}
        else:
            siblings[key] = survey
        if self._by_fid.setdefault(fid, key) is not key:
            _enter(self._by_fid, fid, key)
        if self._by_inode.setdefault(identity, key) is not key:
            _enter(self._by_inode, identity, key)

    def _index_late(self) -> None:
        for key in self._late:
            self._index(key, self._found[key], self.entries[key])
        self._late.clear()
        self._late_of.clear()

    def add_gone(self, key: Key, survey: object) -> None:
        """Remember that an entry is gone until that is committed."""
        with self._lock:
            self.entries[key] = survey

    def fid_of(self, dev: int, ino: int, generation: int) -> int | None:
        """Return the file in flight with this identity."""
        with self._lock:
            self._index_late()
            for key in _keys(self._by_inode, (dev, ino)):
                found = self._found[key]
                if generation in {0, found.generation} or not found.generation:
                    return found.fid
            return None

    def stat_of(self, key: Key) -> HostStat | None:
        """Return what was seen of an entry in flight; None: that it is gone, or nothing."""
        with self._lock:
            found = self._found.get(key)
            return None if found is None else found.stat

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
            self._index_late()
            return [self._found[key].path for key in _keys(self._by_inode, (dev, ino))]

    def has_path(self, path: bytes) -> bool:
        """Say whether the entry at a path is in flight."""
        with self._lock:
            return any(found.path == path for found in self._found.values())

    def names_in(self, parent: int, survey: object) -> list[bytes]:
        """Return the names in a directory that other surveys have found."""
        with self._lock:
            if self._late_of - {survey}:
                self._index_late()
            found = self._by_parent.get(parent, {})
            return sorted(name for (_, name), each in found.items() if each is not survey)

    def is_held(self, found: Found, survey: object) -> bool:
        """Say whether another survey has found this file, under whatever name."""
        if found.is_fresh:
            return False  # nobody else can have its number
        with self._lock:
            self._index_late()
            keys = _keys(self._by_fid, found.fid)
            return any(self.entries[key] is not survey for key in keys)

    def settle(self, keys: Iterable[Key]) -> None:
        """Forget entries that are committed or given up."""
        with self._lock:
            entries, found, late = self.entries, self._found, self._late
            for key in keys:
                entries.pop(key, None)
                if key in late:  # nearly all are: short
                    late.discard(key)
                    del found[key]
                elif key in found:
                    self._forget(key)
            if not late:
                self._late_of.clear()

    def _forget(self, key: Key) -> None:
        found = self._found.pop(key)
        if key in self._late:
            self._late.discard(key)
            return
        identity = (found.stat.dev, found.stat.ino)
        if self._by_fid.get(found.fid) == key:
            del self._by_fid[found.fid]
        else:
            _discard(self._by_fid, found.fid, key)
        if self._by_inode.get(identity) == key:
            del self._by_inode[identity]
        else:
            _discard(self._by_inode, identity, key)
        siblings = self._by_parent[found.parent]
        del siblings[key]
        if not siblings:
            del self._by_parent[found.parent]


def _enter(index: dict[K, Key | dict[Key, None]], at: K, key: Key) -> None:
    before = index.get(at)
    if before is None or before == key:
        index[at] = key
    elif isinstance(before, dict):
        before[key] = None
    else:
        index[at] = {before: None, key: None}


def _keys(index: dict[K, Key | dict[Key, None]], at: K) -> Iterable[Key]:
    keys = index.get(at)
    if keys is None:
        return ()
    return keys if isinstance(keys, dict) else (keys,)


def _discard(index: dict[K, Key | dict[Key, None]], at: K, key: Key) -> None:
    keys = index.get(at)
    if isinstance(keys, dict):
        keys.pop(key, None)
        if not keys:
            del index[at]
    elif keys == key:
        del index[at]


class SourceMissing(Exception):
    """A root of the source is gone, or what is mounted there is. Nothing is concluded from that."""

    def __init__(self, root: bytes) -> None:
        super().__init__(root)
        self.root = root
