"""Watching one source: each tree by the best means that works where it is."""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Final

from streamd.effects import Clock
from streamd.sources.filesystem.inbox import Inbox
from streamd.sources.filesystem.inotify import InotifyWatch, limit_advice
from streamd.sources.filesystem.modes import FANOTIFY, INOTIFY, POLL_SECONDS, POLLING, WATCH_MODES
from streamd.sources.filesystem.mounts import PSEUDO_TYPES, Mount, MountTable
from streamd.sources.filesystem.mountwatch import MountWatch
from streamd.sources.filesystem.polling import PollingWatch
from streamd.sources.filesystem.scope import TreeScope, below, split
from streamd.sources.port import Watch, WatchBatch

_IDLE_SECONDS: Final = 1.0  # the watermark moves at least this often
_BATCH_SECONDS: Final = 0.3  # of a queue that is never empty: what there is by then
_GATHER_SECONDS: Final = 0.1  # each batch is a transaction: one for a burst, not for each event
_READS_MAX: Final = 16  # in one turn on the event loop
_SHARED_READS_MAX: Final = 64  # those are smaller
_PATHS_MAX: Final = 20_000


class WatchSession:
    """One run of `FilesystemSource.watch`: owns inbox and fallbacks, shares the `MountWatch`."""

    def __init__(
        self,
        scope: TreeScope,
        clock: Clock,
        shared: MountWatch,
        modes: dict[bytes, str],
        watches: dict[bytes, Watch],
        *,
        one_file_system: bool,
        allowed: tuple[str, ...] = WATCH_MODES,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._scope = scope
        self._clock = clock
        self._shared = shared
        self._answering = shared.answering
        self._hung: frozenset[Mount] = frozenset()  # as far as what is watched goes by it
        self._modes = modes
        self._watches = watches
        self._one_file_system = one_file_system
        self._allowed = allowed
        self._inbox = Inbox(scope)
        self._polling = PollingWatch(self._inbox, clock, seconds=poll_seconds)
        self._inotify: InotifyWatch | None = None
        self._mounts = MountTable()
        self._drained_us = 0
        self._is_resumed = True  # nothing was missed since an earlier process watched
        self._trees: dict[bytes, Mount | None] = {}  # what is watched, and on which mount
        self._hurried = asyncio.Event()

    async def run(self) -> AsyncGenerator[WatchBatch, None]:
        """Yield batches until watching ends for all; the first one when all is watched."""
        self._watches.clear()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._answering.look, self._scope.roots)
        self._hung = self._answering.hung
        try:
            for root in self._scope.roots:
                self._modes[root] = FANOTIFY
                self._watch(root, root)
                for mount in self._mounts_below(root):
                    self._watch(mount.point, root)
            await self._walk()
            await self._shared.arrive()
            first = WatchBatch(resumed=self._is_resumed, trees=self._fingerprint())
            if not self._is_resumed:
                self._inbox.take(0)
                first.drained_us = self._drained_us = self._clock.now_us()
            yield first
            while True:
                is_last = self._shared.is_ended
                batch = await self._next()
                if is_last:
                    batch.trees = self._fingerprint()
                yield batch
                if is_last:
                    return
        finally:
            self._close()

    def _fingerprint(self) -> bytes:
        """Return what must be the same for a later process to go on where this one ends."""
        trees = sorted(
            (tree, mount.point, mount.root, mount.device) if mount is not None else (tree,)
            for tree, mount in self._trees.items()
        )
        return repr(trees).encode()

    async def _next(self) -> WatchBatch:
        """Return the next batch, after a second at the latest."""
        try:
            async with asyncio.timeout(0 if self._shared.is_ended else _until_full_second()):
                await self._inbox.wakened.wait()
        except TimeoutError:
            pass
        else:
            await self._gather()
        self._hurried.clear()
        await self._follow_mounts()
        loop = asyncio.get_running_loop()
        until = loop.time() + _BATCH_SECONDS
        while True:
            instants = self._drain()
            if None not in instants or loop.time() > until or self._inbox.depth >= _PATHS_MAX:
                break
            if not await self._shared.answered(self._inbox, _IDLE_SECONDS):
                break  # one of several may hang: what there is of the others goes on
            await asyncio.sleep(0)
        if instants[0] is None:  # others on the file system may never let it be all
            instants[0] = self._shared.delivered_us(self._inbox)
        known = [instant for instant in instants if instant is not None]
        if len(known) == len(instants):
            self._drained_us = max(self._drained_us, min(known))
        return self._inbox.take(self._drained_us)

    async def _gather(self) -> None:
        """Wait for what comes together, unless somebody is in a hurry."""
        try:
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._hurried.wait()
        except TimeoutError:
            pass

    def hurry(self) -> None:
        """Have the next batch come at once."""
        self._hurried.set()
        self._inbox.wakened.set()

    def _drain(self) -> list[int | None]:
        """Deliver what waits; return up to when each watcher has seen all, None: there is more."""
        instants = [self._shared.drain(self._inbox, _SHARED_READS_MAX)]
        if self._inotify is not None:
            instants.append(self._inotify.drain(_READS_MAX))
            for directory in self._inotify.degraded:
                root = self._scope.root_of(directory)
                if root is not None:
                    self._chosen(directory, root, POLLING, [limit_advice()])
            self._inotify.degraded.clear()
        polled = self._polling.drain(_READS_MAX)
        if polled is not None:
            instants.append(polled)
        return instants

    def _watch(self, tree: bytes, root: bytes) -> None:
        """Watch `tree`, a root or a mount below it, by the best means that works."""
        self._trees[tree] = None
        tried: list[str] = []
        if self._answering.is_hung(tree):
            self._is_resumed = False
            self._polling.add(tree)  # each look asks it again, and waits for nothing
            self._chosen(tree, root, POLLING, ["it does not answer"])
            return
        for mode in self._allowed:
            try:
                if mode == FANOTIFY:
                    self._subscribe(tree)
                    self._chosen(tree, root, mode, tried)
                    return
                self._is_resumed = False
                if mode == INOTIFY:
                    self._add_inotify(tree)
                else:
                    self._polling.add(tree)
            except OSError as error:
                tried.append(f"{mode}: {error.strerror or error}")
                continue
            self._chosen(tree, root, mode, tried)
            return
        self._is_resumed = False
        self._polling.add(tree)
        self._chosen(tree, root, POLLING, tried)

    def _chosen(self, tree: bytes, root: bytes, mode: str, tried: list[str]) -> None:
        self._watches[tree] = Watch(mode, "; ".join(tried))
        self._worsen(root, mode)

    def _worsen(self, root: bytes, mode: str) -> None:
        """Show for a root the worst means that any part of it needs."""
        self._modes[root] = max(self._modes[root], mode, key=WATCH_MODES.index)

    def _subscribe(self, tree: bytes) -> None:
        parent, name = split(tree)
        real = os.path.realpath(parent)
        real = real if name == b"." else os.path.join(real, name)
        covering = [mount for mount in self._mounts.mounts if below(real, mount.point)]
        if not covering:
            raise OSError("not mounted")
        mount = max(covering, key=lambda mount: len(mount.point))  # the last of equals is on top
        for other in covering:
            if other.point == mount.point:
                mount = other
        if not self._shared.subscribe(self._inbox, real, tree, mount):
            self._is_resumed = False
        self._trees[tree] = mount

    def _add_inotify(self, tree: bytes) -> None:
        if self._inotify is None:
            self._inotify = InotifyWatch(
                self._inbox,
                self._clock,
                self._polling,
                self._answering,
                one_file_system=self._one_file_system,
            )
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._inotify.drain, 1)
        self._inotify.add_tree(tree)

    async def _walk(self) -> None:
        """Complete the inotify watches, in a thread: it takes seconds for large trees."""
        inotify = self._inotify
        if inotify is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(inotify.fd)
        await loop.run_in_executor(None, inotify.walk)
        loop.add_reader(inotify.fd, inotify.drain, 1)

    def _mounts_below(self, root: bytes) -> list[Mount]:
        """Return the file systems with data that are mounted inside of `root`."""
        if self._one_file_system:
            return []
        return [
            mount
            for mount in self._mounts.mounts
            if mount.point != root and below(mount.point, root) and self._holds_data(mount)
        ]

    async def _follow_mounts(self) -> None:
        """Watch what was mounted, and have looked at wherever something was (un)mounted."""
        changes = self._mounts.changes()
        hung = self._answering.hung
        changes |= self._hung ^ hung  # one that answers again has been looked at by nobody
        self._hung = hung
        for mount in changes:
            for root in self._scope.roots:
                if below(root, mount.point):
                    self._rewatch(root, root)
                elif below(mount.point, root) and self._holds_data(mount):
                    if self._one_file_system:
                        self._inbox.add_path(mount.point, deep=True)
                    else:
                        self._rewatch(mount.point, root)
        if changes and self._inotify is not None:
            await self._walk()

    def _holds_data(self, mount: Mount) -> bool:
        return mount.type not in PSEUDO_TYPES and self._scope.protects(mount.point, directory=True)

    def _rewatch(self, tree: bytes, root: bytes) -> None:
        self._shared.unsubscribe(
            lambda known: known.inbox is self._inbox and known.configured == tree
        )
        self._trees.pop(tree, None)
        self._watches.pop(tree, None)
        self._polling.remove(tree)
        rest = (watch.mode for at, watch in self._watches.items() if below(at, root))
        self._modes[root] = max(rest, key=WATCH_MODES.index, default=FANOTIFY)
        if any(mount.point == tree for mount in self._mounts.mounts) or tree == root:
            self._watch(tree, root)
        if self._inotify is not None:
            self._inotify.refresh(tree)
        self._inbox.lose("mount-changed", tree)

    def _close(self) -> None:
        self._shared.unsubscribe(lambda known: known.inbox is self._inbox)
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
        self._mounts.close()


def _until_full_second() -> float:
    """Return how long to wait for events: all sources wake up at once, for one wake-up."""
    return _IDLE_SECONDS - asyncio.get_running_loop().time() % _IDLE_SECONDS
