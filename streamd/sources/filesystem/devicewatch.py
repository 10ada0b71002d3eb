"""Watching one whole file system with fanotify, for all sources that have trees on it.

A mark reports changes of the file system, wherever and however often it is mounted. Events carry
the directory's handle, which is turned into a path as seen through each mount that somebody is
interested in, and remembered until a directory is renamed or removed. What is not remembered is
looked up in a thread (`handles`): meanwhile the events that were read wait, and nothing more is
read, so all are delivered in their order.
"""

import asyncio
import math
import os
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import field

from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem import fanotify
from streamd.sources.filesystem.backlog import Backlog
from streamd.sources.filesystem.handles import Answer, Asker, LookUp, Question, answer_to
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.mounts import Mount
from streamd.sources.filesystem.scope import below, join

_TURN_SECONDS: Final = 0.05  # then everybody else is due
_CACHE_MAX: Final = 20_000  # some 150 bytes each; of a busy file system this is always full
_SLOW_SECONDS: Final = 5.0  # to look handles up; then it is said
_LOG: Final = get_logger("watch")


class Subscription(msgspec.Struct, frozen=True):
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


class _Place(msgspec.Struct):
    """What a directory is to us: inside of trees, on the way to trees, or neither."""

    inside: list[tuple[Inbox, bytes]] = field(default_factory=list)
    towards: dict[bytes, list[tuple[Inbox, bytes]]] = field(default_factory=dict)


_ELSEWHERE: Final = _Place()


