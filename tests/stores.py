"""Stores that misbehave on purpose, and one that remembers what was asked of it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from simloop import Halt

from streamd.errors import StorageThrottled, TransientError, VaultUnreachable
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes


class Crash(Halt):
    """The process died here. Not an Exception: no handler in streamd may outlive it.

    On the simulator's loop nothing runs any more; on a real one, other tasks meet it too.
    """


class _Forwarding:
    """Hands everything to the store beneath."""

    disk: BlobStore

    async def put(self, name: BlobName, data: Bytes) -> None:
        await self.disk.put(name, data)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        return await self.disk.get(name, offset=offset, size=size)

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        return self.disk.scan(prefix)

    async def delete(self, name: BlobName) -> None:
        await self.disk.delete(name)

    async def aclose(self) -> None:
        await self.disk.aclose()


@dataclass
class CrashingBlobStore(_Forwarding):
    """Die at write number `crash_at` (a put or a delete, counted from 0), and stay dead.

    For crash sweeps: run once with `crash_at = NEVER` to learn `writes`, then once for each of
    them, before and after it lands; open `disk` anew each time and look.
    """

    NEVER = -1

    disk: BlobStore
    crash_at: int
    lands: bool  # does the fatal write reach the disk? A put's outcome can be unknown.
    writes: int = 0
    dead: bool = False

    async def put(self, name: BlobName, data: Bytes) -> None:
        fatal = self._count(name)
        await self.disk.put(name, data)
        self._after(name, fatal)

    async def delete(self, name: BlobName) -> None:
        fatal = self._count(name)
        await self.disk.delete(name)
        self._after(name, fatal)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        self._check_alive()
        return await self.disk.get(name, offset=offset, size=size)

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        self._check_alive()
        return self.disk.scan(prefix)

    def _count(self, name: BlobName) -> bool:
        self._check_alive()  # other tasks of a dead process do nothing either
        fatal = self.writes == self.crash_at
        self.writes += 1
        if fatal and not self.lands:
            self.dead = True
            raise Crash(f"before {name}")
        return fatal

    def _after(self, name: BlobName, fatal: bool) -> None:
        if fatal:
            self.dead = True
            raise Crash(f"after {name}")

    def _check_alive(self) -> None:
        if self.dead:
            raise Crash("still dead")


@dataclass
class FaultyBlobStore(_Forwarding):
    """A seeded bad link: fails before or after the operation took effect, and dawdles.

    `rate` is the chance of a fault for each operation, half of them after the effect. `down` is an
    outage: nothing gets through. Delays go through `asyncio.sleep`, so virtual time passes them.
    """

    disk: BlobStore
    seed: int = 0
    rate: float = 0.3
    delay_seconds_max: float = 0.0
    down: bool = False
    faults: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def put(self, name: BlobName, data: Bytes) -> None:
        after = await self._maybe_fail(f"put {name}")
        await self.disk.put(name, data)
        self._fail_after(after)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        after = await self._maybe_fail(f"get {name}")
        content = await self.disk.get(name, offset=offset, size=size)
        self._fail_after(after)
        return content

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        after = await self._maybe_fail(f"scan {prefix}")
        async for info in self.disk.scan(prefix):
            yield info
            if after is not None and self._random.random() < 0.5:
                break
        self._fail_after(after)

    async def delete(self, name: BlobName) -> None:
        after = await self._maybe_fail(f"delete {name}")
        await self.disk.delete(name)
        self._fail_after(after)

    async def _maybe_fail(self, what: str) -> TransientError | None:
        """Raise an error from before the operation, or return one to raise after it."""
        if self.delay_seconds_max:
            await asyncio.sleep(self._random.random() * self.delay_seconds_max)
        if self.down:
            self._fail_after(VaultUnreachable(f"{what}: link down", endpoint="fake"))
        if self._random.random() >= self.rate:
            return None
        error: TransientError = VaultUnreachable(f"{what}: connection reset", endpoint="fake")
        if self._random.random() < 0.25:
            error = StorageThrottled(
                f"{what}: 503", retry_after_seconds=self._random.choice([None, 0.0])
            )
        if self._random.random() < 0.5:
            self._fail_after(error)
        return error

    def _fail_after(self, error: TransientError | None) -> None:
        if error is not None:
            self.faults += 1
            raise error


class Call(NamedTuple):
    """One operation, as it was asked for."""

    operation: str
    name: str
    offset: int = 0
    size: int | None = None


@dataclass
class RecordingBlobStore(_Forwarding):
    """Remember every operation in order; `before` may look in at each of them, or raise."""

    disk: BlobStore
    calls: list[Call] = field(default_factory=list)
    before: Callable[[Call], None] = lambda _: None

    async def put(self, name: BlobName, data: Bytes) -> None:
        self._note(Call("put", name, size=memoryview(data).nbytes))
        await self.disk.put(name, data)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        self._note(Call("get", name, offset, size))
        return await self.disk.get(name, offset=offset, size=size)

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        self._note(Call("scan", prefix))
        return self.disk.scan(prefix)

    async def delete(self, name: BlobName) -> None:
        self._note(Call("delete", name))
        await self.disk.delete(name)

    def names(self, operation: str) -> list[str]:
        """Return the names of the calls of one kind, in order."""
        return [call.name for call in self.calls if call.operation == operation]

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        self.before(call)
