"""Whatever happens to a tree, what browsing says agrees with the states it is said of."""

import asyncio
import os
import random
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from vaultbuilder import VaultBuilder

from streamd.cli import diff, find, following
from streamd.cli.selection import Selection
from streamd.model.entry import EntryType
from streamd.model.record import dirent_key
from streamd.vault.state_reader import StateReader

TOP = b"/t"
NAMES = [b"a", b"b", b"c.txt", b"d.txt"]
COMMITS = 25


class Mutator:
    """Changes a tree at random, the way the engine records it."""

    def __init__(self, builder: VaultBuilder, seed: int) -> None:
        self.random = random.Random(seed)
        self.source = builder.source("t", TOP)
        self.source.directory(TOP)
        self.kinds = {TOP: EntryType.DIRECTORY}

    def step(self) -> None:
        directories = [p for p, kind in self.kinds.items() if kind == EntryType.DIRECTORY]
        parent = self.random.choice(directories)
        path = parent + b"/" + self.random.choice(NAMES)
        action = self.random.choice(["write", "write", "mkdir", "delete", "rename", "rename"])
        if action == "write" and self.kinds.get(path) in {None, EntryType.REGULAR}:
            self.kinds[path] = EntryType.REGULAR
            self.source.file(path, os.urandom(4), mtime_ns=self.random.randrange(1 << 50))
        elif action == "mkdir" and path not in self.kinds:
            self.kinds[path] = EntryType.DIRECTORY
            self.source.directory(path)
        elif action == "delete" and path in self.kinds:
            self.delete(path)
        elif action == "rename" and path in self.kinds:
            self.rename(path, self.random.choice(directories) + b"/" + self.random.choice(NAMES))

    def delete(self, path: bytes) -> None:
        for below in sorted(self.below(path), reverse=True):
            self.source.delete(below)
            del self.kinds[below]

    def below(self, path: bytes) -> list[bytes]:
        return [each for each in self.kinds if each == path or each.startswith(path + b"/")]

    def rename(self, old: bytes, new: bytes) -> None:
        if new == old or new.startswith(old + b"/"):
            return
        if new in self.kinds:
            if old in self.below(new):
                return
            self.delete(new)
        source = self.source
        old_key = dirent_key(*source.split(old))
        source.set(dirent_key(*source.split(new)), source.rows[old_key])
        source.drop(old_key)
        for path in self.below(old):
            moved = new + path[len(old) :]
            source.fids[moved] = source.fids.pop(path)
            self.kinds[moved] = self.kinds.pop(path)


@asynccontextmanager
async def history(seed: int):
    """Build a random history; lend (reader, instants, {path: (fid, version)} at each)."""
    builder = VaultBuilder()
    mutator = Mutator(builder, seed)
    instants, trees = [], []
    for number in range(COMMITS):
        at_us = builder.clock.us
        for _ in range(mutator.random.randrange(1, 6)):
            mutator.step()
        if builder.records:
            await builder.commit()
            if number % 6 == 5:
                await mutator.source.checkpoint()
                builder.tick()
            instants.append(at_us)
    reader = StateReader(builder.vault)
    for at_us in instants:
        with await reader.state_at("t", at_us) as state:
            trees.append({e.path: (e.dirent.fid, e.version) for e in state.walk() if e.path})
    yield reader, instants, trees


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(8))
async def test_a_difference_accounts_for_every_path(seed: int) -> None:
    async with history(seed) as (reader, instants, trees):
        for first, second in ((0, -1), (3, 4), (5, 12), (12, 5), (9, 9)):
            with (
                await reader.state_at("t", instants[first]) as old,
                await reader.state_at("t", instants[second]) as new,
            ):
                changes = diff.compare(old, new)
            assert replayed(trees[first], changes) == set(trees[second])
            for change in changes:
                if change.kind == "M" and change.path in trees[first]:
                    assert trees[first][change.path] != trees[second][change.path]
            said = {change.path for change in changes}
            for path in trees[first].keys() & trees[second].keys():
                before, after = trees[first][path], trees[second][path]
                if before[0] == after[0] and before[1].content != after[1].content:
                    assert path in said, f"{path} changed and diff is silent"


def replayed(tree: dict, changes: list[diff.Change]) -> set[bytes]:
    """Return the paths that are there when `changes` have been done to `tree`."""
    renames = {c.old_path: c.path for c in changes if c.kind == "R"}
    gone = {c.path for c in changes if c.kind == "-"}
    paths = {moved(path, renames) for path in tree if path not in gone}
    return paths | {change.path for change in changes if change.kind == "+"}


def moved(path: bytes, renames: dict[bytes, bytes]) -> bytes:
    """Where a path is after the renames: the nearest renamed directory above it decides."""
    above = path
    while above:
        if above in renames:
            return renames[above] + path[len(above) :]
        above = above.rpartition(b"/")[0]
    return path


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(8))
async def test_find_in_all_of_time_agrees_with_every_state(seed: int) -> None:
    async with history(seed) as (reader, instants, trees):
        for text in ("*.txt", "a", "*/a/*"):
            pattern, damage = find.Pattern(text), []
            found = [span async for span in find.spans(reader, "t", pattern, damage)]
            assert damage == []
            for at_us, tree in zip(instants, trees, strict=True):
                there = {
                    span.path
                    for span in found
                    if span.first_us <= at_us and (not span.gone_us or at_us < span.gone_us)
                }
                assert there == {path for path in tree if pattern.matches(path)}


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(8))
async def test_history_agrees_with_every_state(seed: int) -> None:
    async with history(seed) as (reader, instants, trees):
        source = await reader.find_source("t")
        for path in sorted({path for tree in trees for path in tree}):
            damage: list[str] = []
            chosen = Selection(source, path)
            found = [each async for each in following.follow(reader, chosen, damage)]
            for at_us, tree in zip(instants, trees, strict=True):
                last = [each for each in found if each.at_us <= at_us]
                is_there = bool(last) and last[-1].event not in {"deleted", "moved-out"}
                assert is_there == (path in tree), (path, found)
                if is_there and tree[path][1].type == EntryType.REGULAR:
                    assert last[-1].version == tree[path][1]
            for each in found:
                if each.event in {"moved-in", "moved-out"} and b"?" not in each.other:
                    number = instants.index(each.at_us)
                    there = trees[number - 1 if each.event == "moved-in" else number]
                    assert each.other in there, (each, path)


def test_the_oracle_sees_renames() -> None:
    """Without renames in the random histories the tests above would prove little."""

    async def count() -> int:
        total = 0
        async with history(3) as (reader, instants, _):
            for first, second in pairwise(instants):
                with (
                    await reader.state_at("t", first) as old,
                    await reader.state_at("t", second) as new,
                ):
                    total += sum(change.kind == "R" for change in diff.compare(old, new))
        return total

    assert asyncio.run(count()) >= 5
