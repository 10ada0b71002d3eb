"""The table of what fanotify reports, as the engine sees it."""

import asyncio
import ctypes
import mmap
import os
import shutil
import subprocess
import sys

import pytest
from watch_tools import make_source, mounted, tmpfs, watching

from streamd.effects import SystemClock
from streamd.sources.filesystem.mountwatch import MountWatch

pytestmark = [pytest.mark.root, pytest.mark.asyncio]
RENAME_EXCHANGE = 2


@pytest.fixture
def disk(tmp_path):
    with tmpfs(tmp_path / "disk") as point:
        (point / "tree").mkdir()
        (point / "out").mkdir()
        yield point


@pytest.fixture
def tree(disk):
    return disk / "tree"


def ident(path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


async def test_a_file_system_is_watched_by_one_mark(tree):
    source = make_source(tree)
    async with watching(source) as watched:
        assert source.watch_modes == {os.fsencode(tree): "fanotify"}
        (tree / "f").write_text("x")
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree / "f"): False}
        assert batch.gap == ""


async def test_nothing_happens_and_the_watermark_moves(tree):
    async with watching(make_source(tree)) as watched:
        batch = await watched.seen()
        assert not batch.paths
        assert not batch.inodes


async def test_writes_of_an_open_file_are_seen_without_a_close(tree):
    with (tree / "log").open("wb", buffering=0) as file:
        async with watching(make_source(tree)) as watched:
            for change in (
                lambda: file.write(b"a line"),
                lambda: os.posix_fallocate(file.fileno(), 0, 8192),
                lambda: os.ftruncate(file.fileno(), 3),
                lambda: os.truncate(tree / "log", 1),
            ):
                change()
                assert await watched.names(tree) == {"log"}


async def test_attributes_count(tree):
    (tree / "f").write_text("x")
    (tree / "link").symlink_to("f")
    async with watching(make_source(tree)) as watched:
        for change in (
            lambda: os.chmod(tree / "f", 0o600),
            lambda: os.chown(tree / "f", 1, 1),
            lambda: os.utime(tree / "f", (1, 1)),
            lambda: os.setxattr(tree / "f", "trusted.a", b"1"),
            lambda: os.removexattr(tree / "f", "trusted.a"),
        ):
            change()
            assert await watched.names(tree) == {"f"}
        os.chown(tree / "link", 1, 1, follow_symlinks=False)
        assert await watched.names(tree) == {"link"}
        os.chmod(tree, 0o711)
        assert await watched.names(tree) == {"."}


async def test_special_files_are_seen(tree):
    async with watching(make_source(tree)) as watched:
        os.mkfifo(tree / "pipe")
        os.mknod(tree / "null", 0o20600, os.makedev(1, 3))
        (tree / "link").symlink_to("nowhere")
        assert await watched.names(tree) == {"pipe", "null", "link"}


async def test_new_directories_are_deep(tree):
    async with watching(make_source(tree)) as watched:
        (tree / "a/b/c").mkdir(parents=True)
        (tree / "a/b/c/f").write_text("at once")
        batch = await watched.seen()
        assert batch.paths[os.fsencode(tree / "a")] is True
        assert batch.paths[os.fsencode(tree / "a/b/c")] is True
        assert batch.paths[os.fsencode(tree / "a/b/c/f")] is False


async def test_both_names_of_a_renamed_file_are_seen(tree):
    (tree / "d").mkdir()
    (tree / "f").write_text("x")
    async with watching(make_source(tree)) as watched:
        (tree / "f").rename(tree / "d/g")
        assert await watched.names(tree) == {"f", "d/g"}


async def test_events_below_a_renamed_directory_have_the_new_path(tree):
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/f").write_text("x")
    async with watching(make_source(tree)) as watched:
        (tree / "a/b/f").write_text("1")
        assert await watched.names(tree) == {"a/b/f"}  # and now the path of a/b is remembered
        (tree / "a").rename(tree / "z")
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree / "a"): True, os.fsencode(tree / "z"): True}
        (tree / "z/b/f").write_text("2")
        assert await watched.names(tree) == {"z/b/f"}


async def test_a_directory_made_anew_under_an_old_name_is_followed(tree):
    (tree / "d").mkdir()
    async with watching(make_source(tree)) as watched:
        (tree / "d/f").write_text("1")
        shutil.rmtree(tree / "d")
        (tree / "d").mkdir()
        (tree / "d/g").write_text("2")
        assert {"d", "d/g"} <= await watched.names(tree)


