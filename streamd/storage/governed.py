"""BlobStore whose requests a governor admits: the same store, asked with consideration."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from streamd.storage.governor import Governor
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes


class GovernedBlobStore:
    """Forward to `store` what `governor` lets through; otherwise raise what keeps it closed.

    `is_bulk` says of a name whether it may wait behind others of its kind.
    """

    def __init__(
        self, store: BlobStore, governor: Governor, is_bulk: Callable[[str], bool]
    ) -> None:
        self._store = store
        self._governor = governor
        self._is_bulk = is_bulk

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port."""
        size = memoryview(data).nbytes
        async with self._governor.request("put", size, is_urgent=not self._is_bulk(name)):
            await self._store.put(name, data)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        async with self._governor.request("get", size or 0, is_urgent=not self._is_bulk(name)):
            return await self._store.get(name, offset=offset, size=size)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; see the port.

        Admitted is the first page only: the consumer may ask for something else between two names.
        """
        async with aclosing(_generator(self._store.scan(prefix))) as rows:
            async with self._governor.request("scan", 0, is_urgent=True):
                first = await anext(rows, None)
            if first is None:
                return
            yield first
            async for info in rows:
                yield info

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        async with self._governor.request("delete", 0, is_urgent=True):
            await self._store.delete(name)

    async def aclose(self) -> None:
        """Close the store beneath."""
        await self._store.aclose()


async def _generator(rows: AsyncIterator[BlobInfo]) -> AsyncGenerator[BlobInfo, None]:
    async for row in rows:
        yield row
