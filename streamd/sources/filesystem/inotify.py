"""Watching trees directory by directory, where file systems cannot be watched as a whole.

A new directory is first watched and then listed, so that nothing made in between is missed. What
inotify cannot see: writes through a hard link outside of the tree, and anything once the system's
limit of watches is reached (that part of the tree is polled instead).
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

from streamd.effects import MICROSECONDS, Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.native import last_error
from streamd.sources.filesystem.polling import PollingWatch
from streamd.sources.filesystem.scope import below, join, split

_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_UNMOUNT: Final = 0x2000
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLY_DIRECTORY: Final = 0x0100_0000
_DO_NOT_FOLLOW: Final = 0x0200_0000
_IS_DIRECTORY: Final = 0x4000_0000
_MASK: Final = (
    _MODIFY
    | _ATTRIB
    | _CLOSE_WRITE
    | _MOVED_FROM
    | _MOVED_TO
    | _CREATE
    | _DELETE
    | _DELETE_SELF
    | _MOVE_SELF
    | _ONLY_DIRECTORY
    | _DO_NOT_FOLLOW
)
_CLOEXEC_NONBLOCK: Final = 0o2000000 | 0o4000
_READ_SIZE: Final = 64 * 1024
_HEAD: Final = struct.Struct("iIII")
_WALK_SLICE: Final = 500  # directories added in one turn on the event loop
_PARTNER_US: Final = MICROSECONDS  # how long the other half of a rename may take

_LIMIT: Final = "/proc/sys/fs/inotify/max_user_watches"
_LIMIT_KEY: Final = "fs.inotify.max_user_watches"
_LIMIT_USUAL: Final = 65_536
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES})

_LOG: Final = get_logger("watch")
_libc = ctypes.CDLL(None, use_errno=True)
_add_watch = _libc["inotify_add_watch"]
_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]


def parse(buffer: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (watch, mask, cookie, name) of what was read from inotify."""
    at = 0
    while at < len(buffer):
        watch, mask, cookie, size = _HEAD.unpack_from(buffer, at)
        at += _HEAD.size
        yield watch, mask, cookie, buffer[at : at + size].rstrip(b"\0")
        at += size