async def test_exchanged_names_are_both_seen(tree):
    for name in ("a", "b"):
        (tree / name).write_text(name)
    async with watching(make_source(tree)) as watched:
        libc = ctypes.CDLL(None)
        paths = os.fsencode(tree / "a"), os.fsencode(tree / "b")
        assert libc.renameat2(-100, paths[0], -100, paths[1], RENAME_EXCHANGE) == 0
        assert await watched.names(tree) == {"a", "b"}


async def test_moving_in_is_deep_and_moving_out_is_seen(disk, tree):
    (disk / "out/d/e").mkdir(parents=True)
    async with watching(make_source(tree)) as watched:
        (disk / "out/d").rename(tree / "d")
        batch = await watched.seen()
        assert batch.paths == {os.fsencode(tree / "d"): True}
        (tree / "d").rename(disk / "out/d")
        assert await watched.names(tree) == {"d"}
        (disk / "out/d/e/f").write_text("not ours any more")
        batch = await watched.seen()
        assert not batch.paths
        assert not batch.inodes


async def test_a_write_through_a_name_outside_reports_the_inode(disk, tree):
    (disk / "out/f").write_text("x")
    os.link(disk / "out/f", tree / "f")
    async with watching(make_source(tree)) as watched:
        (disk / "out/f").write_text("changed")
        batch = await watched.seen()
        assert not batch.paths
        assert batch.inodes == {ident(tree / "f")}


async def test_a_change_under_a_name_that_went_away_since_reports_the_inode(disk, tree):
    (tree / "d").mkdir()
    (tree / "d/f").write_text("x")
    os.link(tree / "d/f", tree / "g")
    async with watching(make_source(tree)) as watched:
        (tree / "d/other").touch()
        await watched.seen()
        (tree / "d/f").chmod(0o600)
        (tree / "d").rename(disk / "out/d")
        assert (await watched.seen()).inodes == {ident(tree / "g")}


async def test_a_file_outside_that_gets_a_second_name_is_noticed_again(disk, tree):
    (disk / "out/f").write_text("x")
    async with watching(make_source(tree)) as watched:
        (disk / "out/f").write_text("nobody's business, and remembered as such")
        assert not (await watched.seen()).inodes
        os.link(disk / "out/f", tree / "f")
        await watched.seen()
        (disk / "out/f").write_text("ours")
        assert (await watched.seen()).inodes == {ident(tree / "f")}


async def test_removing_one_name_reports_the_inode_of_the_others(disk, tree):
    (tree / "f").write_text("x")
    os.link(tree / "f", tree / "g")
    os.link(tree / "f", disk / "out/h")
    async with watching(make_source(tree)) as watched:
        (tree / "g").unlink()
        batch = await watched.seen()
        assert os.fsencode(tree / "g") in batch.paths
        assert batch.inodes == {ident(tree / "f")}
        (disk / "out/h").unlink()
        assert (await watched.seen()).inodes == {ident(tree / "f")}


async def test_removing_a_tree_reports_every_name(tree):
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/f").write_text("x")
    async with watching(make_source(tree)) as watched:
        shutil.rmtree(tree / "a")
        assert "a" in await watched.names(tree)


async def test_a_file_linked_after_it_was_made_without_a_name_is_seen(tree):
    async with watching(make_source(tree)) as watched:
        fd = os.open(tree, os.O_TMPFILE | os.O_WRONLY)
        source, target = b"/proc/self/fd/%d" % fd, os.fsencode(tree / "linked")
        assert ctypes.CDLL(None).linkat(-100, source, -100, target, 0x400) == 0
        assert "linked" in await watched.names(tree)
        os.write(fd, b"after")
        batch = await watched.seen()
        assert ident(tree / "linked") in batch.inodes or os.fsencode(tree / "linked") in batch.paths
        os.close(fd)


async def test_a_mapped_file_is_seen_when_its_descriptor_closes(tree):
    (tree / "m").write_bytes(bytes(8192))
    async with watching(make_source(tree)) as watched:
        fd = os.open(tree / "m", os.O_RDWR)
        with mmap.mmap(fd, 8192) as mapped:
            mapped[:3] = b"abc"
        os.close(fd)
        assert await watched.names(tree) == {"m"}


async def test_names_are_bytes(tree):
    async with watching(make_source(tree)) as watched:
        path = os.fsencode(tree) + b"/\xff\n\xfe"
        with open(path, "wb"):
            pass
        assert (await watched.seen()).paths == {path: False}


