"""How large files were cut: spares looking for the cuts when they are captured again.

A hint, and never the truth: a row that is missing or wrong costs time and nothing else. So there is
no row for each file; those that were captured last are kept.
"""

import sqlite3
from typing import Final, NamedTuple

KEPT_MAX: Final = 256
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
FILE_SIZE_MIN: Final = 32 * 1024 * 1024  # of a smaller file it is not worth the row


class Cuts(NamedTuple):
    """How the file at a place is cut; `key` stands for the place, see `Sealer.key_of`."""

    key: bytes
    known: bytes  # encoded, see policy.following


def find(connection: sqlite3.Connection, key: bytes) -> bytes:
    """Return how the file at a place was cut; empty if that is not known."""
    row = connection.execute("SELECT known FROM cuts WHERE key = ?", (key,)).fetchone()
    return b"" if row is None else bytes(row[0])


def remember(connection: sqlite3.Connection, cuts: Cuts) -> None:
    """Keep how a file is cut, and forget the oldest when there are too many."""
    connection.execute("INSERT OR REPLACE INTO cuts (key, known) VALUES (?, ?)", cuts)
    rows = connection.execute("SELECT number, length(known) FROM cuts ORDER BY number DESC")
    count = size = 0
    for number, length in rows.fetchall():
        count, size = count + 1, size + length
        if count > KEPT_MAX or size > KEPT_BYTES_MAX:
            connection.execute("DELETE FROM cuts WHERE number <= ?", (number,))
            return
