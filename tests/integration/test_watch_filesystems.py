"""The same promises on real file systems, each in a loop-mounted image."""

import os
import subprocess

import pytest
from watch_tools import MAKERS, make_source, mounted, new_disk, watching

from streamd.effects import SystemClock
from streamd.sources.filesystem import mountwatch
from streamd.sources.filesystem.mountwatch import MountWatch

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.asyncio]


@pytest.fixture(params=MAKERS)
def disk(request, tmp_path):
    with new_disk(tmp_path, request.param) as point:
        (point / "tree").mkdir()
        yield point


async def test_the_mark_works_and_outside_names_lead_to_the_inode(disk):
    tree = disk / "tree"
    source = make_source(tree)
    (disk / "other").write_text("x")
    os.link(disk / "other", tree / "same")
    async with watching(source) as watched:
        assert source.watch_modes == {os.fsencode(tree): "fanotify"}
        (tree / "a/b").mkdir(parents=True)
        (tree / "a/b/f").write_text("x")
        (tree / "a").rename(tree / "z")
        (tree / "z/b/f").write_text("y")
        assert {"a", "z", "z/b/f"} <= await watched.names(tree)
        (disk / "other").write_text("changed")
        status = os.lstat(tree / "same")
        batch = await watched.seen()
        assert batch.inodes == {(status.st_dev, status.st_ino)}


@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
async def test_a_subvolume_mounted_alone_is_watched_by_the_mark_of_its_volume(disk, tmp_path):
    subprocess.run(["btrfs", "subvolume", "create", disk / "sub"], check=True, capture_output=True)
    (disk / "sub/tree").mkdir()
    (disk / "sub/tree/f").write_text("x")
    found = subprocess.run(["findmnt", "-no", "SOURCE", disk], check=True, capture_output=True)
    device = found.stdout.decode().strip()
    with mounted(tmp_path / "sub", "-o", "subvol=sub", device) as alone:
        subprocess.run(["umount", disk], check=True)  # now no path leads to the volume's root
        source = make_source(alone / "tree")
        async with watching(source) as watched:
            assert set(source.watch_modes.values()) == {"fanotify"}
            (alone / "tree/a/b").mkdir(parents=True)
            (alone / "tree/a/b/g").write_text("y")
            assert {"a", "a/b", "a/b/g"} <= await watched.names(alone / "tree")
            os.link(alone / "tree/f", alone / "other")
            await watched.seen()
            (alone / "other").write_text("changed")
            status = os.lstat(alone / "tree/f")
            assert (await watched.seen()).inodes == {(status.st_dev, status.st_ino)}


@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
async def test_a_volume_and_its_subvolumes_share_one_mark(disk, tmp_path):
    volume = disk / "tree/sub"
    subprocess.run(["btrfs", "subvolume", "create", volume], check=True, capture_output=True)
    found = subprocess.run(["findmnt", "-no", "SOURCE", disk], check=True, capture_output=True)
    device = found.stdout.decode().strip()
    shared = MountWatch(SystemClock(), ignored_pid=0)
    with mounted(tmp_path / "sub", "-o", "subvol=tree/sub", device) as alone:
        whole = make_source(disk / "tree", mount_watch=shared)
        part = make_source(alone, mount_watch=shared)
        async with watching(whole) as through, watching(part) as directly:
            assert len(shared.devices) == 1
            (volume / "f").write_text("x")
            assert await through.names(volume) == {"f"}
            assert await directly.names(alone) == {"f"}


async def test_on_an_overlay_inotify_is_used_and_status_can_say_why(tmp_path):
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/f").write_text("x")
    options = ",".join(
        f"{key}={tmp_path / name}"
        for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    )
    with mounted(tmp_path / "merged", "-t", "overlay", "-o", options, "none") as merged:
        source = make_source(merged)
        async with watching(source) as watched:
            root = os.fsencode(merged)
            assert source.watch_modes == {root: "inotify"}
            assert source.watches[root].mode == "inotify"
            assert source.watches[root].why.startswith("fanotify: ")
            (merged / "f").write_text("copied up")
            assert await watched.names(merged) == {"f"}


async def test_a_mount_below_the_path_is_watched_for_itself(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    with mounted(tree / "inner", "-t", "tmpfs", "none") as inner:
        source = make_source(tree)
        async with watching(source) as watched:
            assert set(source.watches) == {os.fsencode(tree), os.fsencode(inner)}
            (inner / "f").write_text("x")
            assert await watched.names(inner) == {"f"}


async def test_a_network_file_system_falls_back_and_status_can_say_why(tmp_path, monkeypatch):
    """tmpfs in its place: what counts is the type that mountinfo says."""
    monkeypatch.setattr(mountwatch, "NETWORK_TYPES", frozenset({b"tmpfs"}))
    with mounted(tmp_path / "net", "-t", "tmpfs", "none") as net:
        source = make_source(net)
        async with watching(source) as watched:
            root = os.fsencode(net)
            assert source.watches[root].mode == "inotify"
            assert "not told what others change" in source.watches[root].why
            (net / "f").write_text("changed by this host")
            assert await watched.names(net) == {"f"}
