"""Handles that take their time: the loop goes on, nothing is lost, and nobody else waits."""

import asyncio
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from watch_tools import Watched, make_source, tmpfs, watching

from streamd.effects import SystemClock
from streamd.sources.filesystem import devicewatch, fanotify, mountwatch
from streamd.sources.filesystem.handles import Answer, Question, answer_to
from streamd.sources.filesystem.kept import KeptGroups
from streamd.sources.filesystem.mountwatch import MountWatch

pytestmark = [pytest.mark.root, pytest.mark.asyncio]
HELD_SECONDS = 1.5
DEEP = 1000  # directories of five bytes: more than a path can have
LATE_MAX_SECONDS = 0.7  # of a loop with nothing to do, on a machine with much to do


class Disk:
    """Answers when it is let, like a file system whose server went away; and says when asked."""

    def __init__(self, point: bytes) -> None:
        self._point = point
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.answers.set()
        self.is_broken = False

    def look_up(self, question: Question) -> Answer:
        if any(mount.point == self._point for mount, _ in question.mounts):
            self.asked.set()
            assert self.answers.wait(30)
            if self.is_broken:
                raise RuntimeError("nobody has thought of this")
        return answer_to(question)

    def hang(self) -> None:
        self.asked.clear()
        self.answers.clear()


@pytest.fixture
def disk(tmp_path):
    with tmpfs(tmp_path / "disk") as point:
        (point / "tree").mkdir()
        yield point


@pytest.fixture
def tree(disk):
    return disk / "tree"


@pytest.fixture
def slow(disk):
    slow = Disk(os.fsencode(disk))
    yield slow
    slow.answers.set()


def watch_with(look_up: Callable[[Question], Answer], **options) -> MountWatch:
    return MountWatch(SystemClock(), ignored_pid=0, look_up=look_up, **options)


async def asked(slow: Disk) -> None:
    async with asyncio.timeout(60):
        while not slow.asked.is_set():
            await asyncio.sleep(0.01)


async def latest(seconds: float) -> float:
    """Return by how much the loop was late at worst, in so many seconds."""
    worst, until = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < until:
        await asyncio.sleep(0.01)
        worst = max(worst, time.monotonic() - before - 0.01)
    return worst


async def test_the_loop_goes_on_while_a_handle_is_looked_up(tree, slow):
    source = make_source(tree, mount_watch=watch_with(slow.look_up))
    async with watching(source) as watched:
        slow.hang()
        (tree / "f").write_text("x")
        seen = asyncio.ensure_future(watched.names(tree))
        await asked(slow)
        assert await latest(HELD_SECONDS) < LATE_MAX_SECONDS
        assert not seen.done(), "the watermark went past a change that nobody was told of"
        slow.answers.set()
        assert await seen == {"f"}


async def test_a_hung_file_system_does_not_hold_up_another_one(tmp_path, tree, slow):
    shared = watch_with(slow.look_up)
    with tmpfs(tmp_path / "other") as other:
        one, two = (make_source(each, mount_watch=shared) for each in (tree, other))
        async with watching(one), watching(two) as watched:
            slow.hang()
            (tree / "f").write_text("x")
            await asked(slow)
            (other / "g").write_text("x")
            assert await watched.names(other) == {"g"}


async def test_one_source_on_two_file_systems_hears_of_the_one_that_answers(tree, slow):
    with tmpfs(tree / "inner") as inner:
        source = make_source(tree, mount_watch=watch_with(slow.look_up))
        batches = source.watch()
        began = (await anext(batches)).drained_us
        slow.hang()
        (tree / "f").write_text("x")
        await asked(slow)
        (inner / "g").write_text("x")
        paths, drained_us = set(), 0
        async with asyncio.timeout(60):
            while os.fsencode(inner / "g") not in paths:
                batch = await anext(batches)
                paths |= batch.paths.keys()
                drained_us = batch.drained_us
        assert os.fsencode(tree / "f") not in paths
        assert began <= drained_us < SystemClock().now_us() - 100_000
        slow.answers.set()
        assert await Watched(batches).names(tree) == {"f"}
        await batches.aclose()


async def test_what_is_renamed_while_handles_are_looked_up_is_followed(tree, slow):
    (tree / "a").mkdir()
    source = make_source(tree, mount_watch=watch_with(slow.look_up))
    async with watching(source) as watched:
        (tree / "a/f").write_text("1")
        assert await watched.names(tree) == {"a/f"}  # and now the path of a is remembered
        slow.hang()
        (tree / "new").write_text("asks")
        await asked(slow)
        (tree / "a").rename(tree / "z")
        (tree / "z/f").write_text("2")
        (tree / "z/g").write_text("3")
        slow.answers.set()
        assert await watched.names(tree) == {"new", "a", "z", "z/f", "z/g"}


async def test_a_source_that_comes_while_handles_are_looked_up_is_told_too(disk, tree, slow):
    (disk / "out").mkdir()
    shared = watch_with(slow.look_up)
    one, two = (make_source(each, mount_watch=shared) for each in (tree, disk / "out"))
    async with watching(one) as first:
        slow.hang()
        (tree / "f").write_text("x")
        await asked(slow)
        async with watching(two) as second:
            (disk / "out/g").write_text("x")
            slow.answers.set()
            assert await second.names(disk) == {"out/g"}
            assert await first.names(disk) == {"tree/f"}


async def test_what_cannot_be_looked_up_is_a_gap(tree, slow):
    source = make_source(tree, mount_watch=watch_with(slow.look_up))
    async with watching(source) as watched:
        slow.is_broken = True
        (tree / "f").write_text("x")
        batch = await watched.seen()
        assert (batch.gap, batch.scope) == ("overflow", os.fsencode(tree))
        slow.is_broken = False
        (tree / "g").write_text("x")
        assert await watched.names(tree) == {"g"}


