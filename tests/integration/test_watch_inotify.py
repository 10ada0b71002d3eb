"""The fallback watchers: inotify where fanotify is not possible, polling where nothing is."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from watch_tools import make_source, watching

from streamd.sources.filesystem import inotify

pytestmark = pytest.mark.asyncio
FALLBACK = ("inotify", "polling")


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "tree"


def watched_by_inotify(*roots, **options):
    return watching(make_source(*roots, watch_modes=FALLBACK, **options))


async def test_a_tree_is_watched_with_its_directories(tree):
    (tree / "a/b").mkdir(parents=True)
    source = make_source(tree, watch_modes=FALLBACK)
    async with watching(source) as watched:
        assert source.watch_modes == {os.fsencode(tree): "inotify"}
        (tree / "a/b/f").write_text("x")
        (tree / "g").write_text("x")
        assert await watched.names(tree) == {"a/b/f", "g"}
        (tree / "g").chmod(0o600)
        assert await watched.names(tree) == {"g"}
        (tree / "g").unlink()
        assert await watched.names(tree) == {"g"}


async def test_new_directories_are_deep_and_watched(tree):
    async with watched_by_inotify(tree) as watched:
        (tree / "a/b/c").mkdir(parents=True)
        (tree / "a/b/c/f").write_text("at once")
        batch = await watched.seen()
        assert batch.paths[os.fsencode(tree / "a")] is True
        (tree / "a/b/c/f").write_text("later")
        assert await watched.names(tree) == {"a/b/c/f"}


async def test_events_below_a_renamed_directory_have_the_new_path(tree):
    (tree / "a/b").mkdir(parents=True)
    async with watched_by_inotify(tree) as watched:
        (tree / "a").rename(tree / "z")
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree / "a"): True, os.fsencode(tree / "z"): True}
        (tree / "z/b/f").write_text("x")
        assert await watched.names(tree) == {"z/b/f"}


async def test_moving_in_is_deep_and_moving_out_ends(tree):
    outside = tree.parent / "out"
    (outside / "d/e").mkdir(parents=True)
    async with watched_by_inotify(tree) as watched:
        (outside / "d").rename(tree / "d")
        assert (await watched.seen()).paths == {os.fsencode(tree / "d"): True}
        (tree / "d/e/f").write_text("x")
        assert await watched.names(tree) == {"d/e/f"}
        (tree / "d").rename(outside / "d")
        assert await watched.names(tree) == {"d"}
        await watched.seen()
        await watched.seen()
        (outside / "d/e/f").write_text("not ours any more")
        assert not (await watched.seen()).paths


async def test_a_directory_made_anew_under_an_old_name_is_followed(tree):
    (tree / "d").mkdir()
    async with watched_by_inotify(tree) as watched:
        shutil.rmtree(tree / "d")
        (tree / "d").mkdir()
        assert "d" in await watched.names(tree)
        (tree / "d/g").write_text("2")
        assert await watched.names(tree) == {"d/g"}


async def test_the_root_itself_may_come_and_go(tree):
    async with watched_by_inotify(tree) as watched:
        tree.rmdir()
        assert await watched.names(tree) == {"."}
        tree.mkdir()
        (tree / "f").write_text("x")
        assert "." in await watched.names(tree)
        (tree / "f").write_text("y")
        assert await watched.names(tree) == {"f"}


async def test_a_root_that_is_a_file_is_watched(tree):
    (tree / "f").write_text("x")
    async with watched_by_inotify(tree / "f") as watched:
        (tree / "other").write_text("no")
        (tree / "f").write_text("1")
        assert await watched.names(tree) == {"f"}


async def test_excluded_directories_are_not_watched(tree):
    (tree / "cache/d").mkdir(parents=True)
    async with watched_by_inotify(tree, rules=("cache/", "*.tmp")) as watched:
        (tree / "cache/d/f").write_text("x")
        (tree / "a.tmp").write_text("x")
        (tree / "f").write_text("x")
        assert await watched.names(tree) == {"f"}


async def test_an_overflow_is_a_gap_and_watching_goes_on(tree):
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        limit = int(file.read())
    (tree / "f").touch()
    (tree / "g").touch()
    async with watched_by_inotify(tree) as watched:
        for _ in range(limit // 2 + 100):  # equal events in a row would be merged
            os.utime(tree / "f")
            os.utime(tree / "g")
        (tree / "unseen").mkdir()
        batch = await watched.seen()
        assert (batch.gap, batch.scope) == ("overflow", os.fsencode(tree))
        (tree / "unseen/f").write_text("seen")
        assert await watched.names(tree) == {"unseen/f"}


async def test_beyond_the_limit_of_watches_a_part_is_polled(tree, monkeypatch):
    (tree / "a/b").mkdir(parents=True)
    real = inotify._add_watch

    def limited(fd: int, path: bytes, mask: int) -> int:
        if path.endswith(b"/a"):
            inotify.ctypes.set_errno(errno.ENOSPC)
            return -1
        return real(fd, path, mask)

    monkeypatch.setattr(inotify, "_add_watch", limited)
    source = make_source(tree, watch_modes=FALLBACK, poll_seconds=0.05)
    async with watching(source) as watched:
        batch = await watched.seen()
        assert (batch.gap, batch.scope) == ("watch-limit", os.fsencode(tree / "a"))
        assert source.watch_modes == {os.fsencode(tree): "polling"}
        polled = source.watches[os.fsencode(tree / "a")]
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
        assert polled.mode == "polling"
        assert f"sysctl -w fs.inotify.max_user_watches={limit * 2}" in polled.why
        assert source.watches[os.fsencode(tree)].mode == "inotify"
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree / "a"): True}
        (tree / "f").write_text("x")
        assert "f" in await watched.names(tree)


async def test_polling_looks_at_everything_and_its_watermark_waits(tree):
    source = make_source(tree, watch_modes=("polling",), poll_seconds=0.5)
    async with watching(source) as watched:
        assert source.watch_modes == {os.fsencode(tree): "polling"}
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree): True}
