"""The dirty set: places to look at again, durable before anything is done about them.

A row is picked by one survey; it goes away when everything that survey found is durable. An event
that arrives in between resets the row, so it is looked at again. After a crash nothing is picked.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from enum import IntEnum
from operator import itemgetter
from typing import Final, NamedTuple

from streamd.catalog.rows import insert_rows

EVER: Final = 1  # an age: whatever happened before was never captured
LATER: Final = 1 << 62  # an age: nothing is known to be missed, as in a periodic comparison


class Depth(IntEnum):
    """How far to look below a dirty place."""

    ENTRY = 0  # the entry itself
    BELOW = 1  # and everything below it
    SCAN = 2  # the same, as part of a full scan: bulk work that small changes overtake


class DirtyPlace(NamedTuple):
    """One place to look at."""

    path: bytes
    depth: int
    first_us: int

    @property
    def deep(self) -> bool:
        """Whether everything below needs a look too."""
        return self.depth > Depth.ENTRY


def note(
    connection: sqlite3.Connection, source: int, places: Mapping[bytes, int], since_us: int
) -> None:
    """Remember places, each with its depth, in which nothing was missed before `since_us`.

    One that is known keeps its age, unless a survey has it already.
    """
    insert_rows(
        connection,
        "INSERT INTO dirty (source, path, deep, first_us)",
        [(source, path, int(depth), since_us) for path, depth in places.items()],
        "ON CONFLICT DO UPDATE SET"
        "   deep = CASE WHEN picked = 0 THEN max(deep, excluded.deep) ELSE excluded.deep END,"
        "   first_us = CASE WHEN picked = 0 THEN min(first_us, excluded.first_us)"
        "     ELSE excluded.first_us END,"
        "   picked = 0",
    )


def pick(
    connection: sqlite3.Connection, source: int, survey: int, *, scan: bool, limit: int
) -> list[DirtyPlace]:
    """Hand out the oldest unpicked places to survey number `survey`: a scan's, or all others."""
    comparison = "=" if scan else "<"
    rows = connection.execute(
        "UPDATE dirty SET picked = ?1 WHERE source = ?2 AND path IN (SELECT path FROM dirty"
        f" WHERE source = ?2 AND picked = 0 AND deep {comparison} 2 ORDER BY first_us LIMIT ?3)"
        " RETURNING path, deep, first_us",
        (survey, source, limit),
    ).fetchall()
    rows.sort(key=itemgetter(2, 0))  # they come in any order
    if rows:
        oldest = min(first_us for _, _, first_us in rows)
        connection.execute(
            "INSERT INTO survey VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET first_us = min(first_us, excluded.first_us)",
            (source, survey, oldest),
        )
    return [DirtyPlace(*row) for row in rows]


def hand_over(
    connection: sqlite3.Connection, source: int, places: Iterable[tuple[DirtyPlace, int, int]]
) -> None:
    """Have other surveys go on with places that one has picked or come upon.

    Each with the number of a survey that has not begun, which takes what became dirty again
    meanwhile too, and that of a former one, 0 for none, whose age it takes.
    """
    for place, survey, former in places:
        row = connection.execute(
            "SELECT first_us FROM survey WHERE source = ? AND number = ?", (source, former)
        ).fetchone()
        first_us = place.first_us if row is None else min(place.first_us, row[0])
        connection.execute("DELETE FROM survey WHERE source = ? AND number = ?", (source, former))
        connection.execute(
            "INSERT INTO dirty (source, path, deep, first_us, picked) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET deep = max(deep, excluded.deep),"
            " first_us = min(first_us, excluded.first_us), picked = excluded.picked"
            " WHERE deep < 2",
            (source, place.path, int(place.depth), first_us, survey),
        )
        connection.execute("INSERT INTO survey VALUES (?, ?, ?)", (source, survey, first_us))


def resolve(connection: sqlite3.Connection, source: int, survey: int) -> None:
    """Forget the places of a survey whose findings are durable."""
    connection.execute("DELETE FROM dirty WHERE source = ? AND picked = ?", (source, survey))
    connection.execute("DELETE FROM survey WHERE source = ? AND number = ?", (source, survey))


def set_age(connection: sqlite3.Connection, source: int, survey: int, first_us: int) -> None:
    """A survey has found changes that wait since `first_us`, whatever its places' ages are."""
    connection.execute(
        "UPDATE survey SET first_us = ? WHERE source = ? AND number = ?", (first_us, source, survey)
    )


def put_back(connection: sqlite3.Connection, source: int, places: Iterable[DirtyPlace]) -> None:
    """Keep places for a later survey, with their age."""
    connection.executemany(
        "INSERT INTO dirty (source, path, deep, first_us) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET deep = max(deep, excluded.deep),"
        " first_us = min(first_us, excluded.first_us), picked = 0",
        [(source, place.path, place.depth, place.first_us) for place in places],
    )


def release(connection: sqlite3.Connection, source: int) -> None:
    """Nobody looks at this source any more: its places are open again.

    What became dirty anew during a survey that did not end gets that survey's age.
    """
    connection.execute(
        "UPDATE dirty SET picked = 0, first_us = min(first_us, coalesce("
        " (SELECT min(first_us) FROM survey WHERE source = ?1), first_us)) WHERE source = ?1",
        (source,),
    )
    connection.execute("DELETE FROM survey WHERE source = ?", (source,))


