"""Objects of this writer: what is durable where, which chunks they hold, what still has to go
where.

A segment is written to the catalog, with its bytes, in the transaction that changes the tree; then
put; then its bytes are forgotten. So the catalog is never behind the journal, and after a crash
the same bytes are put again under the same name.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from streamd.catalog.rows import filled, insert_rows, marks


class ObjectState(IntEnum):
    """How far an object has come."""

    UNPUT = 0
    LOCAL = 1
    VAULT = 2


class ObjectRow(NamedTuple):
    """One object."""

    number: int
    name: str
    kind: str
    size: int
    needs: tuple[int, ...]


def add(
    connection: sqlite3.Connection,
    *,
    name: str,
    kind: str,
    size: int,
    now_us: int,
    state: ObjectState,
    needs: Sequence[int] = (),
    data: bytes | None = None,
) -> int:
    """Register an object and return its number; the same name again returns the same number."""
    row = connection.execute("SELECT number FROM object WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    cursor = connection.execute(
        "INSERT INTO object (name, kind, size, put_us, state, needs) VALUES (?, ?, ?, ?, ?, ?)",
        (name, kind, size, now_us, state, msgspec.msgpack.encode(tuple(needs))),
    )
    number = cursor.lastrowid
    assert number is not None
    if data is not None:
        connection.execute("INSERT INTO unput VALUES (?, ?)", (number, data))
    return number


def unput(connection: sqlite3.Connection) -> list[tuple[ObjectRow, bytes]]:
    """Return objects that were sealed and perhaps never put, oldest first."""
    rows = connection.execute(
        "SELECT o.number, o.name, o.kind, o.size, o.needs, u.data FROM unput u"
        " JOIN object o ON o.number = u.object ORDER BY o.number"
    )
    return [(_row(row[:5]), row[5]) for row in rows]


def mark_put(connection: sqlite3.Connection, number: int, state: ObjectState) -> None:
    """The object is durable in the local vault (LOCAL) or in the only one there is (VAULT)."""
    connection.execute("DELETE FROM unput WHERE object = ?", (number,))
    connection.execute(
        "UPDATE object SET state = ? WHERE number = ? AND state < ?", (state, number, state)
    )
    if state is ObjectState.VAULT:
        connection.execute("DELETE FROM waiting WHERE object = ?", (number,))


def mark_uploaded(connection: sqlite3.Connection, number: int) -> dict[str, int]:
    """The object is in the vault of record.

    Returns, for a segment, since when the oldest change of each source in it had been waiting.
    """
    connection.execute("UPDATE object SET state = 2 WHERE number = ?", (number,))
    waited = connection.execute(
        "SELECT s.name, w.first_us FROM waiting w JOIN source s ON s.number = w.source"
        " WHERE w.object = ?",
        (number,),
    ).fetchall()
    connection.execute("DELETE FROM waiting WHERE object = ?", (number,))
    return {str(name): int(first_us) for name, first_us in waited}


def mark_elsewhere(connection: sqlite3.Connection, number: int) -> None:
    """The object went to the vault of record directly: the local copy never had it."""
    connection.execute("UPDATE object SET local = 0 WHERE number = ?", (number,))


def pending_uploads(connection: sqlite3.Connection, limit: int, *, packs: bool) -> list[ObjectRow]:
    """Return objects on their way to the vault of record, oldest first: packs, or all others."""
    comparison = "=" if packs else "!="
    rows = connection.execute(
        "SELECT number, name, kind, size, needs FROM object"
        f" WHERE state = 1 AND state < 2 AND kind {comparison} 'P' ORDER BY number LIMIT ?",
        (limit,),
    )
    return [_row(row) for row in rows]


def unfinished_among(connection: sqlite3.Connection, numbers: Sequence[int]) -> bool:
    """Say whether one of these objects is not in the vault of record yet."""
    for part in filled(numbers):
        row = connection.execute(
            f"SELECT 1 FROM object WHERE state < 2 AND number IN ({marks(len(part))}) LIMIT 1",
            part,
        ).fetchone()
        if row is not None:
            return True
    return False


def backlog(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return (objects, bytes) on their way to the vault of record."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM object WHERE state < 2"
    ).fetchone()
    return int(row[0]), int(row[1])


def wait_for(connection: sqlite3.Connection, number: int, first_us: dict[int, int]) -> None:
    """Remember since when the oldest change of each source in a segment has been waiting."""
    connection.executemany(
        "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?)",
        [(number, source, at) for source, at in first_us.items()],
    )


def age_waiting(connection: sqlite3.Connection, source: int, first_us: int) -> None:
    """What was found as it is already may have come with a segment that is still waiting."""
    connection.execute(
        "UPDATE waiting SET first_us = min(first_us, ?1) WHERE source = ?2 AND object ="
        " (SELECT max(object) FROM waiting WHERE source = ?2)",
        (first_us, source),
    )


def oldest_waiting_us(connection: sqlite3.Connection, source: int) -> int | None:
    """Return since when the oldest change not in the vault of record has been waiting."""
    row = connection.execute(
        "SELECT min(first_us) FROM waiting WHERE source = ?", (source,)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def oldest_unput_us(connection: sqlite3.Connection, source: int) -> int | None:
    """Return since when the oldest change that is recorded and not put has been waiting."""
    row = connection.execute(
        "SELECT min(w.first_us) FROM unput u JOIN waiting w ON w.object = u.object"
        " WHERE w.source = ?",
        (source,),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def forget(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Objects were deleted from the vault: forget them and the chunks found first in them."""
    for name in names:
        row = connection.execute("SELECT number FROM object WHERE name = ?", (name,)).fetchone()
        if row is not None:
            connection.execute("DELETE FROM unput WHERE object = ?", row)
            connection.execute("DELETE FROM waiting WHERE object = ?", row)
            connection.execute("DELETE FROM object WHERE number = ?", row)


def _row(row: Sequence[object]) -> ObjectRow:
    number, name, kind, size, needs = row
    assert isinstance(number, int)
    assert isinstance(size, int)
    assert isinstance(needs, bytes)
    decoded = msgspec.msgpack.decode(needs, type=tuple[int, ...])
    return ObjectRow(number, str(name), str(kind), size, decoded)


# -- chunks ----------------------------------------------------------------------------------------


def find_chunks(connection: sqlite3.Connection, ids: Sequence[bytes]) -> dict[bytes, int]:
    """Return the chunks among `ids` that the vault holds, with the number of an object."""
    found: dict[bytes, int] = {}
    for part in filled(ids):
        asked = f"SELECT id, object FROM chunk WHERE id IN ({marks(len(part))})"
        found.update(connection.execute(asked, part))
    return found


def has_chunks(connection: sqlite3.Connection) -> bool:
    """Say whether any chunk is known."""
    return connection.execute("SELECT 1 FROM chunk LIMIT 1").fetchone() is not None


def add_chunks(connection: sqlite3.Connection, number: int, ids: Iterable[bytes]) -> None:
    """Remember that an object holds these chunks."""
    found = [(chunk, number) for chunk in sorted(ids)]
    insert_rows(connection, "INSERT OR IGNORE INTO chunk", found)


def move_chunks(
    connection: sqlite3.Connection, dropped: Sequence[int], moved: dict[bytes, int]
) -> None:
    """Chunks of dropped objects are gone, except those that `moved` found a new place for."""
    for number in dropped:
        connection.execute("DELETE FROM chunk WHERE object = ?", (number,))
    connection.executemany("INSERT OR REPLACE INTO chunk VALUES (?, ?)", list(moved.items()))
