"""Looking at a directory: what is there, and its lstat."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.model.names import PackedNames
from streamd.policy.classes import EXCLUDED, TOO_LARGE
from streamd.sources.filesystem import bulk, native
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.identifying import identify, identify_path
from streamd.sources.filesystem.kinds import TYPES
from streamd.sources.filesystem.mounts import pseudo_devices
from streamd.sources.filesystem.opening import PIECE_MAX, open_directory
from streamd.sources.filesystem.scope import TreeScope, join
from streamd.sources.filesystem.sqlite import WAL_SUFFIX
from streamd.sources.port import KNOWN_STAT, VIRTUAL_ROOT, KnownRow, Listing

Known = Callable[[], list[KnownRow]]  # rows sorted by name

LARGE_DIRECTORY: Final = 256 * 1024  # st_size; where that says nothing, all is listed at once
ENTRIES_MAX: Final = 20_000  # in one answer
IDENTITIES_MAX: Final = 256  # in one answer; of more they would be old when they are looked at
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ESTALE})
_REGULAR: Final = int(EntryType.REGULAR)
_DIRECTORY: Final = int(EntryType.DIRECTORY)
_SIZED: Final = (int(EntryType.REGULAR), int(EntryType.SYMLINK))


def host_stat(status: os.stat_result) -> HostStat:
    """Return what matters of a stat result."""
    mode = status.st_mode
    kind = TYPES[mode >> 12]
    return HostStat(
        kind,
        mode & 0o7777,
        status.st_uid,
        status.st_gid,
        status.st_size if kind in _SIZED else 0,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_dev,
        status.st_ino,
        status.st_nlink,
        status.st_rdev,
    )


class Examiner:
    """Answers `Source.examine` for a set of trees. Used by one thread at a time."""

    def __init__(
        self,
        scope: TreeScope,
        *,
        one_file_system: bool,
        max_file_size: int | None,
        answering: Answering,
    ) -> None:
        self._scope = scope
        self._answering = answering
        self._one_file_system = one_file_system
        self._max_file_size = max_file_size

    def examine(
        self,
        directory: bytes,
        names: Sequence[bytes] | None,
        known: Known | None = None,
        *,
        identities: bool = False,
    ) -> Listing:
        """Look at `names` in `directory`, or at everything in it when None.

        Of everything, what is as `known` says may be left out. With `identities` these come along
        where one compiled call does it all. See `Listing`.
        """
        if directory == VIRTUAL_ROOT:
            return self._examine_roots(names)
        if directory.startswith(b"//"):
            directory = directory[1:]  # an entry of the root "/", joined by somebody
        listing = Listing()
        if not self._scope.protects(directory, directory=True):
            listing.error = errno.ENOENT
            return listing
        try:
            if not self._answering.may_hang():
                self._examine_there(directory, names, listing, known, identities=identities)
                return listing
            hung = self._answering.hung_names(directory)
            with self._answering.turn(directory):
                if hung:
                    self._examine_others(directory, names, listing, hung, known)
                else:
                    self._examine_there(directory, names, listing, known, identities=identities)
        except OSError as error:
            listing.error = error.errno or errno.EIO
        return listing

    def identify(
        self, directory: bytes, names: Sequence[bytes], *, births: bool
    ) -> dict[bytes, Identity]:
        """Say which files are behind `names`, which an answer before has found in `directory`."""
        found: dict[bytes, Identity] = {}
        if directory == VIRTUAL_ROOT:
            for root in names:
                with suppress(OSError), self._answering.turn(root):
                    found[root] = identify_path(root, births=births)
            return found
        with suppress(OSError), self._answering.turn(directory):
            fd = open_directory(self._scope, directory)
            try:
                found = identify(fd, names, births=births)
            finally:
                os.close(fd)
        return found

    def _look(
        self, directory: bytes, names: Sequence[bytes] | None, listing: Listing, *, identities: bool
    ) -> bool:
        """Do the ordinary case of `_examine_there` in one call; False: nothing is done."""
        if bulk.look is None or not self._is_ordinary(directory):
            return False
        count = IDENTITIES_MAX if identities else 0
        seen = bulk.look(directory, names, HostStat, Identity, LARGE_DIRECTORY, count)
        if seen is None:
            return False
        listing.own, found, failed, foreign, listing.identities = seen
        keep = self._filter(directory, listing)
        _take(listing, found, failed, self._scope.hidden_in(directory), keep)
        self._close_mounts(listing, [name for name in foreign if name in found])
        return True

    def _look_unlike(self, directory: bytes, listing: Listing, known: Known) -> bool:
        """Do the same where rows are known."""
        if bulk.look_unlike is None or not self._is_ordinary(directory):
            return False
        seen = bulk.look_unlike(directory, known, HostStat, WAL_SUFFIX, LARGE_DIRECTORY)
        if seen is None:
            return False
        listing.own, found, failed, same, rest = seen
        hidden, keep = self._scope.hidden_in(directory), self._filter(directory, listing)
        _leave_out(listing, same, rest, hidden, keep)
        _take(listing, found, failed, hidden, keep)
        self._close_mounts(listing, _foreign(found, listing.own.dev))
        return True

    def _is_ordinary(self, directory: bytes) -> bool:
        return native.HAVE_OPENAT2 and not self._scope.tags and len(directory) < PIECE_MAX

    def _examine_there(
        self,
        directory: bytes,
        names: Sequence[bytes] | None,
        listing: Listing,
        known: Known | None,
        *,
        identities: bool,
    ) -> None:
        if known is None:
            is_done = self._look(directory, names, listing, identities=identities)
        else:
            is_done = names is None and self._look_unlike(directory, listing, known)
        if is_done:
            return
        flags = os.O_RDONLY if names is None else os.O_PATH
        fd = open_directory(self._scope, directory, flags=flags)
        try:
            self._examine_open(fd, directory, names, listing, known)
        finally:
            os.close(fd)

    def _examine_others(
        self,
        directory: bytes,
        names: Sequence[bytes] | None,
        listing: Listing,
        hung: set[bytes],
        known: Known | None,
    ) -> None:
        """Leave out what hangs: to look at it would be to wait for ever."""
        flags = os.O_RDONLY if names is None else os.O_PATH
        fd = open_directory(self._scope, directory, flags=flags)
        try:
            there = os.listdir(b"/proc/self/fd/%d" % fd) if names is None else names
            listing.failed = dict.fromkeys(hung.intersection(there), errno.ETIMEDOUT)
            there = [name for name in there if name not in hung]
            self._examine_open(fd, directory, there, listing, known)
        finally:
            os.close(fd)

    def _examine_roots(self, names: Sequence[bytes] | None) -> Listing:
        listing = Listing()
        roots = self._scope.roots
        for root in roots if names is None else [name for name in names if name in roots]:
            try:
                with self._answering.turn(root):
                    listing.entries[root] = host_stat(os.lstat(root))
            except OSError as error:
                if error.errno not in _GONE:
                    listing.failed[root] = error.errno or errno.EIO
        return listing

    def _examine_open(
        self,
        fd: int,
        directory: bytes,
        names: Sequence[bytes] | None,
        listing: Listing,
        known: Known | None,
    ) -> None:
        own = os.fstat(fd)
        device, listing.own = own.st_dev, host_stat(own)
        if names is None and own.st_size > LARGE_DIRECTORY:
            # A million entries at once are half a gigabyte; their names alone are not.
            listed = os.listdir(b"/proc/self/fd/%d" % fd)
            if len(listed) > ENTRIES_MAX:
                listed.sort()
                listing.names = PackedNames(listed)
                return
        hidden, keep = self._scope.hidden_in(directory), self._filter(directory, listing)
        if bulk.stat_entries is not None and not self._scope.tags:
            if known is None or names is not None or bulk.stat_unlike is None:
                found, failed = bulk.stat_entries(fd, names, HostStat)
            else:
                found, failed, same, rest = bulk.stat_unlike(fd, known(), HostStat, WAL_SUFFIX)
                _leave_out(listing, same, rest, hidden, keep)
            _take(listing, found, failed, hidden, keep)
            foreign = _foreign(found, device)
        else:
            foreign = self._examine_singly(fd, directory, names, listing, keep)
        self._close_mounts(listing, foreign)

    def _examine_singly(
        self,
        fd: int,
        directory: bytes,
        names: Sequence[bytes] | None,
        listing: Listing,
        keep: Callable[[bytes, HostStat], bool] | None,
    ) -> list[bytes]:
        """Look at one name after the other; return the directories of other file systems."""
        wanted: Iterable[bytes] = _names_by_inode(fd) if names is None else names
        hidden = self._scope.hidden_in(directory)
        if hidden:
            wanted = [name for name in wanted if name not in hidden]
        if self._scope.tags:
            wanted = self._without_tagged(fd, directory, wanted, listing, whole=names is None)
        assert listing.own is not None
        device, entries, lstat, foreign = listing.own.dev, listing.entries, os.stat, []
        for name in wanted:
            try:
                status = lstat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _GONE:
                    listing.failed[name] = error.errno or errno.EIO
                continue
            entry = host_stat(status)
            if keep is not None and not keep(name, entry):
                continue
            entries[name] = entry
            if entry.dev != device and entry.type == _DIRECTORY:
                foreign.append(name)
        return foreign

    def _filter(
        self, directory: bytes, listing: Listing
    ) -> Callable[[bytes, HostStat], bool] | None:
        """Return the test an entry must pass, None when all do (the quick way).

        What does not pass is noted in the listing.
        """
        rules, size_max = self._scope.rules, self._max_file_size
        if not rules and size_max is None:
            return None
        root = self._scope.root_of(directory)
        assert root is not None
        relative = self._scope.relative(root, directory)
        prefix = relative + b"/" if relative else b""
        left_out = listing.left_out

        def keep(name: bytes, entry: HostStat) -> bool:
            if rules and rules.excludes_entry(prefix + name, directory=entry.type == _DIRECTORY):
                left_out[name] = EXCLUDED
                return False
            if size_max is not None and entry.type == _REGULAR and entry.size > size_max:
                left_out[name] = TOO_LARGE
                return False
            return True

        return keep

    def _without_tagged(
        self,
        fd: int,
        directory: bytes,
        wanted: Iterable[bytes],
        listing: Listing,
        *,
        whole: bool,
    ) -> Iterable[bytes]:
        """Leave only the tag itself when the directory carries one ("exclude if present")."""
        tags = self._scope.tags
        wanted = list(wanted)
        if whole:
            present = tags.intersection(wanted)
        else:
            present = frozenset(tag for tag in tags if _exists(fd, tag))
        if not present or directory in self._scope.roots:
            return wanted
        # Not looked at, so that a name that was asked for and is not there counts as well.
        outside = [name for name in wanted if name not in present]
        listing.left_out.update((name, EXCLUDED) for name in outside if whole or _exists(fd, name))
        return [name for name in wanted if name in present]

    def _close_mounts(self, listing: Listing, foreign: list[bytes]) -> None:
        if not foreign:
            return
        if self._one_file_system:
            listing.closed.update(foreign)
            return
        pseudo = pseudo_devices()
        listing.closed.update(name for name in foreign if listing.entries[name].dev in pseudo)


def _foreign(entries: dict[bytes, HostStat], device: int) -> list[bytes]:
    """Return the directories of other file systems than that of the directory they are in."""
    return [
        name for name, entry in entries.items() if entry.dev != device and entry.type == _DIRECTORY
    ]


def _take(
    listing: Listing,
    found: dict[bytes, HostStat],
    failed: dict[bytes, int],
    hidden: Collection[bytes] | None,
    keep: Callable[[bytes, HostStat], bool] | None,
) -> None:
    """Put what is to be protected into the listing, and leave only that in `found`."""
    if keep is not None:
        for name in [name for name, entry in found.items() if not keep(name, entry)]:
            del found[name]
    for name in hidden or ():
        found.pop(name, None)
        failed.pop(name, None)
        listing.left_out.pop(name, None)
    listing.entries = found
    if failed:
        listing.failed |= {name: error for name, error in failed.items() if error not in _GONE}


def _leave_out(
    listing: Listing,
    same: list[KnownRow],
    rest: dict[bytes, KnownRow],
    hidden: Collection[bytes] | None,
    keep: Callable[[bytes, HostStat], bool] | None,
) -> None:
    """Take note of what is as it was; what is not protected any more is not of it."""
    listing.rest, listing.same_count = rest, len(same)
    if not hidden and keep is None:
        return
    for row in same:
        name = row[0]
        if name in (hidden or ()) or (keep and not keep(name, HostStat(*row[KNOWN_STAT:]))):
            rest[name] = row
            listing.same_count -= 1


def _names_by_inode(fd: int) -> list[bytes]:
    """Return all names, in the order in which their inodes lie on the disk."""
    try:
        with os.scandir(b"/proc/self/fd/%d" % fd) as found:  # unlike scandir(fd), gives bytes
            return [entry.name for entry in sorted(found, key=os.DirEntry.inode)]
    except FileNotFoundError:  # no /proc
        with os.scandir(fd) as listed:
            return [os.fsencode(entry.name) for entry in listed]


def _exists(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def child(directory: bytes, name: bytes) -> bytes:
    """Return the path of an entry that `examine(directory)` found."""
    return name if directory == VIRTUAL_ROOT else join(directory, name)