async def test_a_look_up_that_hangs_is_said(tree, slow, monkeypatch, capsys):
    monkeypatch.setattr(devicewatch, "_SLOW_SECONDS", 0.2)
    source = make_source(tree, mount_watch=watch_with(slow.look_up))
    async with watching(source) as watched:
        slow.hang()
        (tree / "f").write_text("x")
        await asked(slow)
        await asyncio.sleep(1)
        slow.answers.set()
        assert await watched.names(tree) == {"f"}
    assert "watch-waits" in "".join(capsys.readouterr())


async def test_the_end_does_not_wait_for_what_hangs_and_says_what_is_lost(tree, slow, monkeypatch):
    monkeypatch.setattr(mountwatch, "_LAST_SECONDS", 0.3)
    shared = watch_with(slow.look_up)
    batches = make_source(tree, mount_watch=shared).watch()
    await anext(batches)
    slow.hang()
    (tree / "f").write_text("x")
    await asked(slow)
    async with asyncio.timeout(60):
        await shared.end()
        gaps = [batch.gap async for batch in batches]
    assert "overflow" in gaps


async def test_the_end_delivers_what_is_looked_up_in_time(tree, slow):
    shared = watch_with(slow.look_up)
    batches = make_source(tree, mount_watch=shared).watch()
    await anext(batches)
    slow.hang()
    (tree / "f").write_text("x")
    await asked(slow)
    (tree / "g").write_text("behind it in the queue")
    asyncio.get_running_loop().call_later(0.3, slow.answers.set)
    paths = set()
    async with asyncio.timeout(60):
        await shared.end()
        async for batch in batches:
            assert not batch.gap
            paths |= batch.paths.keys()
    assert paths == {os.fsencode(tree / "f"), os.fsencode(tree / "g")}


async def test_watching_may_end_before_all_sources_have_come(tree):
    """What an earlier process left in a queue is not read then, and stays for the next one."""
    kept: dict[str, list[int]] = {}

    class Manager:
        def store_fd(self, name: str, fd: int) -> bool:
            kept[name] = [os.dup(fd)]
            return True

        def forget_fd(self, name: str) -> bool:
            return True

    first = watch_with(answer_to, kept=KeptGroups(Manager()))
    async with watching(make_source(tree, mount_watch=first)):
        await first.end()
    second = watch_with(answer_to, kept=KeptGroups(Manager(), kept))
    second.expected = 2
    (tree / "between").write_text("x")
    batches = make_source(tree, mount_watch=second).watch()
    begin = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0.1)
    await second.end()
    second._begun.set()
    assert (await begin).resumed
    async with asyncio.timeout(60):
        assert not [path async for batch in batches for path in batch.paths]


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_while_handles_take_their_time_is_reported(tree, seed):
    chance = random.Random(seed)

    def look_up(question: Question) -> Answer:
        time.sleep(chance.random() * 0.02)
        return answer_to(question)

    def change(done: random.Random) -> None:
        folders = [tree]
        for number in range(400):
            folder = done.choice(folders)
            if done.random() < 0.2:
                (folder / f"d{number}").mkdir()
                folders.append(folder / f"d{number}")
            elif done.random() < 0.2 and folder != tree:
                target = tree / f"r{number}"
                folder.rename(target)
                folders = [each for each in folders if folder not in (each, *each.parents)]
                folders.append(target)
            else:
                (folder / f"f{number}").write_text("x")
            time.sleep(done.random() * 0.003)

    source = make_source(tree, mount_watch=watch_with(look_up))
    async with watching(source) as watched:
        await asyncio.to_thread(change, random.Random(seed + 100))
        batch = await watched.seen()
    assert batch.gap == ""
    deep = {path for path, is_deep in batch.paths.items() if is_deep}
    for folder, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(folder, name)
            above = path
            while above not in batch.paths and above != os.fsencode(tree):
                above = os.path.dirname(above)
                if above in deep:
                    break
            else:
                assert path in batch.paths, path


async def test_a_flood_elsewhere_that_never_ends_holds_nothing_up(disk, tree, monkeypatch):
    elsewhere = disk / "elsewhere"
    elsewhere.mkdir()
    read, counts = fanotify.Group.read, {"reads": 0}

    def flooded(group: fanotify.Group) -> list[fanotify.Event]:
        counts["reads"] += 1
        (elsewhere / f"f{counts['reads'] % 50}").write_text("x")  # there is always one more
        return read(group)

    source = make_source(tree, mount_watch=watch_with(answer_to))
    async with watching(source) as watched:
        monkeypatch.setattr(fanotify.Group, "read", flooded)
        for number in range(3):
            (tree / f"g{number}").write_text("x")
            seen = await watched.seen()
            assert set(seen.paths) == {os.fsencode(tree / f"g{number}")}
            assert not seen.gap
        assert counts["reads"] > 10


async def test_what_happens_too_deep_to_be_said_is_asked_once_if_nobody_protects_it(disk, tree):
    asked = []

    def counting(question: Question) -> Answer:
        asked.extend(question.directories)
        return answer_to(question)

    source = make_source(tree, mount_watch=watch_with(counting))
    async with watching(source) as watched:
        fd = os.open(disk, os.O_RDONLY)
        try:
            for _ in range(DEEP):
                os.mkdir("deep", dir_fd=fd)
                below = os.open("deep", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                fd = below
            await watched.seen()
            for number in range(3):
                asked.clear()
                os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
                assert not (await watched.seen()).paths
            assert asked == []
        finally:
            os.close(fd)
        subprocess.run(["rm", "-r", str(disk / "deep")], check=True)