async def test_excluded_and_own_directories_are_silent(tree):
    for name in ("cache", "state", "plain"):
        (tree / name).mkdir()
    source = make_source(
        tree, rules=("*.tmp", "cache/"), ignore_paths=(os.fsencode(tree / "state"),)
    )
    async with watching(source) as watched:
        for name in ("a.tmp", "cache/f", "state/f", "plain/f"):
            (tree / name).write_text("x")
        (tree / "cache/d").mkdir()
        assert await watched.names(tree) == {"plain/f"}


async def test_a_write_through_an_excluded_name_reports_the_inode(tree):
    (tree / "f").write_text("x")
    os.link(tree / "f", tree / "f.tmp")
    async with watching(make_source(tree, rules=("*.tmp",))) as watched:
        (tree / "f.tmp").write_text("changed")
        assert (await watched.seen()).inodes == {ident(tree / "f")}


async def test_a_directory_that_becomes_tagged_is_looked_at_again(tree):
    (tree / "d").mkdir()
    async with watching(make_source(tree, exclude_if_present=(b".nobackup",))) as watched:
        (tree / "d/.nobackup").touch()
        assert (await watched.seen()).paths[os.fsencode(tree / "d")] is True


async def test_a_root_that_is_a_file_is_watched(tree):
    (tree / "f").write_text("x")
    async with watching(make_source(tree / "f")) as watched:
        (tree / "other").write_text("no")
        (tree / "f").write_text("1")
        assert await watched.names(tree) == {"f"}
        (tree / "new").write_text("2")
        (tree / "new").rename(tree / "f")
        assert await watched.names(tree) == {"f"}


async def test_a_root_that_appears_later_is_seen(tree):
    async with watching(make_source(tree / "a/later")) as watched:
        (tree / "a").mkdir()
        assert (await watched.seen()).paths == {os.fsencode(tree / "a/later"): True}
        (tree / "a/later").mkdir()
        (tree / "a/later/f").write_text("x")
        assert {"a/later", "a/later/f"} <= await watched.names(tree)


async def test_a_root_reached_through_a_link_keeps_its_configured_path(tree):
    (tree / "real/r").mkdir(parents=True)
    (tree / "way").symlink_to("real")
    async with watching(make_source(tree / "way/r")) as watched:
        (tree / "real/r/f").write_text("x")
        assert await watched.names(tree) == {"way/r/f"}


async def test_sources_share_the_mark_and_get_their_own_paths(disk, tree):
    shared = MountWatch(SystemClock(), ignored_pid=0)
    one, two = make_source(tree, mount_watch=shared), make_source(disk / "out", mount_watch=shared)
    async with watching(one) as first, watching(two) as second:
        assert len(shared._devices) == 1
        (tree / "f").write_text("1")
        (disk / "out/g").write_text("2")
        assert await second.names(disk) == {"out/g"}
        assert await first.names(disk) == {"tree/f"}
    assert not shared._devices


async def test_changes_of_our_own_process_are_not_reported(tree):
    source = make_source(tree, mount_watch=MountWatch(SystemClock()))
    async with watching(source) as watched:
        (tree / "f").write_text("ours")
        assert not (await watched.seen()).paths
        subprocess.run([sys.executable, "-c", "open('g', 'w')"], cwd=tree, check=True)
        assert await watched.names(tree) == {"g"}


async def test_a_directory_that_we_rename_ourselves_is_followed(tree):
    (tree / "a").mkdir()
    async with watching(make_source(tree, mount_watch=MountWatch(SystemClock()))) as watched:
        subprocess.run([sys.executable, "-c", "open('a/f', 'w')"], cwd=tree, check=True)
        assert await watched.names(tree) == {"a/f"}
        (tree / "a").rename(tree / "b")
        subprocess.run([sys.executable, "-c", "open('b/g', 'w')"], cwd=tree, check=True)
        assert await watched.names(tree) == {"b/g"}


async def test_an_overflow_is_a_gap_of_that_tree(tree):
    source = make_source(tree)
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        limit = int(file.read())
    async with watching(source) as watched:
        (tree / "d").mkdir()
        for number in range(limit + 100):  # the event loop does not run meanwhile
            os.close(os.open(f"{tree}/d/{number}", os.O_CREAT | os.O_WRONLY))
        batch = await watched.seen()
        assert batch.gap == "overflow"
        assert batch.scope == os.fsencode(tree)
        (tree / "after").write_text("still watching")
        assert "after" in await watched.names(tree)


async def test_a_bind_mount_elsewhere_writes_into_the_tree(disk, tree):
    (tree / "d").mkdir()
    with mounted(disk / "out/bind", "--bind", str(tree / "d")):
        async with watching(make_source(tree)) as watched:
            (disk / "out/bind/f").write_text("x")
            assert await watched.names(tree) == {"d/f"}


