"""A model file system and its captured tree, side by side, without a pipeline in between.

one = Captured()
one.fs.create(...)
one.capture()                       # look everywhere, record everything
findings = one.look({b"/r/a": Depth.ENTRY})
one.record(findings)
"""

import itertools
import random
import sqlite3
from importlib import resources

import msgspec
from sim.scripted import ModelFs, Node, ScriptedSource

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.catalog.tree import Intent, TreeWriter, load_source
from streamd.catalog.walk import WalkLookup
from streamd.model.entry import EntryType
from streamd.pipeline.findings import Finding
from streamd.pipeline.survey import InFlight, Survey

REGULAR, DIRECTORY, SYMLINK = EntryType.REGULAR, EntryType.DIRECTORY, EntryType.SYMLINK


class Captured:
    """A tree, and what is known of it."""

    def __init__(self, roots: tuple[bytes, ...] = (b"/r",)) -> None:
        self.us = 1_000_000_000_000
        self.fs = ModelFs(self.tick, roots)
        self.source = ScriptedSource(
            self.fs, hasher=lambda data: data, now_us=self.tick, rng=random.Random(1)
        )
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema = resources.files("streamd.catalog").joinpath("schema.sql").read_text("utf-8")
        self.db.executescript(schema)
        self.state = load_source(self.db, "s", b"s" * 16)
        self.lookup = WalkLookup(self.db, self.state.number)
        self.in_flight = InFlight()
        self.fids = itertools.count(1000)

    @property
    def root(self) -> Node:
        return self.fs.top[self.fs.roots[0]]

    def tick(self) -> int:
        self.us += 10_000
        return self.us

    def survey(self, places: dict[bytes, int]) -> Survey:
        rows = [DirtyPlace(path, depth, self.us) for path, depth in places.items()]
        return Survey(self.source, self.lookup, self.in_flight, rows, lambda: next(self.fids))

    def look(self, places: dict[bytes, int]) -> list[Finding]:
        return list(self.survey(places).findings())

    def record(self, findings: list[Finding]) -> list[Intent]:
        """Commit findings as if everything could be read; returns what was dropped."""
        dropped = []
        for finding in findings:
            writer = TreeWriter(self.db, self.state)
            intents = [
                Intent(
                    found.parent,
                    found.name,
                    found.fid,
                    found.stat,
                    msgspec.msgpack.encode(list(found.stat)) if found.read else None,
                    again=False,
                    is_fresh=found.is_fresh,
                    generation=found.generation,
                )
                for found in finding.found
            ]
            writer.apply(sorted(intents, key=lambda intent: intent.version is None))
            for parent, name in finding.gone:
                writer.remove(parent, name)
            self.in_flight.settle([(found.parent, found.name) for found in finding.found])
            self.in_flight.settle(finding.gone)
            writer.finish()
            dropped += [*writer.dropped, *writer.unsure]
        return dropped

    def capture(self) -> list[Finding]:
        """Look everywhere and record everything."""
        findings = self.look(dict.fromkeys(self.fs.roots, Depth.SCAN))
        assert not self.record(findings)
        return findings

    def fid(self, path: bytes) -> int | None:
        """Return the fid of a captured path."""
        for root in self.fs.roots:
            if path == root or path.startswith(root + b"/"):
                names = [root, *filter(None, path[len(root) :].split(b"/"))]
                at: int | None = self.lookup.root
                for name in names:
                    row = self.lookup.named(at, [name]).get(name) if at is not None else None
                    at = row.fid if row else None
                return at
        return None

    def paths(self) -> set[bytes]:
        """Return all captured paths."""
        rows = self.db.execute("SELECT fid FROM node").fetchall()
        return {path for (fid,) in rows for path in self.lookup.paths_of(fid)}


def tree(one: Captured) -> None:
    docs = one.fs.create(one.root, b"docs", DIRECTORY, mode=0o755)
    one.fs.create(docs, b"a", REGULAR, b"aaa")
    one.fs.create(docs, b"b", REGULAR, b"bbb")
    one.fs.create(one.root, b"link", SYMLINK, b"docs")


def found_paths(findings) -> list[bytes]:
    return [found.path for finding in findings for found in finding.found]


def gone(findings) -> list[tuple[int, bytes]]:
    return [entry for finding in findings for entry in finding.gone]


def again(findings) -> dict[bytes, int]:
    return {place.path: place.depth for finding in findings for place in finding.deferred}