class DeviceWatch:
    """The group of one file system and what is known of its directories. Of one event loop.

    `proceed` is called when what was waited for has come, see `is_waiting`.
    """

    def __init__(
        self,
        path: bytes,
        clock: Clock,
        ignored_pid: int,
        kept_fd: int | None = None,
        *,
        look_up: LookUp = answer_to,
        proceed: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch the file system at `path`, or go on with the group behind `kept_fd`."""
        self.subscriptions: list[Subscription] = []
        self.is_held = kept_fd is not None  # what is in its queue waits until all have subscribed
        self.is_closed = False
        self.answered = asyncio.Event()  # nothing is waited for
        self.answered.set()
        self._clock = clock
        self._ignored_pid = ignored_pid
        self._proceed = proceed
        self._asker = Asker(look_up)
        self._asked: list[fanotify.Event] = []  # to be delivered when their handles are known
        self._number = 0  # of the question
        self._answer = Answer()
        self._slow: asyncio.TimerHandle | None = None
        self._places: dict[bytes, _Place] = {}
        self._lonely: set[bytes] = set()  # files that have one name only
        self.group = fanotify.Group(kept_fd)
        self._backlog = Backlog(clock, self.group.waiting)
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
        if self._asked:  # what is being looked up may not be what these want to know
            self._ask(self._asked)

    def close(self) -> None:
        """Stop watching, unless somebody else holds the descriptor too."""
        self.is_closed = True
        self._settle()
        self._asker.close()
        self.group.close()

    @property
    def is_waiting(self) -> bool:
        """Whether events were read whose handles are being looked up; `answered` is set after."""
        return bool(self._asked)

    @property
    def delivered_us(self) -> int:
        """The newest instant before which everything is known to be delivered; 0: none is."""
        return self._backlog.delivered_us

    def drain(self, limit: int, *, is_last: bool = False) -> int | None:
        """Deliver waiting events; return an instant before which all were delivered.

        None when there are more than `limit` reads' worth, or than can be delivered in one turn on
        the event loop: of a busy file system all events come here, also of what is not protected.
        The last time takes as long as it takes: no turn follows. Also None while handles are looked
        up: `proceed` is called when they are known. `delivered_us` moves all the same.
        """
        if self._asked:
            return None
        turn_ends = math.inf if is_last else self._clock.monotonic() + _TURN_SECONDS
        for _ in range(limit):
            self._backlog.mark()
            now = self._clock.now_us()
            events = self.group.read()
            if not events:
                self._backlog.emptied(now)
                return now
            if self._ask(events):
                return None
            self._deliver_all(events)
            self._backlog.delivered(len(events))
            if self._clock.monotonic() >= turn_ends:
                return None
        return None

    def give_up(self) -> None:
        """Deliver what is waited for as lost: there is no time left to wait."""
        if self._asked:
            lost = len(self._asked)
            self._settle()
            self._lose()
            self._backlog.delivered(lost)

    # -- looking up ------------------------------------------------------------------------------

    def _ask(self, events: list[fanotify.Event]) -> bool:
        """Have looked up what must be known to deliver `events`; say whether it has to be."""
        question = self._question(events)
        if not (question.directories or question.files):
            return False
        self._settle()
        self._asked = events
        self.answered.clear()
        number = self._number
        self._asker.ask(question, lambda answer: self._take(number, answer))
        self._slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, self._say_slow)
        return True

    def _question(self, events: list[fanotify.Event]) -> Question:
        """Return what is not known and will be needed, if each event is delivered in its turn.

        More than is needed does no harm.
        """
        if len(self._places) >= _CACHE_MAX:  # here, so that nothing is forgotten half-way
            self._places.clear()
        if len(self._lonely) >= _CACHE_MAX:
            self._lonely.clear()
        forgotten, everything = set[bytes](), False
        directories, files = dict[bytes, None](), dict[bytes, None]()
        for event in events:
            mask = event.mask
            everything = everything or bool(mask & fanotify.OVERFLOW)
            new = [
                handle
                for handle, _ in event.places
                if everything or handle in forgotten or handle not in self._places
            ]
            if event.pid != self._ignored_pid:
                directories.update(dict.fromkeys(new))
                if event.target and not mask & fanotify.ON_DIRECTORY:
                    is_known = event.target in self._lonely and not mask & fanotify.ATTRIB
                    if new or everything or not is_known or _is_nameless(event):
                        files[event.target] = None
            if mask & fanotify.ON_DIRECTORY:
                everything = everything or bool(mask & fanotify.RENAME)
                if mask & fanotify.DELETE:
                    forgotten.add(event.target)
        mounts = [(known.mount, known.real) for known in self.subscriptions]
        return Question(mounts, list(directories), list(files))

    def _take(self, number: int, answer: Answer | None) -> None:
        """Deliver the events that waited for this answer."""
        if number != self._number:
            return  # asked anew, or given up
        events = self._asked
        self._settle()
        if answer is None:
            self._lose()
        else:
            self._answer = answer
            for handle, mount, above in answer.too_long:
                is_ours = self._lose_below(above, mount)
                if not (is_ours or answer.paths[handle]):
                    self._places[handle] = _ELSEWHERE
            self._deliver_all(events)
            self._answer = Answer()
        self._backlog.delivered(len(events))
        self._proceed()

    def _settle(self) -> None:
        """Wait for nothing any more: an answer that comes later is to an old question."""
        self._number += 1
        self._asked = []
        self.answered.set()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _say_slow(self) -> None:
        points = sorted({known.mount.point for known in self.subscriptions})
        _LOG.warning("watch-waits", mounts=points, seconds=_SLOW_SECONDS)

    # -- delivering ------------------------------------------------------------------------------

    def _deliver_all(self, events: list[fanotify.Event]) -> None:
        for event in events:
            try:
                self._deliver(event)
            except Exception as error:  # noqa: BLE001 - a lost event must become a gap
                _LOG.error("event-not-understood", error=repr(error), mask=event.mask)
                self._lose()  # and with it all that follows: everything is looked at
                return

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
            self._deliver_inode(event, sure=stale or _is_nameless(event))

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
        state = self._answer.files[target]
        if state is None:
            return
        if not sure and state.link_count <= 1:
            self._lonely.add(target)
            return
        for inbox in {subscription.inbox for subscription in self.subscriptions}:
            inbox.add_inode(state.device, state.inode)

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

    def _lose_below(self, above: bytes, mount: Mount) -> bool:
        """Have a directory scanned below which a path is too long to be said, if protected."""
        place = _Place()
        for subscription in self.subscriptions:
            if subscription.mount == mount:
                _relate(place, subscription, above)
        for inbox, directory in place.inside:
            inbox.lose("path-too-long", directory)
        return bool(place.inside)

    def _place(self, handle: bytes) -> _Place | None:
        """Return what the directory with this handle is to us; None when it is gone."""
        place = self._places.get(handle)
        if place is None:
            paths = self._answer.paths[handle]
            if not paths:
                return None
            place = _Place()
            for subscription in self.subscriptions:
                if subscription.mount in paths:
                    _relate(place, subscription, paths[subscription.mount])
            if not (place.inside or place.towards):
                place = _ELSEWHERE  # most are, on a file system where others work
            self._places[handle] = place
        return place


def _is_nameless(event: fanotify.Event) -> bool:
    """Say whether a file was made without a name; linked later it is "#" and its number."""
    return not event.places or event.places[0][1].startswith(b"#")


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