async def test_a_root_inside_a_bind_mount_is_watched_at_its_path(disk, tree):
    (tree / "d/r").mkdir(parents=True)
    with mounted(disk / "out/bind", "--bind", str(tree / "d")):
        async with watching(make_source(disk / "out/bind/r")) as watched:
            (tree / "d/r/f").write_text("x")
            assert await watched.names(disk) == {"out/bind/r/f"}


async def test_what_is_mounted_into_the_tree_is_watched_and_rescanned(tree):
    async with watching(make_source(tree)) as watched:
        with tmpfs(tree / "m"):
            batch = await watched.seen()
            assert batch.gap == "mount-changed"
            assert batch.scope == os.fsencode(tree / "m")
            (tree / "m/f").write_text("x")
            assert await watched.names(tree) == {"m/f"}
        batch = await watched.seen()
        assert batch.gap == "mount-changed"
        assert batch.scope == os.fsencode(tree / "m")


async def test_a_mount_above_the_root_makes_it_another_tree(tree):
    root = tree / "m/r"
    root.mkdir(parents=True)
    async with watching(make_source(root)) as watched:
        with tmpfs(tree / "m"):
            batch = await watched.seen()
            assert (batch.gap, batch.scope) == ("mount-changed", os.fsencode(root))
            root.mkdir()
            (root / "f").write_text("x")
            assert "m/r" in await watched.names(tree)


async def test_a_mount_below_the_root_is_watched_from_the_start(tree):
    with tmpfs(tree / "m"):
        async with watching(make_source(tree)) as watched:
            (tree / "m/f").write_text("x")
            assert await watched.names(tree) == {"m/f"}


async def test_one_file_system_means_one(tree):
    with tmpfs(tree / "m"):
        async with watching(make_source(tree, one_file_system=True)) as watched:
            (tree / "m/f").write_text("x")
            assert not (await watched.seen()).paths


async def test_a_watched_file_system_can_be_unmounted(disk, tree):
    with tmpfs(tree / "m"):
        async with watching(make_source(tree)) as watched:
            (tree / "m/f").write_text("x")
            await watched.seen()
            subprocess.run(["umount", str(tree / "m")], check=True)


async def test_a_burst_arrives_in_bounded_batches(tree):
    async with watching(make_source(tree)) as watched:
        for number in range(5000):
            os.close(os.open(f"{tree}/{number}", os.O_CREAT | os.O_WRONLY))
        assert len((await watched.seen()).paths) == 5000


@pytest.mark.parametrize("where", ["tree", "out"])
async def test_events_that_follow_each_other_closely_are_read_together(disk, tree, where):
    shared = MountWatch(SystemClock(), ignored_pid=0)
    async with watching(make_source(tree, mount_watch=shared)) as watched:
        (group,) = (device.group for device in shared._devices.values())
        read, reads = group.read, 0

        def counted():
            nonlocal reads
            reads += 1
            return read()

        group.read = counted
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(400):
            (disk / where / f"{number}").write_text("x")
            await asyncio.sleep(0.001)  # each on its own for whoever reads at once
        pause = 0.02 if where == "tree" else 0.1
        # Two for each time it looks, and as many by the source itself after each pause of its own.
        assert reads <= 5 * (loop.time() - began) / pause + 10
        assert len((await watched.seen()).paths) == (400 if where == "tree" else 0)


async def test_steady_changes_come_ten_times_a_second(tree):
    """Each batch becomes a durable transaction, and a wake-up of everybody on its way."""
    async with watching(make_source(tree)) as watched:
        loop, paths, count = asyncio.get_running_loop(), set(), 0

        async def change() -> None:
            for number in range(400):
                (tree / f"{number}").write_text("x")
                await asyncio.sleep(0.001)

        began, changing = loop.time(), loop.create_task(change())
        while len(paths) < 400:
            paths |= (await anext(watched._batches)).paths.keys()
            count += 1
        await changing
        assert count <= (loop.time() - began) / 0.1 + 2


async def test_a_cancelled_watch_leaves_nothing_behind(tree):
    shared = MountWatch(SystemClock(), ignored_pid=0)
    source = make_source(tree, mount_watch=shared)
    before = len(os.listdir("/proc/self/fd"))

    async def consume() -> None:
        async for _ in source.watch():
            pass

    task = asyncio.get_running_loop().create_task(consume())
    await asyncio.sleep(0.05)
    assert shared._devices
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not shared._devices
    assert len(os.listdir("/proc/self/fd")) == before
