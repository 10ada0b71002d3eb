"""Watching one whole file system with fanotify, for all sources that have trees on it.

A mark reports changes of the file system, wherever and however often it is mounted. Events carry
the directory's handle, which is turned into a path as seen through each mount that somebody is
interested in, and remembered until a directory is renamed or removed.
"""

import contextlib
import math
import os
from dataclasses import dataclass, field
from typing import Final

from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.mounts import Mount
from streamd.sources.filesystem.scope import below, join

_TURN_SECONDS: Final = 0.05  # then everybody else is due
_CACHE_MAX: Final = 50_000
_CLIMB_MAX: Final = 4096  # directories to go up until a path is short enough to be said
_LOG: Final = get_logger("watch")


@dataclass(frozen=True, slots=True)
class Subscription:
    """One tree on one file system: `real` is its path as the kernel prints it."""

    inbox: Inbox
    real: bytes
    configured: bytes
    mount: Mount

    def translate(self, path: bytes) -> bytes:
        """Return a path below `real` as the configuration would write it."""
        if self.real == self.configured:
            return path
        rest = path[len(self.real) :].lstrip(b"/")
        return join(self.configured, rest) if rest else self.configured


@dataclass(slots=True)
class _Place:
    """What a directory is to us: inside of trees, on the way to trees, or neither."""

    inside: list[tuple[Inbox, bytes]] = field(default_factory=list)
    towards: dict[bytes, list[tuple[Inbox, bytes]]] = field(default_factory=dict)


