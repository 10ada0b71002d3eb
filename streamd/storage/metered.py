"""BlobStore that reports every operation: how long it took, how it ended, how much went over."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from streamd.effects import Clock
from streamd.errors import StreamdError
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes

OK = "ok"
CANCELLED = "cancelled"


class StoreObserver(Protocol):
    """Is told of every operation when it has ended. Must not block and not raise."""

    def observed(
        self, operation: str, code: str, seconds: float, bytes_sent: int, bytes_received: int
    ) -> None:
        """Take note of one `put`, `get`, `scan` or `delete`.

        `code` is `ok`, `cancelled`, or the code of the error raised. Bytes are those of the object,
        without the protocol's; what a failed operation moved is unknown and counts as none.
        """


class _Traffic(msgspec.Struct):
    bytes_sent: int = 0
    bytes_received: int = 0
    idle_seconds: float = 0.0  # spent by the consumer of a scan, not by the store


class MeteredBlobStore:
    """Forward to `store` and tell `observer`. One attempt is one observation if it stands beneath
    a `RetryingBlobStore`, and one operation with all its waits if it stands above.
    """

    def __init__(self, store: BlobStore, observer: StoreObserver, clock: Clock) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port."""
        with self._observed("put") as traffic:
            await self._store.put(name, data)
            traffic.bytes_sent = memoryview(data).nbytes

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        with self._observed("get") as traffic:
            content = await self._store.get(name, offset=offset, size=size)
            traffic.bytes_received = len(content)
            return content

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; observed once, without the consumer's own time."""
        with self._observed("scan") as traffic:
            async for info in self._store.scan(prefix):
                yielded = self._clock.monotonic()
                try:
                    yield info
                finally:
                    traffic.idle_seconds += self._clock.monotonic() - yielded

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        with self._observed("delete"):
            await self._store.delete(name)

    async def aclose(self) -> None:
        """Close the store beneath."""
        await self._store.aclose()

    @contextmanager
    def _observed(self, operation: str) -> Iterator[_Traffic]:
        traffic, code = _Traffic(), CANCELLED
        began = self._clock.monotonic()
        try:
            yield traffic
            code = OK
        except StreamdError as error:
            code = error.code
            raise
        except GeneratorExit:  # the consumer of a scan has seen enough
            code = OK
            raise
        except Exception:
            code = StreamdError.code
            raise
        finally:
            seconds = self._clock.monotonic() - began - traffic.idle_seconds
            self._observer.observed(
                operation, code, seconds, traffic.bytes_sent, traffic.bytes_received
            )
