"""The file systems that are watched for the sources of one process: one group for each.

Any number of sources share the group of a file system. A group that an earlier process left with
the service manager is gone on with; what waits in it is delivered when all sources have come.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.kept import KeptGroups
from streamd.sources.filesystem.mounts import NETWORK_TYPES, Mount

if TYPE_CHECKING:
    from streamd.sources.filesystem.devicewatch import DeviceWatch, Subscription
    from streamd.sources.filesystem.handles import LookUp

_SLICE: Final = 2  # reads of one turn on the event loop: the second one finds nothing, mostly
# How long a queue that was read empty is left alone. What comes meanwhile is read in one go, and
# what happens to one file several times is one event then. A queue holds 16,384 of them.
_PAUSE_SECONDS: Final = 0.02
_FOREIGN_PAUSE_SECONDS: Final = 0.1  # when none of it was about what is protected
_LAST_SECONDS: Final = 3.0  # for what the events that are read last lead to
_LAST_READS_MAX: Final = 256  # of each group when watching ends; the rest is for the next process
HOLD_SECONDS: Final = 10.0  # how long kept queues wait for a source that does not come
_LOG: Final = get_logger("watch")


class MountWatch:
    """Used on one event loop.

    `ignored_pid` is the process whose own changes are not reported: ours, because the catalog and
    the spool often lie on a file system that is watched. `own_directories` are not even queued
    for. `expected` is set to the number of sources that come at the start.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ignored_pid: int | None = None,
        kept: KeptGroups | None = None,
        own_directories: Sequence[bytes] = (),
        look_up: "LookUp | None" = None,
    ) -> None:
        self._clock = clock
        self.answering = Answering(clock)
        self._ignored_pid = os.getpid() if ignored_pid is None else ignored_pid
        self._kept = kept or KeptGroups()
        self._own_directories = own_directories
        self._look_up = look_up
        self._devices: "dict[int, DeviceWatch]" = {}
        self._pauses: "dict[DeviceWatch, asyncio.TimerHandle]" = {}
        self.expected = 0
        self._arrived = 0
        self._begun = asyncio.Event()
        self._is_ending = False
        self._ended_us: int | None = None

    # -- begin and end ---------------------------------------------------------------------------

    async def arrive(self) -> None:
        """A source has subscribed; return when the others have too, or do not come."""
        self._arrived += 1
        if self._arrived >= self.expected:
            self._begin()
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                await self._begun.wait()
        except TimeoutError:
            self._begin()

    def _begin(self) -> None:
        if self._begun.is_set():
            return
        self._begun.set()
        self._kept.settle()
        for watch in self._devices.values():
            if watch.is_held:
                watch.is_held = False
                self._turn(watch)

    @property
    def devices(self) -> frozenset[int]:
        """The file systems that are watched now, each by one mark."""
        return frozenset(self._devices)

    @property
    def is_ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended_us is not None

    async def end(self) -> None:
        """Read for a last time; what comes later stays in the queues, for the next process.

        Takes a few seconds at most.
        """
        self._is_ending = True  # from now on nobody else reads
        now = self._clock.now_us()
        complete = True
        for watch in list(self._devices.values()):
            if watch.is_held:
                complete = False
                continue
            complete = await self._finish(watch) and complete
        self._ended_us = now if complete else 0
        inboxes = {known.inbox for watch in self._devices.values() for known in watch.subscriptions}
        for inbox in inboxes:
            inbox.wakened.set()

    async def _finish(self, watch: "DeviceWatch") -> bool:
        """Deliver what waits in a queue; say whether that was all."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _LAST_SECONDS
        while not watch.is_closed:
            self._read_no_more(watch)
            if watch.drain(_LAST_READS_MAX, is_last=True) is not None:
                return True
            if not watch.is_waiting:
                return False
            try:
                async with asyncio.timeout_at(until):
                    await watch.answered.wait()
            except TimeoutError:
                watch.give_up()
                return False
        return True

    # -- subscriptions ---------------------------------------------------------------------------

    def subscribe(self, inbox: Inbox, real: bytes, configured: bytes, mount: Mount) -> bool:
        """Deliver changes at and below the existing path `real` to `inbox`, as `configured`.

        Return whether nothing was missed since an earlier process watched here. Raises OSError
        where this file system cannot be watched so.
        """
        if mount.type in NETWORK_TYPES:
            raise OSError("the kernel is not told what others change")
        watch = self._devices.get(mount.device)
        if watch is None:
            watch = self._devices[mount.device] = self._open(mount)
        from streamd.sources.filesystem.devicewatch import Subscription

        new = Subscription(inbox, real, configured, mount)
        if new not in watch.subscriptions:
            watch.change([*watch.subscriptions, new])
        return watch.is_held

    def _open(self, mount: Mount) -> "DeviceWatch":
        from streamd.sources.filesystem.devicewatch import DeviceWatch  # where it is watched
        from streamd.sources.filesystem.handles import answer_to

        fd = None if self._begun.is_set() else self._kept.claim(mount.device)
        watch = DeviceWatch(
            mount.point,
            self._clock,
            self._ignored_pid,
            fd,
            look_up=self._look_up or answer_to,
            proceed=lambda: self._turn(watch),
        )
        for path in self._own_directories:
            if os.path.isdir(path) and os.stat(path).st_dev == mount.device:
                watch.group.ignore_directory(path)
        if watch.is_held:
            _LOG.info("watch-resumed", mount=mount.point)
        else:
            self._kept.keep(mount.device, watch.group.fd)
            self._read_on(watch)
        return watch

    def _read_on(self, watch: "DeviceWatch") -> None:
        self._pauses.pop(watch, None)
        asyncio.get_running_loop().add_reader(watch.group.fd, self._turn, watch)

    def _turn(self, watch: "DeviceWatch") -> None:
        """Deliver what waits; when that was all, leave the queue alone for a moment.

        Each wake-up for a single event costs more than the event. While handles are looked up
        nothing is read.
        """
        if watch.is_closed or watch.is_held or self._is_ending:
            return
        self._read_no_more(watch)
        if watch.drain(_SLICE) is None:
            if not watch.is_waiting:
                self._read_on(watch)
            return
        is_ours = any(known.inbox.wakened.is_set() for known in watch.subscriptions)
        seconds = _PAUSE_SECONDS if is_ours else _FOREIGN_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        self._pauses[watch] = loop.call_later(seconds, self._read_on, watch)

    def _read_no_more(self, watch: "DeviceWatch") -> None:
        pause = self._pauses.pop(watch, None)
        if pause is not None:
            pause.cancel()
        asyncio.get_running_loop().remove_reader(watch.group.fd)

    def unsubscribe(self, wanted: "Callable[[Subscription], bool]") -> None:
        """Stop delivering to the subscriptions that are `wanted`.

        A group that nobody needs any more is closed, and no longer kept; not at the end, when it
        is the next process that needs it.
        """
        for device, watch in list(self._devices.items()):
            kept = [known for known in watch.subscriptions if not wanted(known)]
            if kept:
                watch.change(kept)
                continue
            self._read_no_more(watch)
            if not self.is_ended:
                self._kept.forget(device)
            watch.close()
            del self._devices[device]

    # -- events ----------------------------------------------------------------------------------

    def drain(self, inbox: Inbox, limit: int) -> int | None:
        """Deliver waiting events of the inbox's file systems, at most `limit` reads of each.

        Return the instant before which everything was delivered, None when there is more, or
        handles are being looked up (`answered`).
        """
        if self._ended_us is not None:
            return self._ended_us
        if self._is_ending:
            return None
        drained = self._clock.now_us()
        complete = True
        for watch in self._of(inbox):
            complete = watch.drain(limit) is not None and complete
        return drained if complete else None

    def delivered_us(self, inbox: Inbox) -> int:
        """Return the newest instant before which all is known to be delivered; 0: there is none."""
        return min((watch.delivered_us for watch in self._of(inbox)), default=0)

    async def answered(self, inbox: Inbox, seconds: float) -> bool:
        """Wait until nothing is being looked up for the inbox; False: it takes longer, or ends."""
        if self._is_ending:
            return False
        try:
            async with asyncio.timeout(seconds):
                for watch in self._of(inbox):
                    await watch.answered.wait()
        except TimeoutError:
            return False
        return True

    def _of(self, inbox: Inbox) -> "list[DeviceWatch]":
        return [
            watch
            for watch in self._devices.values()
            if any(known.inbox is inbox for known in watch.subscriptions)
        ]
