"""BlobStore of two layers: the local copy in front, the vault behind it.

Everything durable goes to the local layer first; an uploader copies it to the vault and an eviction
may then drop the local object. So an object may be in either layer or in both, and reading prefers
the one that costs nothing.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

from streamd.errors import BlobNotFound, StreamdError
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes

_LOG: Final = get_logger("storage")


class LayeredBlobStore:
    """Reads prefer `local` and fall back to `remote`, object by object; puts go to `local` alone.

    That a put conflicts with an object that is in the vault only is noticed by the upload.
    `local_bytes_read` and `remote_bytes_read` prove what a restore fetched from where.
    """

    def __init__(
        self,
        local: BlobStore,
        remote: BlobStore,
        *,
        distrust_remote: Callable[[BlobName], bool] = lambda _: False,
    ) -> None:
        self._local = local
        self._remote = remote
        self._distrust_remote = distrust_remote  # whether it has another version to read
        self._bad: set[BlobName] = set()  # in the local layer
        self.local_bytes_read = 0
        self.remote_bytes_read = 0

    @property
    def remote(self) -> BlobStore:
        """The vault of record."""
        return self._remote

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name` in the local layer; see the port."""
        await self._local.put(name, data)

    def distrust(self, name: BlobName) -> bool:
        """From now on read `name` from the vault, for the local bytes are wrong.

        The second time it is the vault's that are wrong: perhaps it has an earlier version. Says
        whether something else is read from now on.
        """
        if name in self._bad:
            return self._distrust_remote(name)
        self._bad.add(name)
        _LOG.warning(
            "local-object-damaged",
            object=name,
            remedy="it is read from the container; streamd verify --heal mends the copy",
        )
        return True

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; whatever is wrong with the local one, the other."""
        if name in self._bad:
            content = await self._remote.get(name, offset=offset, size=size)
            self.remote_bytes_read += len(content)
            return content
        try:
            content = await self._local.get(name, offset=offset, size=size)
        except StreamdError as local_error:
            content = await self._get_remote(name, offset, size, local_error)
            self.remote_bytes_read += len(content)
        else:
            self.local_bytes_read += len(content)
        return content

    async def _get_remote(
        self, name: BlobName, offset: int, size: int | None, local_error: StreamdError
    ) -> bytes:
        try:
            return await self._remote.get(name, offset=offset, size=size)
        except BlobNotFound:
            # The local layer has it, and cannot give it: that is what is to be mended.
            raise local_error from None

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what is in either layer, once, in name order; the local row if it is in both."""
        local, remote = self._local.scan(prefix), self._remote.scan(prefix)
        near, far = await anext(local, None), await anext(remote, None)
        while near is not None or far is not None:
            if near is not None and (far is None or near.name <= far.name):
                same = far is not None and far.name == near.name
                yield far if far is not None and same and near.name in self._bad else near
                if far is not None and near.name == far.name:
                    far = await anext(remote, None)
                near = await anext(local, None)
            elif far is not None:
                yield far
                far = await anext(remote, None)

    async def delete(self, name: BlobName) -> None:
        """Delete `name` from both layers, from the vault first: a failure leaves it listed."""
        await self._remote.delete(name)
        await self._local.delete(name)

    async def aclose(self) -> None:
        """Close both layers."""
        try:
            await self._local.aclose()
        finally:
            await self._remote.aclose()
