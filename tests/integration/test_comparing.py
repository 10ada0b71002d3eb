"""A tree is compared with what was captured: by one process or several, they say the same."""

import asyncio
import itertools
import os
import random
from pathlib import Path

import msgspec
import pytest

from streamd.catalog.db import Catalog
from streamd.catalog.tree import Intent, TreeWriter, load_source
from streamd.catalog.walk import WalkLookup
from streamd.daemon import comparer
from streamd.daemon.compare_worker import Task
from streamd.daemon.comparer import Comparer
from streamd.effects import SystemClock
from streamd.model import names as names_module
from streamd.model.ids import SourceId
from streamd.pipeline.comparing import Comparison, Kind
from streamd.sources.filesystem import listing as listing_module
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.listing import Examiner
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope


class Captured:
    """A tree, and a catalog that says that it was captured as it is now."""

    def __init__(self, directory: Path, tree: Path, *, exclude: tuple[str, ...] = ()) -> None:
        self.roots = (os.fsencode(tree),)
        self.exclude = exclude
        scope = TreeScope(self.roots, rules=ExcludeRules(exclude))
        self.examiner = Examiner(
            scope,
            one_file_system=False,
            max_file_size=None,
            answering=Answering(SystemClock()),
        )
        self.catalog = Catalog(str(directory))
        self.state = self.catalog.write_now(load_source, "tree", SourceId(bytes(16)))
        self.catalog.write_now(self._record)
        self.lookup = WalkLookup(self.catalog.open_reader(), self.state.number)

    def _record(self, connection) -> None:
        fids = itertools.count(1000)
        intents, todo = [], [(b"", -self.state.number)]
        while todo:
            directory, parent = todo.pop()
            for name, stat in sorted(self.examiner.examine(directory, None).entries.items()):
                fid = next(fids)
                path = name if not directory else directory + b"/" + name
                intents.append(Intent(parent, name, fid, stat, b"version", False, True))
                if stat.type == 2:
                    todo.append((path, fid))
        writer = TreeWriter(connection, self.state)
        writer.apply(intents)
        assert not writer.finish()
        assert not writer.dropped

    def differences(self, *scopes: bytes, part: int = 0, parts: int = 1) -> set[tuple[bytes, int]]:
        """Return what differs, which is the same whoever leaves out what does not."""
        results = []
        for examine_known in (None, lambda path, known: self.examiner.examine(path, None, known)):
            comparison = Comparison(
                self.examiner.examine,
                self.lookup,
                self.roots,
                part=part,
                parts=parts,
                examine_known=examine_known,
            )
            found = itertools.chain.from_iterable(comparison.differences(scopes or self.roots))
            differences = {(each.path, each.kind) for each in found}
            results.append((differences, comparison.entry_count, comparison.seen))
        assert results[0] == results[1]
        return results[0][0]

    def task(self, scopes, is_gentle) -> Task:
        return Task(
            catalog=self.catalog.path,
            source=self.state.number,
            roots=self.roots,
            exclude=self.exclude,
            tags=(),
            ignored=(),
            one_file_system=False,
            max_file_size=None,
            scopes=tuple(scopes),
            part=0,
            parts=1,
            joins_wals=False,
            is_gentle=is_gentle,
        )


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "tree"
    rng = random.Random(7)
    directories = [tree]
    tree.mkdir()
    for number in range(40):
        parent = rng.choice(directories)
        (parent / f"d{number}").mkdir()
        directories.append(parent / f"d{number}")
    for number in range(200):
        (rng.choice(directories) / f"f{number}").write_text(str(number))
    (tree / "d0/inner/deep").mkdir(parents=True)
    (tree / "d0/inner/deep/f").write_text("x")
    return tree


@pytest.fixture
def captured(tmp_path, tree):
    (tmp_path / "state").mkdir()
    captured = Captured(tmp_path / "state", tree)
    yield captured
    captured.catalog.close()


