"""What the catalog holds of the files and places that a run of intentions is about."""

import sqlite3
from collections.abc import Iterable

from streamd.catalog.rows import filled, marks, places


class Known:
    """Read at once, for all of a run: true until the shape of the tree changes."""

    __slots__ = ("alive", "entries", "linked", "versions")

    def __init__(
        self, connection: sqlite3.Connection, fids: Iterable[int], at: Iterable[tuple[int, bytes]]
    ) -> None:
        """Look up files and places, each a directory and a name in it.

        New files have numbers above all that were given out, so nothing need be asked about them;
        and a directory that is not there has no entries.
        """
        (newest,) = connection.execute("SELECT coalesce(max(fid), 0) FROM node").fetchone()
        rows = list(_nodes(connection, {fid for fid in fids if fid <= newest}))
        self.versions: dict[int, bytes] = {fid: version for fid, version, _ in rows}
        self.linked: set[int] = {fid for fid, _, links in rows if links > 1}  # have several names
        by_parent: dict[int, list[bytes]] = {}
        for parent, name in at:
            if parent <= newest:
                by_parent.setdefault(parent, []).append(name)
        # The directories that are there, but roots: those are always.
        self.alive: set[int] = _alive(connection, [fid for fid in by_parent if fid > 0])
        self.entries: dict[tuple[int, bytes], tuple[int, int]] = {}  # place -> file, type
        there = [parent for parent in by_parent if parent <= 0 or parent in self.alive]
        several = [parent for parent in there if len(by_parent[parent]) > 1]
        empty = set(several).difference(_with_entries(connection, several))
        asked = [
            (parent, name) for parent in there if parent not in empty for name in by_parent[parent]
        ]
        for part in filled(asked):
            values = [value for place in part for value in place]
            for parent, name, fid, kind in connection.execute(_entries_at(len(part)), values):
                self.entries[parent, name] = (fid, kind)


def _nodes(connection: sqlite3.Connection, fids: set[int]) -> Iterable[tuple[int, bytes, int]]:
    for part in filled(list(fids)):
        yield from connection.execute(
            f"SELECT fid, version, links FROM node WHERE fid IN ({marks(len(part))})", part
        )


def _alive(connection: sqlite3.Connection, fids: list[int]) -> set[int]:
    alive: set[int] = set()
    for part in filled(fids):
        asked = f"SELECT fid FROM node WHERE fid IN ({marks(len(part))})"
        alive.update(fid for (fid,) in connection.execute(asked, part))
    return alive


def _with_entries(connection: sqlite3.Connection, parents: list[int]) -> set[int]:
    found: set[int] = set()
    for part in filled(parents):
        asked = (
            f"WITH asked (parent) AS (VALUES {places(len(part), 1)}) SELECT parent FROM asked"
            " WHERE EXISTS (SELECT 1 FROM dirent WHERE dirent.parent = asked.parent)"
        )
        found.update(parent for (parent,) in connection.execute(asked, part))
    return found


def _entries_at(count: int) -> str:
    return (
        f"WITH asked (parent, name) AS (VALUES {places(count, 2)})"
        " SELECT d.parent, d.name, d.fid, d.type FROM asked CROSS JOIN dirent d"
        " ON d.parent = asked.parent AND d.name = asked.name"
    )
