"""Questions about the tree as last captured; see `catalog.tree` for how it changes."""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from streamd.catalog.inodes import Inodes
from streamd.catalog.rows import filled, marks
from streamd.model.entry import EntryType, FileVersion
from streamd.model.host import HostStat

DEPTH_MAX = 100_000  # a bound for the way up, against a cycle that a bug would make


class NodeRow(NamedTuple):
    """A captured file: its identity, what stat said then, and whether it must be read again."""

    fid: int
    stat: HostStat
    again: int
    generation: int = 0


_STAT_COLUMNS = (
    "n.type, n.mode, n.uid, n.gid, n.size, n.mtime_ns, n.ctime_ns, n.dev, n.ino, n.nlink, n.rdev"
)
NODE_COLUMNS = f"n.fid, n.again, n.generation, {_STAT_COLUMNS}"
_VERSION = msgspec.msgpack.Decoder(FileVersion)


def node_row(row: Sequence[Any]) -> NodeRow:
    """Return what was selected by `NODE_COLUMNS`."""
    return NodeRow(row[0], HostStat._make(row[3:]), row[1], row[2])


class TreeLookup:
    """Read-only questions about one source's tree. One thread at a time."""

    def __init__(
        self, connection: sqlite3.Connection, source: int, inodes: Inodes | None = None
    ) -> None:
        """Ask `connection`; `inodes` knows all that can have been recorded of the source."""
        self._connection = connection
        self._inodes = inodes
        self.source = source
        self.root = -source

    def children(self, parent: int) -> dict[bytes, NodeRow]:
        """Return all entries of a directory."""
        rows = self._connection.execute(
            f"SELECT d.name, {NODE_COLUMNS}"
            " FROM dirent d JOIN node n ON n.fid = d.fid WHERE d.parent = ?",
            (parent,),
        )
        return {row[0]: node_row(row[1:]) for row in rows}

    def named(self, parent: int, names: Sequence[bytes]) -> dict[bytes, NodeRow]:
        """Return the entries of a directory that have one of these names."""
        found: dict[bytes, NodeRow] = {}
        for part in filled(names):
            rows = self._connection.execute(
                f"SELECT d.name, {NODE_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid"
                f" WHERE d.parent = ? AND d.name IN ({marks(len(part))})",
                (parent, *part),
            )
            for row in rows:
                found[row[0]] = node_row(row[1:])
        return found

    def by_inode(self, dev: int, ino: int) -> NodeRow | None:
        """Return the file with this identity, if it is known."""
        if self._inodes is not None and not self._inodes.may_hold([ino]):
            return None
        row = self._connection.execute(
            f"SELECT {NODE_COLUMNS} FROM node n"
            " WHERE n.ino = ? AND n.dev = ? AND n.source = ? AND n.links > 0"
            " ORDER BY n.fid DESC LIMIT 1",  # an older one is gone, if that is not known yet
            (ino, dev, self.source),
        ).fetchone()
        return None if row is None else node_row(row)

    def by_inodes(self, identities: Sequence[tuple[int, int]]) -> dict[tuple[int, int], NodeRow]:
        """Return the known files among (dev, ino), as `by_inode` does one by one."""
        found: dict[tuple[int, int], NodeRow] = {}
        numbers = [ino for _, ino in identities]
        if self._inodes is not None and not self._inodes.may_hold(numbers):
            return found
        for part in filled(numbers):
            rows = self._connection.execute(
                f"SELECT {NODE_COLUMNS} FROM node n WHERE n.ino IN ({marks(len(part))})"
                " AND n.source = ? AND n.links > 0 ORDER BY n.fid",
                (*part, self.source),
            )
            for row in rows:
                known = node_row(row)
                found[known.stat.dev, known.stat.ino] = known
        return found

    def birth_of(self, fid: int) -> int:
        """Return when a file was born, in nanoseconds, as captured; 0: not known."""
        row = self._connection.execute("SELECT version FROM node WHERE fid = ?", (fid,)).fetchone()
        return 0 if row is None else _VERSION.decode(row[0]).btime_ns

    def inode_of(self, fid: int) -> int:
        """Return a file's inode number when it was captured; 0: not known."""
        row = self._connection.execute("SELECT ino FROM node WHERE fid = ?", (fid,)).fetchone()
        return 0 if row is None else int(row[0])

    def has_children(self, fid: int) -> bool:
        """Say whether a directory has entries."""
        row = self._connection.execute(
            "SELECT 1 FROM dirent WHERE parent = ? LIMIT 1", (fid,)
        ).fetchone()
        return row is not None

    def directory(self, parent: int, name: bytes) -> tuple[int, HostStat] | None:
        """Return (fid, stat as captured) of the directory `name` in directory `parent`."""
        row = self._connection.execute(
            f"SELECT n.fid, {_STAT_COLUMNS} FROM dirent d JOIN node n ON n.fid = d.fid"
            " WHERE d.parent = ? AND d.name = ? AND d.type = ?",
            (parent, name, int(EntryType.DIRECTORY)),
        ).fetchone()
        return None if row is None else (row[0], HostStat._make(row[1:]))

    def paths_of(self, fid: int, limit: int = 1000) -> list[bytes]:
        """Return the paths of a file, at most `limit` of them."""
        names = self._connection.execute(
            "SELECT parent, name FROM dirent WHERE fid = ? LIMIT ?", (fid, limit)
        ).fetchall()
        return [self._path(parent, name) for parent, name in names]

    def _path(self, parent: int, name: bytes) -> bytes:
        parts = [name]
        while parent > 0 and len(parts) < DEPTH_MAX:
            row = self._connection.execute(
                "SELECT parent, name FROM dirent WHERE fid = ?", (parent,)
            ).fetchone()
            if row is None:
                break
            parent = row[0]
            parts.append(row[1])
        return b"/".join(reversed(parts))