def release_all(connection: sqlite3.Connection) -> None:
    """At start: whatever a survey had in hand when the process ended is open again."""
    for (source,) in connection.execute("SELECT number FROM source").fetchall():
        release(connection, source)


def oldest_us(connection: sqlite3.Connection, source: int) -> int | None:
    """Return since when the oldest change has been waiting; None: nothing is dirty."""
    row = connection.execute(
        "SELECT min(first_us) FROM (SELECT min(first_us) AS first_us FROM dirty WHERE source = ?1"
        " UNION ALL SELECT min(first_us) FROM survey WHERE source = ?1)",
        (source,),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def oldest_unpicked_us(connection: sqlite3.Connection, source: int) -> int | None:
    """Return the age of the oldest place that waits for a live survey; None: none does."""
    row = connection.execute(
        "SELECT min(first_us) FROM dirty WHERE source = ? AND picked = 0 AND deep < 2", (source,)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def has_unpicked(connection: sqlite3.Connection, source: int, *, scan: bool) -> bool:
    """Say whether there is something for a survey to pick."""
    comparison = "=" if scan else "<"
    row = connection.execute(
        f"SELECT 1 FROM dirty WHERE source = ? AND picked = 0 AND deep {comparison} 2 LIMIT 1",
        (source,),
    ).fetchone()
    return row is not None


def open_places(connection: sqlite3.Connection, source: int, limit: int) -> list[tuple[bytes, int]]:
    """Return (path, depth) of all places but those of scans, one more than `limit` at most."""
    return connection.execute(
        "SELECT path, deep FROM dirty WHERE source = ? AND deep < 2 LIMIT ?", (source, limit + 1)
    ).fetchall()


def has_scan(connection: sqlite3.Connection, source: int) -> bool:
    """Say whether a full scan of anything is owed or under way, periodic ones aside."""
    row = connection.execute(
        "SELECT 1 FROM dirty WHERE source = ? AND deep = 2 AND first_us < ? LIMIT 1",
        (source, LATER),
    ).fetchone()
    return row is not None


def count(connection: sqlite3.Connection, source: int) -> int:
    """Return how many places are dirty."""
    row = connection.execute("SELECT count(*) FROM dirty WHERE source = ?", (source,)).fetchone()
    return int(row[0])


# -- problems --------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """An entry that is not protected as it should be."""

    path: bytes
    reason: str
    errno: int
    since_us: int
    detail: str = ""  # what a program said, if one did


def set_problem(connection: sqlite3.Connection, source: int, problem: Problem) -> None:
    """Remember a problem; its age stays when the reason is the same."""
    connection.execute(
        "INSERT INTO problem VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " since_us = CASE WHEN reason = excluded.reason THEN since_us ELSE excluded.since_us END,"
        " reason = excluded.reason, errno = excluded.errno, detail = excluded.detail",
        (source, *problem),
    )


def clear_problems(connection: sqlite3.Connection, source: int, paths: Iterable[bytes]) -> None:
    """Forget the problems of entries that were captured well, or are gone."""
    connection.executemany(
        "DELETE FROM problem WHERE source = ? AND path = ?", [(source, path) for path in paths]
    )


def clear_reason(connection: sqlite3.Connection, source: int, reason: str) -> None:
    """Forget all problems of one kind."""
    connection.execute("DELETE FROM problem WHERE source = ? AND reason = ?", (source, reason))


def clear_problems_below(
    connection: sqlite3.Connection, source: int, paths: Iterable[bytes]
) -> None:
    """Forget the problems of all that was below entries that are gone, or are no directories."""
    connection.executemany(
        "DELETE FROM problem WHERE source = ? AND path > ? AND path < ?",
        [(source, path + b"/", path + b"0") for path in paths],  # "0" comes after "/"
    )


def has_problems(connection: sqlite3.Connection, source: int) -> bool:
    """Say whether any entry has a problem."""
    some = "SELECT 1 FROM problem WHERE source = ? LIMIT 1"
    return connection.execute(some, (source,)).fetchone() is not None


def problems(connection: sqlite3.Connection, source: int, limit: int = 10_000) -> list[Problem]:
    """Return the problems, oldest first, at most `limit`."""
    rows = connection.execute(
        "SELECT path, reason, errno, since_us, detail FROM problem WHERE source = ?"
        " ORDER BY since_us LIMIT ?",
        (source, limit),
    )
    return [Problem(*row) for row in rows]


def problem_count(connection: sqlite3.Connection, source: int) -> int:
    """Return how many entries have a problem."""
    row = connection.execute("SELECT count(*) FROM problem WHERE source = ?", (source,)).fetchone()
    return int(row[0])


def problems_by_reason(connection: sqlite3.Connection, source: int) -> dict[str, int]:
    """Return how many entries have each kind of problem."""
    rows = connection.execute(
        "SELECT reason, count(*) FROM problem WHERE source = ? GROUP BY reason", (source,)
    )
    return {str(reason): int(count) for reason, count in rows}
