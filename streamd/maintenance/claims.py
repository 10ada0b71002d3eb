"""Who holds each chunk that is needed: in memory while they are few, in a database beyond that.

A dictionary takes a tenth of the time that a database takes. The database is private, and vanishes
with its connection.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

HELD_MAX: Final = 200_000  # chunks in the dictionary: 34 MiB, what the database's cache takes
NOBODY: Final = -1
_CACHE_KIB: Final = 32 * 1024
_SELECT_MAX: Final = 500


class Claims:
    """Chunk id → number of the object that holds it. Blocking; one thread at a time. Close it."""

    def __init__(self, held_max: int | None = None) -> None:
        self._held: dict[bytes, int] = {}
        self._held_max = HELD_MAX if held_max is None else held_max
        self._db: sqlite3.Connection | None = None

    def close(self) -> None:
        """Give everything back."""
        self._held = {}
        if self._db is not None:
            self._db.close()

    def add(self, ids: Iterable[bytes]) -> None:
        """These chunks are needed; of those that are new, nobody is known to hold one."""
        if self._db is None:
            held = self._held
            held.update(dict.fromkeys(set(ids).difference(held), NOBODY))
            if len(self._held) > self._held_max:
                self._spill()
            return
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO live (id) VALUES (?)", [(chunk,) for chunk in ids]
        )
        self._db.execute("COMMIT")

    def _spill(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute(
            "CREATE TABLE live (id BLOB PRIMARY KEY, holder INTEGER NOT NULL DEFAULT -1)"
            " WITHOUT ROWID"
        )
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO live VALUES (?, ?)", sorted(self._held.items()))
        self._db.execute("COMMIT")
        self._held = {}

    def claim(self, ids: Sequence[bytes], number: int) -> set[bytes]:
        """Say that object `number` holds these; return those that are needed and nobody held."""
        if self._db is None:
            holder_of = self._held.get
            found = {chunk for chunk in ids if holder_of(chunk) == NOBODY}
            self._held.update(dict.fromkeys(found, number))
            return found
        found = set()
        for part, marks in _parts(ids):
            rows = self._db.execute(
                f"SELECT id FROM live WHERE holder = -1 AND id IN ({marks})",  # noqa: S608 - question marks only
                part,
            )
            found.update(row[0] for row in rows)
        self.move(found, number)
        return found

    def move(self, ids: Iterable[bytes], number: int) -> None:
        """Object `number` holds these chunks from now on, those of them that are needed."""
        if self._db is None:
            self._held.update((chunk, number) for chunk in ids if chunk in self._held)
            return
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE live SET holder = ? WHERE id = ?", [(number, chunk) for chunk in ids]
        )
        self._db.execute("COMMIT")

    def holders_of(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the holders of those among `ids` that are needed and held."""
        if self._db is None:
            holder_of = self._held.get
            known = ((chunk, holder_of(chunk, NOBODY)) for chunk in ids)
            return {chunk: number for chunk, number in known if number >= 0}
        found: dict[bytes, int] = {}
        for part, marks in _parts(ids):
            found.update(
                self._db.execute(
                    f"SELECT id, holder FROM live WHERE holder >= 0 AND id IN ({marks})",  # noqa: S608 - question marks only
                    part,
                )
            )
        return found

    def count_unheld(self) -> int:
        """Return how many needed chunks nobody is known to hold."""
        if self._db is None:
            return sum(number == NOBODY for number in self._held.values())
        row = self._db.execute("SELECT count(*) FROM live WHERE holder = -1").fetchone()
        return int(row[0])

    def ids(self) -> Iterator[bytes]:
        """Yield every chunk that is needed."""
        if self._db is None:
            yield from self._held
        else:
            for row in self._db.execute("SELECT id FROM live"):
                yield row[0]


def _parts(ids: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    """Yield ids, as many as one query takes, and as many question marks."""
    for start in range(0, len(ids), _SELECT_MAX):
        part = ids[start : start + _SELECT_MAX]
        yield part, ",".join("?" * len(part))
