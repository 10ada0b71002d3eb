"""Reading files again, one after the other, although nothing says that they changed.

The files of a turn get their `again` set, so that a look at them reads them; the capture clears it.
"""

import sqlite3
from typing import Final, NamedTuple

from streamd.catalog.db import get_int, put_value
from streamd.catalog.lookup import TreeLookup
from streamd.catalog.rows import filled, marks
from streamd.model.entry import EntryType

_REGULAR: Final = int(EntryType.REGULAR)


class Picked(NamedTuple):
    """A file to be read again, and the version that was captured."""

    fid: int
    path: bytes
    version: bytes


def pick(
    connection: sqlite3.Connection, source: int, *, count: int, bytes_max: int
) -> list[Picked]:
    """Choose the next `count` files, of at most `bytes_max` together, but at least one.

    After the last file of a source comes its first.
    """
    key = f"reread:{source}"
    after = get_int(connection, key)
    rows = _after(connection, source, after, count)
    if not rows and after:
        rows = _after(connection, source, 0, count)
    picked: list[Picked] = []
    lookup, total = TreeLookup(connection, source), 0
    for fid, size, version in rows:
        total += size
        if picked and total > bytes_max:
            break
        after = fid
        paths = lookup.paths_of(fid, 1)
        if paths:
            picked.append(Picked(fid, paths[0], version))
    put_value(connection, key, after)
    connection.executemany(
        "UPDATE node SET again = 1 WHERE fid = ?", [(one.fid,) for one in picked]
    )
    return picked


def _after(
    connection: sqlite3.Connection, source: int, after: int, count: int
) -> list[tuple[int, int, bytes]]:
    return connection.execute(
        "SELECT fid, size, version FROM node WHERE fid > ? AND source = ? AND type = ?"
        " AND size > 0 AND again = 0 AND ino > 0 ORDER BY fid LIMIT ?",
        (after, source, _REGULAR, count),
    ).fetchall()


def versions(connection: sqlite3.Connection, fids: list[int]) -> dict[int, tuple[bytes, bool]]:
    """Return version, and whether it still waits to be read again, of those that are there."""
    found: dict[int, tuple[bytes, bool]] = {}
    for part in filled(fids):
        asked = f"SELECT fid, version, again FROM node WHERE fid IN ({marks(len(part))})"
        rows = connection.execute(asked, part)
        found.update({fid: (version, bool(again)) for fid, version, again in rows})
    return found
