"""The one seam between streamd and any object store.

Four methods, chosen so that a memory store fits on a page. Every implementation passes
`tests/contract/blobstore_suite.py`; a behaviour that is not in that suite does not exist.
"""

from collections.abc import AsyncIterator
from typing import NewType, Protocol

import msgspec

BlobName = NewType("BlobName", str)
Bytes = bytes | bytearray | memoryview


class BlobInfo(msgspec.Struct, frozen=True):
    """One row of a listing."""

    name: BlobName
    size_bytes: int
    modified_us: int  # by the storage's clock, microseconds since the Unix epoch
    md5: bytes = b""  # of the content, if the storage keeps one: then it is a part of its listing


class BlobStore(Protocol):
    """Named, write-once byte strings."""

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`: atomic, and durable on return. `data` may be reused after the return.

        Putting equal bytes again succeeds; other bytes raise BlobConflict. Any other error
        leaves the outcome unknown, and the caller retries with the same name and bytes.
        """

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range, or raise; never fewer bytes.

        Raises BlobNotFound if there is no such object, VaultDamaged if it ends inside the range.
        """

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield every object below `prefix` whose put returned before the call, in name order."""

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; deleting an absent object succeeds."""

    async def aclose(self) -> None:
        """Give back connections and descriptors. Nothing may be called afterwards."""
