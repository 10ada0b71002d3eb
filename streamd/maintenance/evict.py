"""The local copy in front of a container: how full it is, and what may leave it.

Only what the vault of record has may leave, the oldest first: when it is older than `keep`, and
when there has to be room. What is not uploaded yet is never touched. Restore falls back to the
container for each object that is gone here.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from typing import Final

from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.effects import MICROSECONDS
from streamd.policy.spool import Room
from streamd.storage.port import BlobName, BlobStore

_BATCH: Final = 500
_Row = tuple[int, str, int, int]  # number, name, size, put_us


class LocalCopy:
    """The copy in the directory `path`, of which the catalog keeps the books."""

    def __init__(self, catalog: Catalog, local: BlobStore, path: str) -> None:
        self._catalog = catalog
        self._local = local
        self._path = path
        self._turn = asyncio.Lock()  # two evictions at once would take the same objects
        self.on_evicted: Callable[[int], None] = lambda _: None

    async def room(self) -> Room:
        """Return how full the copy and its file system are."""
        copy_bytes, evictable_bytes = await self._catalog.read(_sizes)
        disk = await asyncio.to_thread(os.statvfs, self._path)
        return Room(
            copy_bytes=copy_bytes,
            evictable_bytes=evictable_bytes,
            free_bytes=disk.f_bavail * disk.f_frsize,
            total_bytes=disk.f_blocks * disk.f_frsize,
            free_inodes=disk.f_favail,
            inodes_total=disk.f_files,
        )

    async def evict(self, size_bytes: int) -> int:
        """Let the oldest go until `size_bytes` have left; return how many bytes did."""
        size_bytes = max(size_bytes, 0)
        async with self._turn:
            left = size_bytes

            def is_needed(_: _Row, freed: int) -> bool:
                return freed < left

            while left > 0 and (gone := await self._drop(is_needed)):
                left -= gone[1]
            return size_bytes - left

    async def expire(self, *, keep_seconds: int, now_us: int) -> tuple[int, int]:
        """Let go what is older than `keep_seconds`; return how many objects, and their bytes."""
        before_us = now_us - keep_seconds * MICROSECONDS
        count = freed = 0
        async with self._turn:
            while gone := await self._drop(lambda row, _: row[3] <= before_us):
                count, freed = count + gone[0], freed + gone[1]
        return count, freed

    async def is_ahead(self) -> bool:
        """Say whether the copy has something that the container does not have yet."""
        return await self._catalog.read(_is_ahead)

    async def _drop(self, wanted: Callable[[_Row, int], bool]) -> tuple[int, int] | None:
        """Delete the oldest that are `wanted`, given what is freed so far; None: there is none."""
        gone: list[int] = []
        freed = 0
        for row in await self._catalog.read(_oldest, _BATCH):
            if not wanted(row, freed):
                break
            await self._local.delete(BlobName(row[1]))
            gone.append(row[0])
            freed += row[2]
        if not gone:
            return None
        await self._catalog.write(_mark_gone, gone)
        self.on_evicted(freed)
        return len(gone), freed


def _sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute(
        "SELECT coalesce(sum(size), 0),"
        " coalesce(sum(CASE WHEN state = ? AND kind IN ('P', 'J') THEN size END), 0)"
        " FROM object WHERE local = 1",
        (ObjectState.VAULT,),
    ).fetchone()
    return int(row[0]), int(row[1])


def _oldest(connection: sqlite3.Connection, limit: int) -> list[_Row]:
    rows = connection.execute(
        "SELECT number, name, size, put_us FROM object"
        " WHERE local = 1 AND state = ? AND kind IN ('P', 'J') ORDER BY number LIMIT ?",
        (ObjectState.VAULT, limit),
    )
    return [(int(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows]


def _is_ahead(connection: sqlite3.Connection) -> bool:
    row = connection.execute(
        "SELECT 1 FROM object WHERE state = ? LIMIT 1", (ObjectState.LOCAL,)
    ).fetchone()
    return row is not None


def _mark_gone(connection: sqlite3.Connection, numbers: list[int]) -> None:
    connection.executemany(
        "UPDATE object SET local = 0 WHERE number = ?", [(number,) for number in numbers]
    )
