"""Earlier versions of objects, for a container that keeps them.

Our objects are created once. So when one has a version before the current one, somebody replaced
it, by mistake or not, and what was ours is the oldest. A reader that finds the current version
wrong has it read from there; writing, deleting and proving know nothing of versions.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from streamd.errors import BlobNotFound, StorageRefused
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobInfo, BlobName, BlobStore, Bytes

TRIED_MAX: Final = 3  # versions of one object: the oldest, then the newest of the earlier ones
_REMEMBERED_MAX: Final = 10_000  # objects whose versions are known
_LOG: Final = get_logger("storage")


class KeepsVersions(Protocol):
    """A store whose container may keep what was replaced or deleted."""

    def earlier(self, prefix: str) -> AsyncIterator[tuple[BlobInfo, str]]:
        """Yield (row, version) of what is not current, by name, the oldest first."""

    async def get_version(
        self, name: BlobName, version: str, *, offset: int = 0, size: int | None = None
    ) -> bytes:
        """Return exactly the requested range of a version; errors as of the port's get."""


class EarlierVersions:
    """BlobStore of the versions that are number `number` to be tried; it only reads.

    Number 0 is the oldest, 1 the newest before the current one, 2 the one before that.
    """

    def __init__(self, store: KeepsVersions, number: int) -> None:
        self._store = store
        self._number = number
        self._known: dict[BlobName, tuple[BlobInfo, str] | None] = {}

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; BlobNotFound if there is no such version."""
        if name not in self._known:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            found = None
            async for row in self._candidates(name):
                found = row if row[0].name == name else found
            self._known[name] = found
        known = self._known[name]
        if known is None:
            raise BlobNotFound(f"{name} has no such earlier version", name=name)
        return await self._store.get_version(name, known[1], offset=offset, size=size)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what has such a version, with the size of that, in name order."""
        async for info, _ in self._candidates(prefix):
            yield info

    async def _candidates(self, prefix: str) -> AsyncIterator[tuple[BlobInfo, str]]:
        versions: list[tuple[BlobInfo, str]] = []
        async for row in self._store.earlier(prefix):
            if versions and versions[0][0].name != row[0].name:
                if (chosen := _choice(versions, self._number)) is not None:
                    yield chosen
                versions = []
            versions.append(row)
            if len(versions) > TRIED_MAX:
                del versions[1]  # neither the oldest nor one of the newest
        if (chosen := _choice(versions, self._number)) is not None:
            yield chosen

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Refuse: what is past cannot be written."""
        del data
        raise StorageRefused(f"{name}: an earlier version is only read", status=None, code=None)

    async def delete(self, name: BlobName) -> None:
        """Refuse: what is past cannot be deleted."""
        raise StorageRefused(f"{name}: an earlier version is only read", status=None, code=None)

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _choice(versions: Sequence[tuple[BlobInfo, str]], number: int) -> tuple[BlobInfo, str] | None:
    """Return number `number` of one object's versions, which are sorted, the oldest first."""
    if number >= len(versions):
        return None
    return versions[0] if number == 0 else versions[-number]


class VersionedBlobStore:
    """Reads `store`; what is distrusted, from `earlier`, one after the other.

    When none of those is right, the oldest stays in use, and if there is none, what `store` has:
    that is what is wrong.
    """

    def __init__(self, store: BlobStore, earlier: Sequence[BlobStore]) -> None:
        self._store = store
        self._earlier = tuple(earlier)
        self._tried: dict[BlobName, int] = {}

    @property
    def earlier(self) -> tuple[BlobStore, ...]:
        """The stores of earlier versions, in the order in which they are tried."""
        return self._earlier

    def distrust(self, name: BlobName) -> bool:
        """From now on read another version of `name`; say whether there may be one."""
        tried = self._tried.get(name, 0)
        if tried >= len(self._earlier):
            return False
        self._tried[name] = tried + 1
        return True

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        earlier = self._earlier_of(name)
        if earlier is not None:
            try:
                content = await earlier.get(name, offset=offset, size=size)
            except (BlobNotFound, StorageRefused):  # no more, or we may not look
                is_first = earlier is self._earlier[0]
                self._tried[name] = len(self._earlier) + (1 if is_first else 2)
                return await self.get(name, offset=offset, size=size)
            else:
                if not offset:
                    _LOG.warning(
                        "earlier-version-read",
                        object=name,
                        remedy="somebody replaced or deleted it: see who may do that, and make the"
                        " earlier version the current one again",
                    )
                return content
        return await self._store.get(name, offset=offset, size=size)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`; what is read from another version, with its size."""
        seen = False
        async for info in self._store.scan(prefix):
            seen = seen or info.name == prefix
            yield await self._row(info)
        if not seen and (earlier := self._earlier_of(BlobName(prefix))) is not None:
            async for info in earlier.scan(prefix):  # it was deleted
                if info.name == prefix:
                    yield info

    async def _row(self, info: BlobInfo) -> BlobInfo:
        earlier = self._earlier_of(info.name)
        if earlier is None:
            return info
        async for row in earlier.scan(info.name):
            if row.name == info.name:
                return row
        return info

    def _earlier_of(self, name: BlobName) -> BlobStore | None:
        tried, count = self._tried.get(name, 0), len(self._earlier)
        if tried > count + 1:
            return self._earlier[0]
        return self._earlier[tried - 1] if 0 < tried <= count else None

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name`; see the port."""
        await self._store.put(name, data)

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        await self._store.delete(name)

    async def aclose(self) -> None:
        """Close the store beneath."""
        await self._store.aclose()
