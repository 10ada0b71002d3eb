"""The bounds of the local copy in front of a container vault.

Only what the vault of record has may leave: data older than `keep`, and the oldest first when the
copy is larger than `max_size`. What is not uploaded yet is never touched. Restore falls back to
the container for each object that is gone here.
"""

import sqlite3
from typing import Final

from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.effects import MICROSECONDS
from streamd.storage.port import BlobName, BlobStore

_BATCH: Final = 500


def _local_size(connection: sqlite3.Connection) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(size), 0) FROM object WHERE local = 1 AND state > 0"
    ).fetchone()
    return int(row[0])


def _oldest(connection: sqlite3.Connection, limit: int) -> list[tuple[int, str, int, int]]:
    rows = connection.execute(
        "SELECT number, name, size, put_us FROM object"
        " WHERE local = 1 AND state = ? AND kind IN ('P', 'J') ORDER BY number LIMIT ?",
        (ObjectState.VAULT, limit),
    )
    return [(int(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows]


def _mark_gone(connection: sqlite3.Connection, numbers: list[int]) -> None:
    connection.executemany(
        "UPDATE object SET local = 0 WHERE number = ?", [(number,) for number in numbers]
    )


async def evict(
    catalog: Catalog, local: BlobStore, *, keep_seconds: int, max_size_bytes: int, now_us: int
) -> tuple[int, int]:
    """Delete local copies that are no longer owed; return how many, and their bytes."""
    count = freed = 0
    size = await catalog.read(_local_size)
    expired_us = now_us - keep_seconds * MICROSECONDS
    while True:
        gone: list[int] = []
        rows = await catalog.read(_oldest, _BATCH)
        for number, name, object_size, put_us in rows:
            if put_us > expired_us and size <= max_size_bytes:
                break
            await local.delete(BlobName(name))
            gone.append(number)
            size -= object_size
            freed += object_size
        await catalog.write(_mark_gone, gone)
        count += len(gone)
        if len(gone) < _BATCH:
            return count, freed
