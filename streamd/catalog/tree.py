"""The tree as last captured: look it up, and change it by recording changes.

`TreeWriter` is the one place where intentions of the capture engine ("this name is that file now")
become journal records. It keeps the invariants whatever order intentions arrive in: an entry's
parent exists, a directory has one name, a file without a name is gone, removing a directory
removes everything below it explicitly, and the state sum follows each key. It runs in the
catalog's writer thread.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import field

from streamd.catalog.known import Known
from streamd.catalog.lookup import DEPTH_MAX
from streamd.catalog.rows import insert_rows
from streamd.format import batch
from streamd.model.entry import Dirent, EntryType, SourceInfo
from streamd.model.host import HostStat
from streamd.model.ids import ROOT_FID, Fid, SourceId
from streamd.model.record import SOURCE_KEY, Op, dirent_key, version_key
from streamd.policy.toll import Toll

CHILDREN_MAX = 1000  # of a directory that goes, at a time
REMOVED_MAX = 4096  # former values that wait to be summed up
RUN_MAX = 256  # intentions looked up at once where runs end early
_SET = int(Op.SET)
_ENCODE = msgspec.msgpack.Encoder().encode
_STAT = "type, mode, uid, gid, size, mtime_ns, ctime_ns, dev, ino, nlink, rdev"  # as in HostStat
_OF_FILE = (*_STAT.split(", "), "generation")
_NODE = f"INSERT INTO node (fid, source, {', '.join(_OF_FILE)}, links, again, version)"
_NODE_CHANGED = "ON CONFLICT (fid) DO UPDATE SET " + ", ".join(
    f"{column} = excluded.{column}" for column in (*_OF_FILE, "again", "version")
)


class SourceState(msgspec.Struct):
    """A source's row while a transaction changes it."""

    number: int
    name: str
    id: SourceId
    info: bytes
    summed: int  # the state sum before what is in `added` and `removed`
    key_count: int
    records: list[tuple[int, bytes, bytes]] = field(default_factory=list)  # op, key, value
    more_names: int = 0  # entries that came, less those that went
    toll: Toll = field(default_factory=Toll)  # what happened to its files
    entries_before: int = 0  # see `entry_count`
    added: list[batch.Record] = field(default_factory=list)
    removed: list[batch.Row] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The state sum."""
        self.sum_up()
        return self.summed

    def sum_up(self) -> None:
        """Put what was added and removed into the sum: many terms in one call."""
        self.summed += batch.sum_rows(self.added) - batch.sum_rows(self.removed)
        self.added.clear()
        self.removed.clear()


def load_source(connection: sqlite3.Connection, name: str, source_id: SourceId) -> SourceState:
    """Return a source's row, made when it is new."""
    connection.execute(
        "INSERT OR IGNORE INTO source (name, id, total) VALUES (?, ?, zeroblob(32))",
        (name, source_id),
    )
    number, info, total, count = connection.execute(
        "SELECT number, info, total, key_count FROM source WHERE name = ?", (name,)
    ).fetchone()
    summed = int.from_bytes(total, "little")
    return SourceState(number, name, source_id, info, summed, count, entries_before=count // 2)


class Intent(NamedTuple):
    """`name` in directory `parent` is file `fid`, and that file is as `stat` and `version` say.

    `version` None: only the name is new, the file is known. `is_fresh`: the fid was drawn for this
    entry; otherwise the file was in the catalog when it was looked at, and must still be.
    """

    parent: int
    name: bytes
    fid: int
    stat: HostStat
    version: bytes | None
    again: bool
    is_fresh: bool
    generation: int = 0  # see model.host.Identity; 0: not known


class TreeWriter:
    """Turns intentions into records, inside one transaction: `apply`, `remove`, then `finish`."""

    def __init__(self, connection: sqlite3.Connection, state: SourceState) -> None:
        self._connection = connection
        self._state = state
        self.dropped: list[Intent] = []  # not recorded: they had no place, and need another look
        self.unsure: list[Intent] = []  # recorded by name; the file is not as it was seen there
        # Lost their last name, which was in this directory; may get another until `finish`.
        self._nameless: dict[int, int] = {}
        self._changed: dict[int, Intent] = {}  # known files with new versions, not yet written
        self._applied: list[Sequence[Intent]] = []
        self._recorded: set[tuple[int, bytes]] | None = None  # places, while others are buried
        self._buried: set[tuple[int, bytes]] = set()  # those of them that went too

    # -- records ---------------------------------------------------------------------------------

    def _set(self, key: bytes, value: bytes, old: bytes | None) -> None:
        state = self._state
        if old is None:
            state.key_count += 1
        else:
            self._take_away(key, old)
        record = (_SET, key, value)
        state.added.append(record)
        state.records.append(record)

    def _delete(self, key: bytes, old: bytes) -> None:
        self._take_away(key, old)
        self._state.key_count -= 1
        self._state.records.append((Op.DEL, key, b""))

    def _take_away(self, key: bytes, old: bytes) -> None:
        """Forget a key's former value in the state sum."""
        state = self._state
        state.removed.append((key, old))
        if len(state.removed) >= REMOVED_MAX:
            state.sum_up()

    def _public(self, parent: int) -> Fid:
        return Fid(parent) if parent > 0 else ROOT_FID

    def describe(self, info: SourceInfo) -> None:
        """Record the source's name and paths if they changed."""
        value = msgspec.msgpack.encode(info)
        if value != self._state.info:
            self._set(SOURCE_KEY, value, self._state.info or None)
            self._state.info = value

    # -- removing --------------------------------------------------------------------------------

    def remove(self, parent: int, name: bytes) -> None:
        """The entry is gone; harmless if it never was."""
        row = self._connection.execute(
            "SELECT fid, type FROM dirent WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        if row is not None:
            self._unlink(parent, name, row[0], row[1])

    def _unlink(self, parent: int, name: bytes, fid: int, entry_type: int) -> None:
        """Remove an entry and, when it was the last name, the file and everything below it."""
        pending = [(parent, name, fid, entry_type)]
        while pending:
            parent, name, fid, entry_type = pending.pop()
            is_directory = entry_type == EntryType.DIRECTORY
            if is_directory and (children := self._some_children(fid)):
                pending.append((parent, name, fid, entry_type))  # first these, then this again
                pending.extend((fid, *child) for child in children)
                continue
            self._drop_entry(parent, name, fid, entry_type)
            self._drop_link(fid, parent)

    def _some_children(self, fid: int) -> list[tuple[bytes, int, int]]:
        """Return entries of a directory, not all at once: there may be millions."""
        return self._connection.execute(
            "SELECT name, fid, type FROM dirent WHERE parent = ? LIMIT ?", (fid, CHILDREN_MAX)
        ).fetchall()

    def _drop_entry(self, parent: int, name: bytes, fid: int, entry_type: int) -> None:
        self._connection.execute("DELETE FROM dirent WHERE parent = ? AND name = ?", (parent, name))
        if self._recorded is not None and (parent, name) in self._recorded:
            self._buried.add((parent, name))
        self._state.more_names -= 1
        old = msgspec.msgpack.encode(Dirent(fid, entry_type))
        self._delete(dirent_key(self._public(parent), name), old)

    def _drop_link(self, fid: int, parent: int) -> None:
        row = self._connection.execute(
            "UPDATE node SET links = links - 1 WHERE fid = ? RETURNING links", (fid,)
        ).fetchone()
        if row is not None and row[0] <= 0:
            self._forget_node(fid, parent)

    def _forget_node(self, fid: int, parent: int) -> None:
        (version,) = self._connection.execute(
            "DELETE FROM node WHERE fid = ? RETURNING version", (fid,)
        ).fetchone()
        self._delete(version_key(Fid(fid)), version)
        self._state.toll.gone(parent, version)

    # -- setting ---------------------------------------------------------------------------------

    def apply(self, intents: Sequence[Intent]) -> None:
        """Record every intention, in order. Those without a place go to `dropped`."""
        rest, at_once = list(intents), len(intents)
        self._applied.append(intents)
        while rest:
            part, rest = rest[:at_once], rest[at_once:]
            if left := self._apply_run(part):
                at_once, rest = RUN_MAX, left + rest  # so that little is looked up again and again

    def finish(self) -> set[tuple[int, bytes]]:
        """Remove what was replaced and got no other name; return the places that went with it.

        Only places that were recorded at this instant: what was below may be millions of entries.

        Only in the end of all that is recorded at this instant: an exchange, a move to a place that
        was looked at later, gives a replaced file its new name.
        """
        if not self._nameless:
            return set()
        self._recorded = {
            (intent.parent, intent.name) for intents in self._applied for intent in intents
        }
        for fid, parent in sorted(self._nameless.items()):
            self._bury(fid, parent)
        self._nameless.clear()
        self._recorded = None
        return self._buried

    def _bury(self, fid: int, parent: int) -> None:
        """Remove a file that is left without a name, and everything below it."""
        row = self._connection.execute("SELECT links FROM node WHERE fid = ?", (fid,)).fetchone()
        if row is None or row[0] > 0:
            return
        while children := self._some_children(fid):
            for child in children:
                self._unlink(fid, *child)
        self._forget_node(fid, parent)

    def _apply_run(self, intents: list[Intent]) -> list[Intent]:
        """Apply intents until one changes the shape of the tree; return what is left.

        What is known of the tree is read once for all intents, for speed; a removal or a move makes
        that stale, so the run ends there, unless that is of a file with which it has nothing to do.
        """
        seen = Known(
            self._connection,
            [intent.fid for intent in intents],
            [(intent.parent, intent.name) for intent in intents],
        )
        known, linked, alive, existing = seen.versions, seen.linked, seen.alive, seen.entries
        fresh: dict[int, Intent] = {}
        entries: list[tuple[int, bytes, int, int]] = []
        links: dict[int, int] = {}
        left: list[Intent] = []
        after, end = 0, len(intents)
        while (index := self._apply_new(intents, after, seen, entries, fresh, links)) < end:
            intent, after = intents[index], index + 1
            parent, name, fid = intent.parent, intent.name, intent.fid
            is_new_file = fid not in known and fid not in fresh
            if (parent > 0 and parent not in alive and parent not in fresh) or (
                is_new_file and not (intent.is_fresh and intent.version is not None)
            ):
                self.dropped.append(intent)
                continue
            before = existing.get((parent, name))
            is_single = intent.stat.type == EntryType.DIRECTORY or intent.stat.nlink == 1
            if before is not None and before[0] == fid and is_single and fid in linked:
                self._flush(entries, fresh, links)  # the other names are gone, noticed or not
                self._leave_old_place(fid, keep=(parent, name))
                left = intents[index:]
                break
            if before is None or before[0] != fid:
                moved = is_single and (fid in links or self._has_name(fid, known))
                is_nameless = fid in self._nameless
                is_tied = moved or is_nameless or self._is_tied(before, known, alive, links)
                if moved or (is_nameless and index > 0) or (before is not None and is_tied):
                    self._flush(entries, fresh, links)
                    if (moved or is_nameless) and self._is_within(parent, fid):
                        self.dropped.append(intent)  # its way up has moved too, and is not known
                        left = intents[after:]
                        break
                    if before is not None:
                        self._detach(parent, name, *before)
                    if moved:
                        self._leave_old_place(fid)
                    left = intents[index:]
                    break
                if is_nameless and self._is_within(parent, fid):
                    self.dropped.append(intent)
                    continue
                existing[parent, name] = (fid, intent.stat.type)
                entries.append(self._name(intent, before))
                links[fid] = links.get(fid, 0) + 1
            self._version(intent, known, fresh)
        self._flush(entries, fresh, links)
        return left

    def _name(self, intent: Intent, before: tuple[int, int] | None) -> tuple[int, bytes, int, int]:
        """Record an entry, in the place of a file `before`, or a free one; return its row."""
        if before is not None:
            self._detach(intent.parent, intent.name, *before)
        parent, name, fid, kind = intent.parent, intent.name, intent.fid, intent.stat.type
        self._state.more_names += 1
        self._state.toll.named(fid, name)
        value = _ENCODE(Dirent(fid, kind))
        self._set(dirent_key(self._public(parent), name), value, None)
        return parent, name, fid, kind

    @staticmethod
    def _is_tied(
        before: tuple[int, int] | None,
        known: dict[int, bytes],
        alive: set[int],
        links: dict[int, int],
    ) -> bool:
        """Say whether a run has more to do with a file (number, type) than one place of it.

        If not, what the run knows of the tree stays true when the file leaves that place for a new
        one. So it is with files that an editor replaces when it saves them.
        """
        if before is None:
            return False
        fid, kind = before
        return kind == EntryType.DIRECTORY or fid in known or fid in alive or fid in links

    def _apply_new(
        self,
        intents: list[Intent],
        start: int,
        seen: Known,
        entries: list[tuple[int, bytes, int, int]],
        fresh: dict[int, Intent],
        links: dict[int, int],
    ) -> int:
        """Record the new files in free places from `start` on; return where other ones begin.

        That is all there is to do in a first capture, so it is made short: there is nothing to
        compare with, and each adds two keys that were not there.
        """
        if start < len(intents) and not intents[start].is_fresh:
            return start
        known, alive, existing = seen.versions, seen.alive, seen.entries
        state, nameless, born = self._state, self._nameless, self._state.toll.born
        new: list[batch.NewFile] = []
        for index in range(start, len(intents)):
            parent, name, fid, stat, version, _, is_fresh, _ = intent = intents[index]
            place = (parent, name)
            if not (
                is_fresh
                and version is not None
                and (parent in alive or parent in fresh or parent <= 0)
                and place not in existing
                and fid not in known
                and fid not in fresh
                and fid not in nameless
            ):
                break
            kind = stat[0]
            entries.append((parent, name, fid, kind))
            existing[place] = (fid, kind)
            fresh[fid] = intent
            links[fid] = 1
            new.append((parent if parent > 0 else ROOT_FID, name, fid, kind, version))
            born(parent, version)
        if new:
            records = batch.new_records(_SET, new)
            state.records += records
            state.added += records
            state.key_count += len(records)
            state.more_names += len(new)
        return start + len(new)

    def _is_as_seen(self, intent: Intent, fresh: dict[int, Intent]) -> bool:
        """Say whether the file of a name-only intent was captured as it was seen under that name.

        It was not if reading it under its other name failed: that name may be gone meanwhile. Nor
        does it count if it has to be read again: that other name may be gone by then.
        """
        pending = fresh.get(intent.fid) or self._changed.get(intent.fid)
        if pending is not None:
            return not pending.again and pending.stat.ctime_ns == intent.stat.ctime_ns
        row = self._connection.execute(
            "SELECT ctime_ns FROM node WHERE fid = ? AND again = 0", (intent.fid,)
        ).fetchone()
        return row is not None and row[0] == intent.stat.ctime_ns

    def _version(self, intent: Intent, known: dict[int, bytes], fresh: dict[int, Intent]) -> None:
        """Record the file itself, or check that it is recorded as it was seen."""
        if intent.version is None:
            if not self._is_as_seen(intent, fresh):
                self.unsure.append(intent)
            return
        fid = intent.fid
        pending = fresh.get(fid)
        old = pending.version if pending is not None else known.get(fid)
        if old is None:
            self._state.toll.born(intent.parent, intent.version)
        elif old != intent.version:
            self._state.toll.changed(old, intent.version)
        if old != intent.version:
            self._set(version_key(Fid(fid)), intent.version, old)
        if fid in known:
            self._changed[fid] = intent
            known[fid] = intent.version
        else:
            fresh[fid] = intent

    def _has_name(self, fid: int, known: dict[int, bytes]) -> bool:
        if fid not in known:
            return False
        row = self._connection.execute(
            "SELECT 1 FROM dirent WHERE fid = ? LIMIT 1", (fid,)
        ).fetchone()
        return row is not None

    def _is_within(self, directory: int, fid: int) -> bool:
        """Say whether `directory` is the directory `fid` or lies below it."""
        for _ in range(DEPTH_MAX):
            if directory == fid:
                return True
            row = self._connection.execute(
                "SELECT parent FROM dirent WHERE fid = ?", (directory,)
            ).fetchone()
            if row is None:
                return False
            directory = row[0]
        return True

    def _leave_old_place(self, fid: int, keep: tuple[int, bytes] | None = None) -> None:
        """What has one name leaves every other one, with everything below it."""
        rows = self._connection.execute(
            "SELECT parent, name, type FROM dirent WHERE fid = ?", (fid,)
        ).fetchall()
        for parent, name, entry_type in rows:
            if (parent, name) != keep:
                self._state.toll.left(fid, name)
                self._detach(parent, name, fid, entry_type)

    def _detach(self, parent: int, name: bytes, fid: int, entry_type: int) -> None:
        """Remove an entry, but not yet the file if this was its last name."""
        self._drop_entry(parent, name, fid, entry_type)
        (links,) = self._connection.execute(
            "UPDATE node SET links = links - 1 WHERE fid = ? RETURNING links", (fid,)
        ).fetchone()
        if links <= 0:
            self._nameless[fid] = parent

    def _row(self, intent: Intent, links: int) -> tuple[object, ...]:
        _, _, fid, stat, version, again, _, generation = intent
        return (fid, self._state.number, *stat, generation, links, int(again), version)

    def _flush(
        self,
        entries: list[tuple[int, bytes, int, int]],
        fresh: dict[int, Intent],
        links: dict[int, int],
    ) -> None:
        """Write what was collected; records are already in order."""
        if self._changed:
            rows = [self._row(intent, 0) for intent in self._changed.values()]
            insert_rows(self._connection, _NODE, rows, _NODE_CHANGED)
            self._changed.clear()
        if fresh:
            rows = [self._row(intent, links.pop(fid, 0)) for fid, intent in fresh.items()]
            insert_rows(self._connection, _NODE, rows)
            fresh.clear()
        if links:
            self._connection.executemany(
                "UPDATE node SET links = links + ? WHERE fid = ?",
                [(count, fid) for fid, count in links.items()],
            )
            links.clear()
        if entries:
            insert_rows(self._connection, "INSERT INTO dirent", entries)
            entries.clear()
