"""Questions about a captured tree for whoever goes through all of it: the rest of `TreeLookup`."""

import sqlite3
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, TypeVar

from streamd.catalog.inodes import Inodes
from streamd.catalog.lookup import NODE_COLUMNS, NodeRow, TreeLookup, node_row
from streamd.model.entry import EntryType

_COLUMNS = (
    "d.name, d.fid, n.again, n.type, n.mode, n.uid, n.gid, n.size, n.mtime_ns, n.ctime_ns,"
    " n.dev, n.ino, n.nlink, n.rdev"
)

R = TypeVar("R")

# name, number, whether to be read again, and from STAT on the fields of HostStat
RawRow = tuple[Any, ...]
NUMBER: Final = 1
AGAIN: Final = 2
STAT: Final = 3


class WalkLookup(TreeLookup):
    """Read-only questions about one source's tree. One thread at a time."""

    def __init__(
        self, connection: sqlite3.Connection, source: int, inodes: Inodes | None = None
    ) -> None:
        """As a `TreeLookup`."""
        super().__init__(connection, source, inodes)
        self._guard = Lock()
        self._users = 0
        self._is_closing = False

    def during(self, work: Callable[[], R]) -> R:
        """Return what `work` returns, which asks us; a connection in use is not closed.

        A thread cannot be cancelled, and may go on long after nobody waits for it any more.
        """
        with self._guard:
            self._users += 1
        try:
            return work()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._guard:
            self._users -= 1
            if self._is_closing and not self._users:
                self._connection.close()

    def close(self) -> None:
        """Close the connection, as soon as no thread is using it; does not wait."""
        with self._guard:
            if not self._is_closing and not self._users:
                self._connection.close()
            self._is_closing = True

    def rows(self, parent: int) -> dict[bytes, RawRow]:
        """Return all entries of a directory, as cheaply as can be."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid WHERE d.parent = ?",
            (parent,),
        )
        return {row[0]: row for row in rows}

    def sorted_rows(self, parent: int) -> list[RawRow]:
        """Return the same as a list, sorted by name."""
        return self._connection.execute(
            f"SELECT {_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid WHERE d.parent = ?"
            " ORDER BY d.name",
            (parent,),
        ).fetchall()

    def rows_between(self, parent: int, low: bytes, high: bytes | None) -> dict[bytes, RawRow]:
        """Return the entries of a directory with names from `low` up to, without, `high`.

        None: up to the end.
        """
        below = "" if high is None else " AND d.name < ?"
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid"
            f" WHERE d.parent = ? AND d.name >= ?{below}",
            (parent, low) if high is None else (parent, low, high),
        )
        return {row[0]: row for row in rows}

    def between(self, parent: int, low: bytes, high: bytes | None) -> dict[bytes, NodeRow]:
        """Return the same as the other questions about entries do."""
        below = "" if high is None else " AND d.name < ?"
        rows = self._connection.execute(
            f"SELECT d.name, {NODE_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid"
            f" WHERE d.parent = ? AND d.name >= ?{below}",
            (parent, low) if high is None else (parent, low, high),
        )
        return {row[0]: node_row(row[1:]) for row in rows}

    def directories(self, parent: int) -> list[tuple[bytes, int, int]]:
        """Return (name, number, inode) of the directories in a directory."""
        return self._connection.execute(
            "SELECT d.name, d.fid, n.ino FROM dirent d JOIN node n ON n.fid = d.fid"
            " WHERE d.parent = ? AND d.type = ?",
            (parent, int(EntryType.DIRECTORY)),
        ).fetchall()
