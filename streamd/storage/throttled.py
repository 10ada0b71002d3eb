"""BlobStore with a limit on bytes per second, one for each direction.

Whole objects are delayed, not their parts: over times much longer than one object takes, the rate
is exact. Deleting and listing are never delayed.
"""

from collections.abc import AsyncIterator

from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes
from streamd.storage.rate import ByteRate


class ThrottledBlobStore:
    """Forward to `store` at no more than the rates `sending` and `receiving`.

    The rates are handed in, because several stores may share one, and whoever steers the traffic
    changes it at run time.
    """

    def __init__(self, store: BlobStore, *, sending: ByteRate, receiving: ByteRate) -> None:
        self._store = store
        self._sending = sending
        self._receiving = receiving

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name` when it is its turn; see the port."""
        await self._sending.take(memoryview(data).nbytes)
        await self._store.put(name, data)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range when it is its turn; see the port."""
        await self._receiving.take(size or 0)
        content = await self._store.get(name, offset=offset, size=size)
        if size is None:
            self._receiving.charge(len(content))
        return content

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; see the port."""
        return self._store.scan(prefix)

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        await self._store.delete(name)

    async def aclose(self) -> None:
        """Close the store beneath."""
        await self._store.aclose()