class InotifyWatch:
    """Watches the directories of some trees. Used on the event loop, but for `walk`."""

    def __init__(
        self,
        inbox: Inbox,
        clock: Clock,
        polling: PollingWatch,
        answering: Answering,
        *,
        one_file_system: bool,
    ) -> None:
        """Raise OSError when the system allows no further instance."""
        self.fd = int(_libc.inotify_init1(_CLOEXEC_NONBLOCK))
        if self.fd < 0:
            raise last_error("inotify_init1")
        self._inbox = inbox
        self._clock = clock
        self._polling = polling
        self._answering = answering
        self._one_file_system = one_file_system
        self._trees: list[bytes] = []
        self._paths: dict[int, bytes] = {}  # by watch
        self._pending: list[bytes] = []  # directories to be watched and listed
        self._fresh: list[bytes] = []  # the tops of what is pending
        self._moved: dict[int, tuple[bytes, int]] = {}  # by cookie: path, and when to give up
        self._limited: list[bytes] = []
        self.degraded: set[bytes] = set()  # directories that are polled, with all below them

    def add_tree(self, tree: bytes) -> None:
        """Watch `tree`, which may be a file or not exist yet; `walk` completes it.

        Raises OSError if not even the directory that holds it can be watched.
        """
        if not self._watch(split(tree)[0]):
            raise last_error("inotify_add_watch")
        if tree not in self._trees:
            self._trees.append(tree)
        self._pending.append(tree)

    def refresh(self, tree: bytes) -> None:
        """Look again for directories to watch below `tree`."""
        self._pending.append(tree)

    def walk(self, limit: int | None = None) -> bool:
        """Watch pending directories; say whether all are done. Blocking: a walk of the tree."""
        while self._pending:
            if limit is not None:
                limit -= 1
                if limit < 0:
                    return False
            directory = self._pending.pop()
            if self._answering.is_hung(directory):
                continue  # polled, until it answers
            if self._inbox.scope.protects(directory, directory=True) and self._watch(directory):
                self._pending += self._directories_in(directory)
        return True

    def drain(self, limit: int) -> int | None:
        """Deliver waiting events, at most `limit` reads; see `MountWatch.drain`."""
        for _ in range(limit):
            now = self._clock.now_us()
            self._give_up_partners(now)
            if not self.walk(_WALK_SLICE):
                return None
            for top in self._fresh:
                self._inbox.add_path(top, deep=True)
            self._fresh.clear()
            self._report_limit()
            try:
                buffer = os.read(self.fd, _READ_SIZE)
            except BlockingIOError:
                return now
            for watch, mask, cookie, name in parse(buffer):
                self._deliver(watch, mask, cookie, name)
        return None

    def close(self) -> None:
        """Stop watching."""
        os.close(self.fd)

    def _deliver(self, watch: int, mask: int, cookie: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            for tree in self._trees:
                self._inbox.lose("overflow", tree)
                self._pending.append(tree)
            return
        directory = self._paths.get(watch)
        if directory is None:
            return
        if mask & (_IGNORED | _UNMOUNT):
            self._paths.pop(watch, None)
            return
        path = join(directory, name) if name else directory
        if not any(below(path, tree) for tree in self._trees):
            return  # beside a tree
        is_directory = not name or bool(mask & _IS_DIRECTORY)
        if is_directory and name:
            self._renew(path, mask, cookie)
        deep = is_directory and bool(mask & (_CREATE | _MOVED_FROM | _MOVED_TO))
        self._inbox.add(directory, name or b".", deep=deep, is_directory=is_directory)

    def _renew(self, path: bytes, mask: int, cookie: int) -> None:
        """Follow a directory that came or went."""
        if mask & _MOVED_FROM:
            self._moved[cookie] = (path, self._clock.now_us() + _PARTNER_US)
        elif mask & (_CREATE | _MOVED_TO):
            self._moved.pop(cookie, None)  # watches follow the inode: walking corrects the paths
            self._pending.append(path)
            self._fresh.append(path)

    def _give_up_partners(self, now: int) -> None:
        """Stop watching directories that were moved out of the tree."""
        for cookie, (path, until) in list(self._moved.items()):
            if now >= until:
                del self._moved[cookie]
                if os.path.lexists(path):
                    continue  # something else has the name by now, and watches of its own
                for watch in [w for w, known in self._paths.items() if below(known, path)]:
                    _libc.inotify_rm_watch(self.fd, watch)
                    del self._paths[watch]

    def _watch(self, directory: bytes) -> bool:
        watch = int(_add_watch(self.fd, directory, _MASK))
        if watch >= 0:
            self._paths[watch] = directory
            return True
        if ctypes.get_errno() not in _NOTHING_THERE:
            self._limited.append(directory)
        return False

    def _directories_in(self, directory: bytes) -> list[bytes]:
        try:
            with os.scandir(directory) as entries:
                found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            if self._one_file_system:
                device = os.lstat(directory).st_dev
                found = [e for e in found if e.stat(follow_symlinks=False).st_dev == device]
        except OSError:
            return []  # gone again; the event that says so is waiting
        return [entry.path for entry in found]

    def _report_limit(self) -> None:
        """Hand what could not be watched over to polling."""
        if self._limited and not self.degraded:
            _LOG.warning("watch-limit", remedy=limit_advice(), directories=len(self._limited))
        for directory in self._limited:
            if any(below(directory, tree) for tree in self._trees):
                self._inbox.lose("watch-limit", directory)
                self._polling.add(directory)
                self.degraded.add(directory)
        self._limited.clear()


def limit_advice() -> str:
    """Say what an administrator does about the limit of watches: the line to run."""
    try:
        with open(_LIMIT, "rb") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        limit = _LIMIT_USUAL
    return f"inotify: the limit of watches is reached: sysctl -w {_LIMIT_KEY}={limit * 2}"
