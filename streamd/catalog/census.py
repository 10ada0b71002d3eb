"""How many entries of a source are in each class (`policy.classes`), by what the catalog knows.

An entry with a problem is in the class of its problem; else pending while it is in the dirty set;
else protected. What is excluded is not in the catalog: the last full scan has counted it.
"""

import sqlite3
from typing import Final

from streamd.catalog.db import get_int, put_value
from streamd.catalog.dirty import Depth
from streamd.policy import classes

_SLASH: Final = b"/"
_KNOWN_MAX: Final = 100_000  # directories remembered while paths are looked up


class PathFinder:
    """Looks up paths in the tree of one source. One thread at a time."""

    def __init__(
        self, connection: sqlite3.Connection, source: int, roots: tuple[bytes, ...]
    ) -> None:
        self._connection = connection
        self._source = source
        self._roots = roots
        self._known: dict[bytes, int | None] = {}

    def find(self, path: bytes) -> int | None:
        """Return the file's number; None if the tree has no such path."""
        if path in self._roots:
            return self._child(-self._source, path)
        parent, _, name = path.rpartition(_SLASH)
        pending = [name]
        while parent and parent not in self._known and parent not in self._roots:
            parent, _, name = parent.rpartition(_SLASH)
            pending.append(name)
        at = parent or _SLASH
        fid = self._known[at] if at in self._known else self._root(at)
        while pending:
            name = pending.pop()
            if fid is None:
                return None
            fid = self._child(fid, name)
            at = at + name if at == _SLASH else at + _SLASH + name
            if pending:
                self._remember(at, fid)
        return fid

    def _root(self, path: bytes) -> int | None:
        fid = self._child(-self._source, path) if path in self._roots else None
        self._remember(path, fid)
        return fid

    def _remember(self, path: bytes, fid: int | None) -> None:
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[path] = fid

    def _child(self, parent: int, name: bytes) -> int | None:
        row = self._connection.execute(
            "SELECT fid FROM dirent WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        return None if row is None else int(row[0])


def _names_key(source: int) -> str:
    return f"names:{source}"


def know_names(connection: sqlite3.Connection, source: int) -> None:
    """Count the entries of a source, if their number is not known: once in a catalog's life.

    From then on `add_names` keeps it: nobody goes through a million of them to count them again.
    """
    if get_int(connection, _names_key(source), -1) < 0:
        put_value(connection, _names_key(source), _count_names(connection, source))


def add_names(connection: sqlite3.Connection, source: int, more: int) -> None:
    """So many entries came, less those that went."""
    connection.execute(
        "UPDATE meta SET value = value + ? WHERE key = ?", (more, _names_key(source))
    )


def names(connection: sqlite3.Connection, source: int) -> int:
    """Return how many entries the newest state of a source has, each name of a file counted."""
    known = get_int(connection, _names_key(source), -1)
    return known if known >= 0 else _count_names(connection, source)


def _count_names(connection: sqlite3.Connection, source: int) -> int:
    row = connection.execute(
        "SELECT count(*) FROM dirent d JOIN node n ON n.fid = d.fid WHERE n.source = ?", (source,)
    ).fetchone()
    return int(row[0])


def count_below(connection: sqlite3.Connection, fid: int) -> int:
    """Return how many entries there are below a directory, itself not counted."""
    row = connection.execute(
        "WITH RECURSIVE below (fid) AS (SELECT ?1 UNION ALL"
        " SELECT dirent.fid FROM below JOIN dirent ON dirent.parent = below.fid)"
        " SELECT count(*) - 1 FROM below",
        (fid,),
    ).fetchone()
    return int(row[0])


def pending_paths(
    connection: sqlite3.Connection, source: int, limit: int = -1
) -> list[tuple[bytes, int]]:
    """Return (path, since) of entries that wait, and have no problem; -1: all."""
    rows = connection.execute(
        "SELECT path, first_us FROM dirty d WHERE source = ?1 AND deep < ?2 AND NOT EXISTS"
        " (SELECT 1 FROM problem p WHERE p.source = ?1 AND p.path = d.path)"
        " ORDER BY first_us LIMIT ?3",
        (source, int(Depth.SCAN), limit),
    )
    return [(bytes(path), int(first_us)) for path, first_us in rows]


def census(
    connection: sqlite3.Connection, source: int, roots: tuple[bytes, ...], *, excluded: int
) -> dict[str, int]:
    """Return the number of entries in each class."""
    counts = dict.fromkeys(classes.FILE_CLASSES, 0)
    counts[classes.EXCLUDED] = excluded
    finder = PathFinder(connection, source, roots)
    entries = names(connection, source)
    rows = connection.execute("SELECT path, reason FROM problem WHERE source = ?", (source,))
    for path, reason in rows.fetchall():
        name, fid = classes.class_of(reason), finder.find(path)
        below = count_below(connection, fid) if name == classes.VANISHED and fid else 0
        counts[name] += 1 + below
        entries -= (fid is not None) + below
    for path, _ in pending_paths(connection, source):
        counts[classes.PENDING] += 1
        entries -= finder.find(path) is not None
    counts[classes.PROTECTED] = max(entries, 0)
    return counts


def entry_count(connection: sqlite3.Connection, source: int) -> int:
    """Return how many entries the newest state of a source has, names and files together halved.

    Each file has a version and, nearly always, one name: the number of live keys halved.
    """
    row = connection.execute("SELECT key_count FROM source WHERE number = ?", (source,)).fetchone()
    return 0 if row is None else int(row[0]) // 2