class DeviceWatch:
    """The group of one file system and what is known of its directories."""

    def __init__(
        self, path: bytes, clock: Clock, ignored_pid: int, kept_fd: int | None = None
    ) -> None:
        """Watch the file system at `path`, or go on with the group behind `kept_fd`."""
        self.subscriptions: list[Subscription] = []
        self.is_held = kept_fd is not None  # what is in its queue waits until all have subscribed
        self._clock = clock
        self._ignored_pid = ignored_pid
        self._places: dict[bytes, _Place] = {}
        self._lonely: set[bytes] = set()  # files that have one name only
        self._mount_fds: dict[Mount, int] = {}
        self.group = fanotify.Group(kept_fd)
        try:
            if kept_fd is None:
                self.group.mark_filesystem(path)
            _check_handles(path)
        except OSError:
            self.group.close()
            raise

    def change(self, subscriptions: list[Subscription]) -> None:
        """Watch for these trees from now on."""
        self.subscriptions = subscriptions
        self._places.clear()
        self._lonely.clear()

    def drain(self, limit: int, *, is_last: bool = False) -> int | None:
        """Deliver waiting events; return an instant before which all were delivered.

        None when there are more than `limit` reads' worth, or than can be delivered in one turn on
        the event loop: of a busy file system all events come here, also of what is not protected.
        The last time takes as long as it takes: no turn follows.
        """
        turn_ends = math.inf if is_last else self._clock.monotonic() + _TURN_SECONDS
        try:
            for _ in range(limit):
                now = self._clock.now_us()
                events = self.group.read()
                if not events:
                    return now
                for event in events:
                    try:
                        self._deliver(event)
                    except Exception as error:  # noqa: BLE001 - a lost event must become a gap
                        _LOG.error("event-not-understood", error=repr(error), mask=event.mask)
                        self._lose()
                if self._clock.monotonic() >= turn_ends:
                    return None
            return None
        finally:
            for fd in self._mount_fds.values():  # an open one would make umount fail
                os.close(fd)
            self._mount_fds.clear()

    def _deliver(self, event: fanotify.Event) -> None:
        mask = event.mask
        if mask & fanotify.OVERFLOW:
            self._lose()
            return
        if event.pid == self._ignored_pid:
            if mask & fanotify.ON_DIRECTORY:
                self._forget(event)
            return
        stale = self._deliver_places(event)
        if mask & fanotify.ON_DIRECTORY:
            self._forget(event)
        else:
            # What was made without a name, and linked later, is reported as "#" and its number.
            nameless = stale or not event.places or event.places[0][1].startswith(b"#")
            self._deliver_inode(event, sure=nameless)

    def _deliver_places(self, event: fanotify.Event) -> bool:
        """Deliver the names that are protected; say whether a directory is gone."""
        is_directory = bool(event.mask & fanotify.ON_DIRECTORY)
        deep = is_directory and bool(event.mask & (fanotify.CREATE | fanotify.RENAME))
        stale = False
        for handle, name in event.places:
            place = self._place(handle)
            if place is None:
                stale = True
                continue
            for inbox, directory in place.inside:
                inbox.add(directory, name, deep=deep, is_directory=is_directory)
            for inbox, root in place.towards.get(name, ()):
                inbox.add_path(root, deep=True)
        return stale

    def _deliver_inode(self, event: fanotify.Event, *, sure: bool) -> None:
        """Deliver the inode if it is `sure` to be needed or has several names.

        Also when the event's own name is protected: by the time that somebody looks there it may
        be gone, together with its directory, and the other names would never be looked at.
        """
        target = event.target
        if not target:
            return
        if event.mask & fanotify.ATTRIB:
            self._lonely.discard(target)
        elif not sure and target in self._lonely:
            return
        status = self._stat(target)
        if status is None:
            return
        if not sure and status.st_nlink <= 1:
            if len(self._lonely) >= _CACHE_MAX:
                self._lonely.clear()
            self._lonely.add(target)
            return
        for inbox in {subscription.inbox for subscription in self.subscriptions}:
            inbox.add_inode(status.st_dev, status.st_ino)

    def _forget(self, event: fanotify.Event) -> None:
        """Drop remembered paths that this event made wrong."""
        if event.mask & fanotify.RENAME:
            self._places.clear()
        elif event.mask & fanotify.DELETE:
            self._places.pop(event.target, None)

    def _lose(self) -> None:
        self._places.clear()
        self._lonely.clear()
        for subscription in self.subscriptions:
            subscription.inbox.lose("overflow", subscription.configured)

    def _lose_below(self, fd: int, mount: Mount) -> None:
        """Have the nearest directory whose path the kernel can say scanned, if it is protected."""
        at = os.dup(fd)
        try:
            for _ in range(_CLIMB_MAX):
                parent = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = parent
                with contextlib.suppress(OSError):
                    path = fanotify.path_of(at)
                    break
            else:
                return
        except OSError:
            return  # gone meanwhile; its own removal tells
        finally:
            os.close(at)
        place = _Place()
        for subscription in self.subscriptions:
            if subscription.mount == mount:
                _relate(place, subscription, path)
        for inbox, directory in place.inside:
            inbox.lose("path-too-long", directory)

    def _place(self, handle: bytes) -> _Place | None:
        """Return what the directory with this handle is to us; None when it is gone."""
        place = self._places.get(handle)
        if place is None:
            place = self._resolve(handle)
            if place is not None:
                if len(self._places) >= _CACHE_MAX:
                    self._places.clear()
                self._places[handle] = place
        return place

    def _resolve(self, handle: bytes) -> _Place | None:
        paths: dict[Mount, bytes] = {}
        place = _Place()
        for subscription in self.subscriptions:
            mount = subscription.mount
            if mount not in paths:
                try:
                    fd = fanotify.open_handle(self._mount_fd(subscription), handle)
                except OSError:
                    continue
                try:
                    paths[mount] = fanotify.path_of(fd)
                except OSError:  # longer than the kernel can say
                    self._lose_below(fd, mount)
                    continue
                finally:
                    os.close(fd)
            _relate(place, subscription, paths[mount])
        return place if paths else None

    def _stat(self, target: bytes) -> os.stat_result | None:
        for subscription in self.subscriptions:
            try:
                fd = fanotify.open_handle(self._mount_fd(subscription), target)
            except OSError:
                continue
            try:
                return os.fstat(fd)
            finally:
                os.close(fd)
        return None

    def _mount_fd(self, subscription: Subscription) -> int:
        """Return a descriptor of the mount, open until the end of this drain. Raises OSError."""
        mount = subscription.mount
        fd = self._mount_fds.get(mount)
        if fd is None:
            fd = _open_on(mount, subscription.real)
            self._mount_fds[mount] = fd
        return fd


def _open_on(mount: Mount, real: bytes) -> int:
    """Return a descriptor of something on this very mount. Raises OSError."""
    for path in (mount.point, real):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            if path == real:
                raise
            continue
        if fanotify.mount_id(fd) == mount.id:
            return fd
        os.close(fd)  # something else was mounted over it
    raise OSError("the file system is no longer mounted here")


def _relate(place: _Place, subscription: Subscription, path: bytes) -> None:
    """Note in `place` what the directory `path` is to the subscribed tree."""
    inbox = subscription.inbox
    if below(path, subscription.real):
        directory = subscription.translate(path)
        if inbox.scope.protects(directory, directory=True):
            place.inside.append((inbox, directory))
    elif below(subscription.real, path):
        name = subscription.real[len(path) :].lstrip(b"/").partition(b"/")[0]
        place.towards.setdefault(name, []).append((inbox, subscription.configured))


def _check_handles(path: bytes) -> None:
    """Make sure that handles can be opened; raises OSError when we may not or they do not exist."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.close(fanotify.open_handle(fd, fanotify.handle_of(path)))
    finally:
        os.close(fd)
