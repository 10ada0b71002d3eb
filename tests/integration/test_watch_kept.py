"""Watches that outlive the process: what happens between two daemons is delivered to the second."""

import asyncio
import contextlib
import os
import subprocess

import pytest
from watch_tools import make_source, mounted, tmpfs

from streamd.effects import SystemClock
from streamd.sources.filesystem.fanotify import watches
from streamd.sources.filesystem.kept import KeptGroups
from streamd.sources.filesystem.mountwatch import MountWatch

pytestmark = [pytest.mark.root, pytest.mark.asyncio]


class Manager:
    """Keeps descriptors like systemd does."""

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {}

    def store_fd(self, name: str, fd: int) -> bool:
        self.kept.setdefault(name, []).append(os.dup(fd))
        return True

    def forget_fd(self, name: str) -> bool:
        for fd in self.kept.pop(name, []):
            os.close(fd)
        return True

    def hand_over(self) -> dict[str, list[int]]:
        """Return what the next process is given: duplicates, for the manager keeps its own."""
        return {name: [os.dup(fd) for fd in fds] for name, fds in self.kept.items()}


@pytest.fixture
def manager():
    manager = Manager()
    yield manager
    for name in list(manager.kept):
        manager.forget_fd(name)


@pytest.fixture
def disk(tmp_path):
    with tmpfs(tmp_path / "disk") as point:
        for name in ("one", "two"):
            (point / name).mkdir()
        yield point


def process(manager: Manager, expected: int = 1) -> MountWatch:
    """The watches of one process."""
    shared = MountWatch(SystemClock(), ignored_pid=0, kept=KeptGroups(manager, manager.hand_over()))
    shared.expected = expected
    return shared


async def until_the_end(shared: MountWatch, *trees, work=lambda: None, late=lambda: None):
    """Watch from begin to end of one process; return the first batches and all reported paths."""
    sources = [make_source(tree, mount_watch=shared) for tree in trees]
    seen: list[set[str]] = [set() for _ in trees]
    firsts = [None for _ in trees]
    began = asyncio.Event()
    count = 0

    async def follow(number: int) -> None:
        nonlocal count
        root = trees[number]
        async with contextlib.aclosing(sources[number].watch()) as batches:
            async for batch in batches:
                if firsts[number] is None:
                    firsts[number] = batch
                    count += 1
                    if count == len(trees):
                        began.set()
                assert not batch.gap
                seen[number] |= {os.path.relpath(os.fsdecode(path), root) for path in batch.paths}

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(len(trees)):
            group.create_task(follow(number))
        await began.wait()
        work()
        await shared.end()
        late()
    return firsts, seen


async def test_what_happens_between_two_processes_is_delivered(manager, disk):
    tree = disk / "one"
    (first,), (seen,) = await until_the_end(
        process(manager),
        tree,
        work=lambda: (tree / "before").write_text("1"),
        late=lambda: (tree / "after-the-last-read").write_text("2"),
    )
    assert not first.resumed
    assert seen == {"before"}
    (tree / "between").write_text("3")
    (second,), (seen,) = await until_the_end(process(manager), tree)
    assert second.resumed
    assert second.trees == first.trees
    assert seen == {"after-the-last-read", "between"}
    (third,), (seen,) = await until_the_end(process(manager), tree)
    assert third.resumed
    assert seen == set()


async def test_sources_of_one_file_system_all_get_what_waited(manager, disk):
    trees = disk / "one", disk / "two"
    await until_the_end(process(manager, 2), *trees)
    assert len(manager.kept) == 1
    for tree in trees:
        (tree / "f").write_text("x")
    firsts, seen = await until_the_end(process(manager, 2), *trees)
    assert [first.resumed for first in firsts] == [True, True]
    assert seen == [{"f"}, {"f"}]


async def test_a_source_that_comes_late_is_not_resumed(manager, disk):
    await until_the_end(process(manager, 2), disk / "one", disk / "two")
    shared = process(manager, 1)  # the other one is new to this process
    (first,), _ = await until_the_end(shared, disk / "one")
    assert first.resumed
    shared = process(manager, 1)
    one, two = (make_source(disk / name, mount_watch=shared) for name in ("one", "two"))
    async with contextlib.aclosing(one.watch()) as batches:
        assert (await anext(batches)).resumed
        async with contextlib.aclosing(two.watch()) as late:
            assert not (await anext(late)).resumed


async def test_a_file_system_that_was_unmounted_meanwhile_is_not_resumed(manager, tmp_path):
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        (first,), _ = await until_the_end(process(manager), disk)
        assert not first.resumed
        subprocess.run(["umount", disk], check=True)  # the kept descriptor does not hold it
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        (disk / "f").write_text("nobody was told")
        (second,), _ = await until_the_end(process(manager), disk)
        assert not second.resumed


async def test_other_mounts_than_before_make_another_fingerprint(manager, disk):
    tree = disk / "one"
    (tree / "inner").mkdir()
    (first,), _ = await until_the_end(process(manager), tree)
    with tmpfs(tree / "inner"):
        (second,), _ = await until_the_end(process(manager), tree)
    assert first.trees != second.trees
    assert not second.resumed  # nobody watched the new one


async def test_what_nobody_watches_any_more_is_let_go(manager, disk, tmp_path):
    with tmpfs(tmp_path / "other") as other:
        await until_the_end(process(manager, 2), disk / "one", other)
        assert len(manager.kept) == 2
        await until_the_end(process(manager), disk / "one")
        assert len(manager.kept) == 1


async def test_a_descriptor_without_a_mark_does_not_count(manager, disk):
    fd = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not watches(fd, os.stat(disk).st_dev)
    finally:
        os.close(fd)