def change(tree: Path) -> set[tuple[bytes, int]]:
    """Change the tree; return what a comparison has to say, without directories' own times."""
    (tree / "new").write_text("x")
    (tree / "d0/newdir/below").mkdir(parents=True)
    (tree / "d0/inner/deep/f").write_text("other")
    (tree / "d0/inner/deep").chmod(0o700)
    gone = next(path for path in sorted(tree.rglob("f1*")) if path.is_file())
    gone.unlink()
    return {
        (os.fsencode(tree / "new"), Kind.NEW),
        (os.fsencode(tree / "d0/newdir"), Kind.NEW),
        (os.fsencode(tree / "d0/inner/deep/f"), Kind.CHANGED),
        (os.fsencode(tree / "d0/inner/deep"), Kind.DIRECTORY),
        (os.fsencode(gone), Kind.GONE),
    }


def test_nothing_differs_right_after_a_capture(captured):
    assert captured.differences() == set()


def test_every_change_is_found_and_nothing_else(captured, tree):
    wanted = change(tree)
    found = captured.differences()
    assert wanted <= found
    assert {kind for _, kind in found - wanted} <= {Kind.DIRECTORY}
    assert {path for path, kind in found - wanted} <= {
        os.path.dirname(path) for path, kind in wanted
    }


@pytest.mark.parametrize("parts", [2, 3])
def test_several_parts_say_together_what_one_says(captured, tree, parts):
    change(tree)
    whole = captured.differences()
    shares = [captured.differences(part=part, parts=parts) for part in range(parts)]
    assert set().union(*shares) == whole
    assert all(shares)


def test_only_the_scope_is_compared(captured, tree):
    change(tree)
    scope = os.fsencode(tree / "d0/inner")
    found = captured.differences(scope)
    assert {path for path, _ in found} == {scope + b"/deep", scope + b"/deep/f"}


def test_a_scope_that_the_catalog_does_not_know_is_a_place_to_look_at(captured, tree):
    scope = os.fsencode(tree / "nowhere/at/all")
    assert captured.differences(scope) == {(scope, Kind.NEW)}


def test_a_root_that_is_gone_or_empty_is_left_to_the_survey(captured, tree):
    tree.rename(tree.with_name("away"))
    assert captured.differences() == {(captured.roots[0], Kind.GONE)}
    tree.mkdir()
    found = captured.differences()
    assert {path for path, _ in found} == {captured.roots[0]}, "no child may be called deleted"


def test_a_directory_with_very_many_entries_is_compared_in_slices(captured, tree, monkeypatch):
    monkeypatch.setattr(listing_module, "LARGE_DIRECTORY", 0)
    monkeypatch.setattr(listing_module, "ENTRIES_MAX", 3)
    monkeypatch.setattr(names_module, "SLICE_NAMES", 2)
    assert captured.differences() == set()
    wanted = change(tree)
    assert wanted <= captured.differences()


@pytest.mark.asyncio
@pytest.mark.parametrize("second", [10**9, 0])
async def test_worker_processes_find_the_same(captured, tree, monkeypatch, second):
    change(tree)
    monkeypatch.setattr(comparer, "SECOND_ENTRIES_MIN", second)
    source = Examined(captured)
    compare = Comparer(source, captured.lookup, asyncio.Lock(), None, captured.task)
    result = await compare.run(captured.roots, size=10**6, is_gentle=True)
    assert result.processes == (2 if not second and (os.cpu_count() or 1) > 1 else 1)
    assert {(each.path, each.kind) for each in result.differences} == captured.differences()
    here = await compare.run(captured.roots, size=5, is_gentle=False)
    assert here.processes == 0
    assert sorted(here.differences) == sorted(result.differences)
    assert here.entry_count == result.entry_count


@pytest.mark.asyncio
async def test_the_daemon_does_it_itself_when_a_worker_fails(captured, tree):
    change(tree)

    def describe(scopes, is_gentle):
        task = captured.task(scopes, is_gentle)
        return msgspec.structs.replace(task, catalog="/nowhere/catalog.sqlite")

    compare = Comparer(Examined(captured), captured.lookup, asyncio.Lock(), None, describe)
    result = await compare.run(captured.roots, size=10**6, is_gentle=False)
    assert result.processes == 0
    assert {(each.path, each.kind) for each in result.differences} == captured.differences()


class Examined:
    """As much of a source as a comparison needs."""

    def __init__(self, captured: Captured) -> None:
        self.name, self.roots = "tree", captured.roots
        self.examine = captured.examiner.examine
