"""The rows of a state, by key: in memory while they are few, in a temporary database beyond that.

A dictionary takes a tenth of the time that a database takes for a row. The database is private and
vanishes with its connection; it stays in memory, too, until its cache is full.
"""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from streamd.format.checkpoint import Row

HELD_BYTES_MAX: Final = 64 * 1024 * 1024  # of rows in the dictionary, what holds them included
_ROW_COST: Final = 190  # two objects, their place in the dictionary and in the list of keys
_CACHE_KIB: Final = 64 * 1024
_SELECT_MAX: Final = 500


class Rows:
    """Blocking; one thread at a time. Close it."""

    def __init__(self, held_bytes_max: int | None = None) -> None:
        self._held: dict[bytes, bytes] = {}
        self._sorted: list[bytes] | None = None  # the keys of `_held`, until they change
        self._size = 0  # of `_held`
        self._size_max = HELD_BYTES_MAX if held_bytes_max is None else held_bytes_max
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        """Give everything back."""
        self.clear()
        if self._db is not None:
            self._db.close()

    def clear(self) -> None:
        """Forget all rows."""
        self._held, self._sorted, self._size = {}, None, 0
        if self._db is not None:
            self._db.execute("DELETE FROM row")

    # -- changing --------------------------------------------------------------------------------

    def change(self, pending: Mapping[bytes, bytes | None]) -> dict[bytes, bytes]:
        """Set these keys, or delete them where the value is None; return what they were before."""
        if self._db is not None:
            before = self.values(list(pending))
            self._change_database(self._db, pending, before)
            return before
        held, self._sorted = self._held, None
        before = {}
        for key, value in pending.items():
            old = held.get(key)
            if old is not None:
                before[key] = old
                self._size -= len(key) + len(old) + _ROW_COST
            if value is not None:
                held[key] = value
                self._size += len(key) + len(value) + _ROW_COST
            elif old is not None:
                del held[key]
        if self._size > self._size_max:
            self._spill()
        return before

    def _change_database(
        self,
        database: sqlite3.Connection,
        pending: Mapping[bytes, bytes | None],
        before: Mapping[bytes, bytes],
    ) -> None:
        database.execute("BEGIN")
        database.executemany(
            "INSERT OR REPLACE INTO row VALUES (?, ?)",
            [(key, value) for key, value in pending.items() if value is not None],
        )
        database.executemany(
            "DELETE FROM row WHERE key = ?",
            [(key,) for key, value in pending.items() if value is None and key in before],
        )
        database.execute("COMMIT")

    def _spill(self) -> None:
        """Go on in a database."""
        # An empty name makes a private one that spills to disk when the cache is full.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO row VALUES (?, ?)", self._held_rows())
        self._db.execute("COMMIT")
        self._held, self._sorted, self._size = {}, None, 0

    # -- reading ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""
        if self._db is None:
            return self._held.get(key)
        row = self._db.execute("SELECT value FROM row WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def values(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that there are."""
        if self._db is None:
            held = self._held
            return {key: held[key] for key in keys if key in held}
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _SELECT_MAX):
            some = keys[start : start + _SELECT_MAX]
            marks = ",".join("?" * len(some))
            found.update(
                self._db.execute(f"SELECT key, value FROM row WHERE key IN ({marks})", some)  # noqa: S608 - question marks only
            )
        return found

    def between(self, low: bytes, high: bytes) -> Iterable[Row]:
        """Return the rows with low < key < high, in key order."""
        if self._db is not None:
            return self._db.execute(
                "SELECT key, value FROM row WHERE key > ? AND key < ? ORDER BY key", (low, high)
            )
        keys, held = self._keys(), self._held
        some = keys[bisect_right(keys, low) : bisect_left(keys, high)]
        return [(key, held[key]) for key in some]

    def all(self) -> Iterator[Row]:
        """Yield all rows in key order."""
        if self._db is not None:
            yield from self._db.execute("SELECT key, value FROM row ORDER BY key")
        else:
            yield from self._held_rows()

    def _keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._held)
        return self._sorted

    def _held_rows(self) -> Iterator[Row]:
        held = self._held
        for key in self._keys():
            yield key, held[key]
