"""The local copy in front of a container, within its bounds: the store that the pipeline writes to.

What is put here is durable on return, in the copy or in the container. When the copy is at its
bound, data that the container has too leaves it first. If that is not enough, packs go to the
container directly, and so does a segment once everything before it is there. Else the put waits,
which holds up the capture and not the host: `full_since_us` says since when, and protection goes on
by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from streamd.effects import Clock
from streamd.errors import DiskFull, StreamdError
from streamd.format.envelope import Kind
from streamd.observe.logging import get_logger
from streamd.policy.spool import Bounds, Room, Way, admit
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes

WAIT_SECONDS: Final = 1.0  # how often to look whether there is room again
_KIND_AT: Final = 8  # in the envelope: the kind of the object
_LOG: Final = get_logger("spool")


class Copy(Protocol):
    """What the spool must know of the copy, and have done to it."""

    async def room(self) -> Room:
        """Return how full the copy and its file system are."""

    async def evict(self, size_bytes: int) -> int:
        """Let at least `size_bytes` of what the container has too leave; return how much did."""

    async def is_ahead(self) -> bool:
        """Say whether the copy has something that the container does not have yet."""


class SpoolObserver(Protocol):
    """Told what became of what was put."""

    def spool_filled(self, *, is_full: bool) -> None:
        """Puts wait for room, or do so no longer."""

    def spool_bypassed(self, size_bytes: int) -> None:
        """An object went to the container directly."""


class Spool:
    """BlobStore over `local` and `remote`; see the module. Reads and deletes go to `local`."""

    def __init__(
        self,
        local: BlobStore,
        remote: BlobStore,
        copy: Copy,
        bounds: Callable[[], Bounds],
        clock: Clock,
        observer: SpoolObserver,
    ) -> None:
        self._local = local
        self._remote = remote
        self._copy = copy
        self._bounds = bounds
        self._clock = clock
        self._observer = observer
        self._turn = asyncio.Lock()
        self._arriving_bytes = 0  # admitted and not yet in the file system
        self._waiting = 0
        self.full_since_us = 0
        self.may_bypass: Callable[[], bool] = lambda: True  # local.seed, and no pause in force
        self.is_seeding: Callable[[], bool] = lambda: False  # bulk goes to the container anyway
        self.on_bypass: Callable[[], None] = lambda: None  # whoever keeps the books looks again

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name` in the copy or in the container; waits for room in one of them."""
        size = memoryview(data).nbytes
        is_bulk = memoryview(data)[_KIND_AT : _KIND_AT + 1] == Kind.PACK.encode()
        try:
            while not await self._put(name, data, size, is_bulk=is_bulk):
                self._note_full()
                self._waiting += 1
                try:
                    await asyncio.sleep(WAIT_SECONDS)
                finally:
                    self._waiting -= 1
        finally:
            self._note_room()

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        return await self._local.get(name, offset=offset, size=size)

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; see the port."""
        return self._local.scan(prefix)

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        await self._local.delete(name)

    async def aclose(self) -> None:
        """Nothing of its own is open."""

    async def _put(self, name: BlobName, data: Bytes, size: int, *, is_bulk: bool) -> bool:
        """Put it if there is a way now; say whether there was."""
        if is_bulk and self.is_seeding() and await self._put_around(name, data, size):
            return True
        async with self._turn:  # one decision at a time: they share what is free
            way = await self._way(size, is_bulk=is_bulk)
            if way is Way.COPY:
                self._arriving_bytes += size
        if way is Way.COPY:
            try:
                await self._local.put(name, data)
            except DiskFull:  # somebody else was faster
                way = Way.BYPASS if self.may_bypass() else Way.WAIT
            else:
                return True
            finally:
                self._arriving_bytes -= size
        if way is Way.BYPASS and (is_bulk or not await self._copy.is_ahead()):
            return await self._put_around(name, data, size)
        return False

    async def _way(self, size: int, *, is_bulk: bool) -> Way:
        for _ in range(2):
            arriving = self._arriving_bytes
            found = admit(
                size + arriving,
                await self._copy.room(),
                self._bounds(),
                is_bulk=is_bulk,
                may_bypass=self.may_bypass(),
            )
            if found.way is not Way.EVICT:
                return found.way
            await self._copy.evict(found.evict_bytes)
        return Way.BYPASS if self.may_bypass() else Way.WAIT

    async def _put_around(self, name: BlobName, data: Bytes, size: int) -> bool:
        if not self.may_bypass():
            return False
        try:
            await self._remote.put(name, data)
        except StreamdError as error:
            _LOG.info("bypass-failed", object=name, reason=error.code, what=str(error))
            return False
        self._observer.spool_bypassed(size)
        self.on_bypass()
        return True

    def _note_full(self) -> None:
        if not self.full_since_us:
            self.full_since_us = self._clock.now_us()
            self._observer.spool_filled(is_full=True)
            _LOG.error(
                "spool-full",
                remedy="free space, raise local.max_size, or mend the way to the container;"
                " capture waits and goes on by itself",
            )

    def _note_room(self) -> None:
        if self.full_since_us and not self._waiting:
            _LOG.info("spool-has-room")
            self.full_since_us = 0
            self._observer.spool_filled(is_full=False)
