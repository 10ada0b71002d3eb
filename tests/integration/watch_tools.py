"""What the tests of watching share: a source under watch, and file systems of one's own."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from streamd.effects import SystemClock
from streamd.sources.filesystem.mountwatch import MountWatch
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import FilesystemSource
from streamd.sources.port import WatchBatch

MAKERS = {"ext4": ("-q", "-F"), "xfs": ("-q", "-f"), "btrfs": ("-q", "-f")}
DISK_BYTES = 512 << 20


class OneChunk:
    """A cutter for tests: everything is one chunk."""

    def cut(self, buffer: memoryview, *, final: bool) -> list[int]:
        return [len(buffer)] if final and len(buffer) else []


def make_source(*roots: Path | str, mount_watch=None, rules=(), **options) -> FilesystemSource:
    """Return a source; changes made by the test's own process are reported."""
    clock = SystemClock()
    return FilesystemSource(
        "test",
        tuple(os.fsencode(root) for root in roots),
        rules=ExcludeRules(rules),
        cutter=OneChunk(),
        hasher=lambda view: bytes(32),
        clock=clock,
        mount_watch=mount_watch or MountWatch(clock, ignored_pid=0),
        **options,
    )


class Watched:
    """A source under watch: do something, then ask what was reported."""

    def __init__(self, batches: AsyncIterator[WatchBatch]) -> None:
        self._batches = batches

    async def seen(self) -> WatchBatch:
        """Return all that is reported of what was done until now, as one batch."""
        until = SystemClock().now_us()
        total = WatchBatch()
        async for batch in self._batches:
            for path, deep in batch.paths.items():
                total.paths[path] = deep or total.paths.get(path, False)
            total.inodes |= batch.inodes
            total.event_count += batch.event_count
            assert batch.drained_us >= total.drained_us
            total.drained_us = batch.drained_us
            if batch.gap:
                total.gap, total.scope = batch.gap, batch.scope
            if batch.drained_us > until:
                return total
        raise AssertionError("the watch ended")

    async def names(self, root: Path) -> set[str]:
        """Return the reported paths relative to `root`."""
        batch = await self.seen()
        return {os.path.relpath(os.fsdecode(path), root) for path in batch.paths}


@contextlib.asynccontextmanager
async def watching(source: FilesystemSource) -> AsyncIterator[Watched]:
    """Watch `source`; the marks are in place inside."""
    async with contextlib.aclosing(source.watch()) as batches:
        first = await anext(batches)
        assert not first.paths
        assert first.drained_us
        async with asyncio.timeout(60):
            yield Watched(batches)


@contextlib.contextmanager
def mounted(point: Path, *arguments: str) -> Iterator[Path]:
    """Mount something at `point` for a while."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, str(point)], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


def tmpfs(point: Path):
    """Mount an empty tmpfs at `point`."""
    return mounted(point, "-t", "tmpfs", "-o", "size=256m", "none")


@contextlib.contextmanager
def new_disk(folder: Path, kind: str) -> Iterator[Path]:
    """Make a file system of this kind and mount it below `folder`; yield the mount point."""
    maker = shutil.which(f"mkfs.{kind}", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert maker, f"mkfs.{kind} is needed: apt-get install e2fsprogs xfsprogs btrfs-progs"
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run([maker, *MAKERS[kind], image], check=True, capture_output=True)
    with mounted(folder / "disk", "-o", "loop", str(image)) as point:
        yield point
