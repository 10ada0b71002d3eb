"""The tree writer against a model of dicts: whatever is asked of it, in whatever order.

After every call the produced records, replayed, are exactly the catalog's tables; the state sum is
the sum over them; nothing is orphaned, nothing dangles, directories have one name; and an intention
that has no place is reported.
"""

import sqlite3
from importlib import resources

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamd.catalog.tree import Intent, SourceState, TreeWriter, load_source
from streamd.format import state_sum
from streamd.model.entry import Dirent, EntryType, SourceInfo
from streamd.model.host import HostStat
from streamd.model.ids import ROOT_FID
from streamd.model.record import (
    SOURCE_KEY,
    Op,
    dirent_key,
    parse_dirent_key,
    parse_version_key,
    version_key,
)

NAMES = st.sampled_from([b"a", b"b", b"c"])
FILE, DIRECTORY = EntryType.REGULAR, EntryType.DIRECTORY
SOURCE_ID = b"s" * 16


def stat_of(kind: EntryType, fid: int, tick: int, nlink: int = 1) -> HostStat:
    return HostStat(kind, 0o644, 0, 0, 0, tick, tick, 1, fid, nlink, 0)


class TreeMachine(RuleBasedStateMachine):
    """Intentions as surveys make them, valid and stale ones alike."""

    @initialize()
    def open(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema = resources.files("streamd.catalog").joinpath("schema.sql").read_text("utf-8")
        self.db.executescript(schema)
        self.state: SourceState = load_source(self.db, "s", SOURCE_ID)
        self.root = -self.state.number
        self.replayed: dict[bytes, bytes] = {}
        self.next_fid = 1 << 40
        self.tick = 0
        self.all_fids: dict[int, EntryType] = {}
        writer = TreeWriter(self.db, self.state)
        writer.describe(SourceInfo("s", (b"/r",)))
        self.apply([self.fresh(self.root, b"/r", DIRECTORY)])

    # -- asking ----------------------------------------------------------------------------------

    def fresh(self, parent: int, name: bytes, kind: EntryType, nlink: int = 1) -> Intent:
        self.next_fid += 1
        self.all_fids[self.next_fid] = kind
        return self.again(parent, name, self.next_fid, kind, nlink, is_fresh=True)

    def again(self, parent, name, fid, kind, nlink=1, *, is_fresh=False, version=True) -> Intent:
        self.tick += 1
        body = msgspec.msgpack.encode((int(kind), fid, self.tick)) if version else None
        stat = stat_of(kind, fid, self.tick, nlink)
        return Intent(parent, name, fid, stat, body, again=False, is_fresh=is_fresh)

    def apply(self, intents: list[Intent], gone: list[tuple[int, bytes]] = ()) -> TreeWriter:
        writer = TreeWriter(self.db, self.state)
        half = len(intents) // 2 if self.tick % 2 else 0  # what belongs together may come apart
        writer.apply(intents[:half])
        writer.apply(intents[half:])
        for parent, name in gone:
            writer.remove(parent, name)
        writer.finish()
        for op, key, value in self.state.records:
            if op == Op.SET:
                self.replayed[key] = value
            else:
                assert key in self.replayed, "a removal of what is not there"
                del self.replayed[key]
        self.state.records.clear()
        return writer

    def directories(self) -> list[int]:
        return [fid for (fid,) in self.db.execute("SELECT fid FROM node WHERE type = 2")]

    def any_fid(self, data, kinds) -> int:
        known = sorted(fid for fid, kind in self.all_fids.items() if kind in kinds)
        return data.draw(st.sampled_from(known), label="fid, perhaps long gone")

    def place(self, data) -> tuple[int, bytes]:
        parents = sorted(fid for fid, kind in self.all_fids.items() if kind is DIRECTORY)
        return data.draw(st.sampled_from(parents), label="parent"), data.draw(NAMES)

    # -- rules -----------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 4))
    def batch(self, data, count) -> None:
        """Several intentions of all kinds at once, some of them stale, and removals behind them."""
        intents, gone = [], []
        for _ in range(count):
            parent, name = self.place(data)
            kind = data.draw(st.sampled_from([FILE, DIRECTORY]))
            action = data.draw(st.sampled_from(["fresh", "known", "link", "gone"]))
            if action == "fresh":
                intents.append(self.fresh(parent, name, kind))
            elif action == "gone":
                gone.append((parent, name))
            elif any(each is kind for each in self.all_fids.values()):
                fid = self.any_fid(data, {kind})
                nlink = data.draw(st.integers(1, 3)) if kind is FILE else 1
                wanted = data.draw(st.booleans()) or kind is DIRECTORY
                intents.append(self.again(parent, name, fid, kind, nlink, version=wanted))
        before = {fid for (fid,) in self.db.execute("SELECT fid FROM node")}
        offered = {each.fid for each in intents if each.is_fresh}
        writer = self.apply(intents, gone)
        for intent in intents:  # each is recorded or reported (or replaced within the batch)
            if intent.parent not in before | offered and intent.parent != self.root:
                assert intent in writer.dropped

    @rule(data=st.data())
    def exchange_directories(self, data) -> None:
        """Two entries of one directory change places; below them nothing is recorded."""
        rows = self.db.execute(
            "SELECT a.parent, a.name, a.fid, b.name, b.fid FROM dirent a JOIN dirent b"
            " ON a.parent = b.parent AND a.name < b.name WHERE a.type = 2 AND b.type = 2"
        ).fetchall()
        if not rows:
            return
        parent, first, fid, second, other = data.draw(st.sampled_from(rows))
        count = self.db.execute("SELECT count(*) FROM node").fetchone()
        writer = self.apply(
            [
                self.again(parent, first, other, DIRECTORY, version=False),
                self.again(parent, second, fid, DIRECTORY, version=False),
            ]
        )
        assert [each for each in writer.dropped if each.fid not in (fid, other)] == []
        assert self.db.execute("SELECT count(*) FROM node").fetchone() == count
        assert self.entry(parent, first) == other
        assert self.entry(parent, second) == fid

    @rule(data=st.data())
    def move_a_directory(self, data) -> None:
        """Its name changes, in two records and its version; what is below stays as it is."""
        rows = self.db.execute(
            "SELECT parent, name, fid FROM dirent WHERE type = 2 AND parent > 0"
        ).fetchall()
        if not rows:
            return
        parent, name, fid = data.draw(st.sampled_from(rows))
        target = data.draw(st.sampled_from(sorted(self.directories())))
        new = data.draw(NAMES)
        if self.is_within(target, fid) or self.entry(target, new) is not None:
            return
        below = self.db.execute("SELECT * FROM dirent WHERE parent = ?", (fid,)).fetchall()
        state = self.state
        writer = TreeWriter(self.db, state)
        writer.apply([self.again(target, new, fid, DIRECTORY)])
        assert not writer.finish()
        assert len(state.records) == 3
        self.apply([])
        assert self.entry(target, new) == fid
        assert self.entry(parent, name) is None
        assert self.db.execute("SELECT * FROM dirent WHERE parent = ?", (fid,)).fetchall() == below

    @precondition(lambda self: hasattr(self, "db"))
    @rule(data=st.data())
    def replace_a_directory_by_a_file(self, data) -> None:
        rows = self.db.execute(
            "SELECT parent, name FROM dirent WHERE type = 2 AND parent > 0"
        ).fetchall()
        if rows:
            parent, name = data.draw(st.sampled_from(rows))
            intent = self.fresh(parent, name, FILE)
            assert not self.apply([intent]).dropped
            assert self.entry(parent, name) == intent.fid

    # -- what always holds -----------------------------------------------------------------------

    def entry(self, parent: int, name: bytes) -> int | None:
        row = self.db.execute(
            "SELECT fid FROM dirent WHERE parent = ? AND name = ?", (parent, name)
        ).fetchone()
        return None if row is None else row[0]

    def is_within(self, directory: int, fid: int) -> bool:
        while directory > 0:
            if directory == fid:
                return True
            (directory,) = self.db.execute(
                "SELECT parent FROM dirent WHERE fid = ?", (directory,)
            ).fetchone()
        return False

    @invariant()
    def the_records_are_the_tables(self) -> None:
        if not hasattr(self, "db"):
            return
        expected = {SOURCE_KEY: self.replayed.get(SOURCE_KEY)}
        for parent, name, fid, kind in self.db.execute("SELECT * FROM dirent"):
            public = parent if parent > 0 else ROOT_FID
            expected[dirent_key(public, name)] = msgspec.msgpack.encode(Dirent(fid, kind))
        for fid, version in self.db.execute("SELECT fid, version FROM node"):
            expected[version_key(fid)] = version
        assert self.replayed == expected

    @invariant()
    def the_sum_is_the_sum(self) -> None:
        if hasattr(self, "db"):
            total = sum(state_sum.term(key, value) for key, value in self.replayed.items())
            assert state_sum.to_bytes(total) == state_sum.to_bytes(self.state.total)
            assert self.state.key_count == len(self.replayed)
            (names,) = self.db.execute("SELECT count(*) FROM dirent").fetchone()
            assert self.state.more_names == names

    @invariant()
    def nothing_is_orphaned(self) -> None:
        if not hasattr(self, "db"):
            return
        entries = {}
        nodes = dict(self.db.execute("SELECT fid, type FROM node"))
        for key, value in self.replayed.items():
            place = parse_dirent_key(key)
            if place is not None:
                entries[place] = msgspec.msgpack.decode(value, type=Dirent)
            else:
                assert key == SOURCE_KEY or parse_version_key(key) in nodes
        counts = dict.fromkeys(nodes, 0)
        children: dict[int, list[int]] = {}
        for (parent, _), entry in entries.items():
            counts[entry.fid] += 1
            children.setdefault(parent, []).append(entry.fid)
            assert parent == ROOT_FID or nodes[parent] == DIRECTORY
        assert all(counts.values()), "a file without a name"
        assert all(n == 1 for fid, n in counts.items() if nodes[fid] == DIRECTORY)
        links = dict(self.db.execute("SELECT fid, links FROM node"))
        assert links == counts
        reached, stack = set(), [int(ROOT_FID)]
        while stack:
            for fid in children.get(stack.pop(), []):
                if fid not in reached:
                    reached.add(fid)
                    stack.append(fid)
        assert reached == nodes.keys(), "something cannot be reached"

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()


TestTree = TreeMachine.TestCase
TestTree.settings = settings(stateful_step_count=20)
