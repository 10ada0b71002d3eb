"""BlobStore in a dict: the reference implementation, and what most tests run on."""

from collections.abc import AsyncIterator

from streamd.effects import Clock
from streamd.errors import BlobConflict, BlobNotFound
from streamd.storage.names import check_name, check_prefix, range_end
from streamd.storage.port import BlobInfo, BlobName, Bytes


class MemoryBlobStore:
    """Forgets everything with the process. `clock` stamps the objects."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._blobs: dict[BlobName, tuple[bytes, int]] = {}  # name -> content, modified_us

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port."""
        check_name(name)
        content, _ = self._blobs.setdefault(name, (bytes(data), self._clock.now_us()))
        if content != data:
            raise BlobConflict(f"{name} exists with other bytes", name=name)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        check_name(name)
        found = self._blobs.get(name)
        if found is None:
            raise BlobNotFound(f"there is no object {name}", name=name)
        content, _ = found
        return content[offset : range_end(name, length=len(content), offset=offset, size=size)]

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`, in name order; see the port."""
        check_prefix(prefix)
        for name in sorted(name for name in self._blobs if name.startswith(prefix)):
            found = self._blobs.get(name)
            if found is not None:  # deleted while somebody iterated
                yield BlobInfo(name, len(found[0]), found[1])

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        check_name(name)
        self._blobs.pop(name, None)

    async def aclose(self) -> None:
        """Nothing to give back; the objects stay, so that a test can open the store again."""
