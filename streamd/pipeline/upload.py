"""The uploader: what is durable here goes to the vault of record, in an order that is always whole.

A pack may go any time. A segment (or any other object) goes when the segments before it and every
object that it refers to are there, so whoever reads the remote vault sees a prefix of this host's
history. The catalog is the queue: nothing is forgotten by a crash, and putting the same bytes
twice is harmless.
"""

import asyncio
from typing import Final, Protocol

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectRow
from streamd.effects import MICROSECONDS, Clock
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    PermanentError,
    StreamdError,
    TransientError,
    VaultUnreachable,
)
from streamd.format.envelope import Kind
from streamd.storage.port import BlobName, BlobStore

PACKS_IN_FLIGHT: Final = 4
_LOOK_SECONDS: Final = 5.0  # how often to look without having been told
_PAUSE_SECONDS: Final = 10.0  # after a refusal: an operator has to change something
_BATCH: Final = 64
FINISH_PATIENCE_SECONDS: Final = 60.0
PAUSED: Final = "paused"  # the state while an operator lets nothing be sent


class UploadObserver(Protocol):
    """Told how uploading goes."""

    def uploaded(self, row: ObjectRow, seconds: float, delays: dict[str, float]) -> None:
        """An object arrived in the vault of record; for a segment, how long changes had waited."""

    def upload_failed(self, error: StreamdError) -> None:
        """Uploading pauses because of this; it goes on by itself when it can."""


class Gate(Protocol):
    """Knows whether the vault of record takes anything now."""

    async def opened(self) -> None:
        """Return when a put may be tried."""

    def may_ask(self) -> bool:
        """Return whether one may be tried at once."""


class Uploader:
    """Copies objects from the local vault to the vault of record.

    Nothing is read while `gate` is closed: an outage of days costs no disk traffic. At most
    `packs_in_flight` packs are in memory; how many of them are sent at once is up to the store.
    """

    def __init__(
        self,
        catalog: Catalog,
        local: BlobStore,
        remote: BlobStore,
        observer: UploadObserver,
        clock: Clock,
        *,
        gate: Gate | None = None,
        packs_in_flight: int = PACKS_IN_FLIGHT,
    ) -> None:
        self._gate = gate
        self._packs_in_flight = packs_in_flight
        self._error: StreamdError | None = None
        self._catalog = catalog
        self._local = local
        self._remote = remote
        self._observer = observer
        self._clock = clock
        self._wake = (asyncio.Event(), asyncio.Event())
        self._busy: set[int] = set()
        self._open = asyncio.Event()  # not while an operator has paused
        self._open.set()
        self._under_way: set[asyncio.Timeout] = set()
        self.state = "idle"

    def wake(self) -> None:
        """Say that there may be something to upload."""
        for event in self._wake:
            event.set()

    def hold(self, *, paused: bool) -> None:
        """Send nothing, from this moment on, or go on. What was cut off is put again, whole."""
        if not paused:
            if not self._open.is_set():
                self.state = "idle"
            self._open.set()
            return
        if self._open.is_set():
            self._open.clear()
            self.state = PAUSED
            for scope in self._under_way:
                scope.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Upload until cancelled. What is in flight then is put again at the next start."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ordered(), name="upload.journal")
            for number in range(self._packs_in_flight):
                group.create_task(self._packs(), name=f"upload.pack.{number}")

    async def finish(self) -> None:
        """Wait until everything that is durable here has arrived; for one-shot captures.

        Raises VaultUnreachable after a minute without progress, and what an operator has to mend
        after a few seconds: the rest waits in the local copy.
        """
        loop = asyncio.get_running_loop()
        left, since = -1, loop.time()
        while (count := (await self._catalog.read(objects.backlog))[0]) > 0:
            if count != left:
                left, since = count, loop.time()
            elif isinstance(self._error, PermanentError) and loop.time() - since > _PAUSE_SECONDS:
                raise self._error
            elif loop.time() - since > FINISH_PATIENCE_SECONDS:
                raise VaultUnreachable(
                    f"{count} objects wait in the local copy ({self.state})",
                    endpoint="the container",
                )
            self.wake()
            await asyncio.sleep(0.05)

    async def _ordered(self) -> None:
        while True:
            await self._ready()
            self._wake[0].clear()
            rows = await self._catalog.read(objects.pending_uploads, 1, packs=False)
            if rows and not await self._catalog.read(objects.unfinished_among, rows[0].needs):
                await self._upload(rows[0])
                continue
            await self._look(self._wake[0])

    async def _packs(self) -> None:
        while True:
            await self._ready()
            self._wake[1].clear()
            rows = await self._catalog.read(objects.pending_uploads, _BATCH, packs=True)
            row = next((row for row in rows if row.number not in self._busy), None)
            if row is None:
                await self._look(self._wake[1])
                continue
            self._busy.add(row.number)
            try:
                await self._upload(row)
            finally:
                self._busy.discard(row.number)

    async def _ready(self) -> None:
        """Return when the vault takes something, and no operator has paused."""
        if self._gate is not None:
            await self._gate.opened()
        await self._open.wait()

    @staticmethod
    async def _look(event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await event.wait()
        except TimeoutError:
            return

    async def _upload(self, row: ObjectRow) -> None:
        """Copy one object. Failures are reported and waited out; only cancelling ends it early."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        name = BlobName(row.name)
        try:
            data = await self._local.get(name)
            await self._send(name, data)
        except TimeoutError:
            return  # held: put again, the same bytes, when sending goes on
        except BlobNotFound:
            # It went to the container directly, or it arrived and the crash came before we wrote
            # that down. Else only a sweep by hand can have taken it.
            await self._missing(row)
            return
        except (TransientError, PermanentError) as error:
            self.state, self._error = error.code, error
            self._observer.upload_failed(error)
            await asyncio.sleep(self._pause_seconds(error))
            return
        self.state, self._error = "uploading", None
        await self._done(row, loop.time() - started)

    async def _done(self, row: ObjectRow, seconds: float) -> None:
        """It is in the vault of record, by whatever way."""
        waited = await self._catalog.write(objects.mark_uploaded, row.number)
        now_us = self._clock.now_us()
        delays = {name: max(now_us - at, 0) / MICROSECONDS for name, at in waited.items()}
        self._observer.uploaded(row, seconds, delays)
        if row.kind == Kind.PACK:
            self._wake[0].set()

    def _pause_seconds(self, error: StreamdError) -> float:
        """Return how long to wait; what closes the gate is waited for there, to the moment."""
        is_gated = self._gate is not None and not self._gate.may_ask()
        return 1.0 if is_gated or isinstance(error, TransientError) else _PAUSE_SECONDS

    async def _send(self, name: BlobName, data: bytes) -> None:
        """Put it; TimeoutError if an operator stops all traffic meanwhile."""
        async with asyncio.timeout(None) as scope:
            self._under_way.add(scope)
            try:
                await self._remote.put(name, data)
            finally:
                self._under_way.discard(scope)

    async def _missing(self, row: ObjectRow) -> None:
        try:
            await self._remote.get(BlobName(row.name), offset=0, size=1)
        except StreamdError as error:
            lost = BlobConflict(f"{row.name} is gone from the local copy", name=row.name)
            self.state = lost.code
            self._observer.upload_failed(lost if isinstance(error, BlobNotFound) else error)
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            await self._catalog.write(objects.mark_elsewhere, row.number)
            await self._done(row, 0.0)
