"""Files are known by their handles: an inode number that is used again is another file.

ext4 gives the number of a removed file or directory to the next one that is made.
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
from importlib import resources
from types import SimpleNamespace

import pytest
from integration.watch_tools import MAKERS, make_source, mounted, new_disk
from unit.pipeline.captured import Captured, found_paths

from streamd.catalog.dirty import Depth
from streamd.catalog.tree import load_source
from streamd.catalog.walk import WalkLookup
from streamd.pipeline.survey import InFlight
from streamd.sources.filesystem import bulk, identifying
from streamd.sources.port import Outcome, ReadRequest

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(params=[*MAKERS, "tmpfs"])
def disk(request, tmp_path):
    if request.param == "tmpfs":
        with mounted(tmp_path / "disk", "-t", "tmpfs", "none") as point:
            yield point
        return
    with new_disk(tmp_path, request.param) as point:
        yield point


class OnDisk(Captured):
    """A tree on a disk, and what is known of it."""

    def __init__(self, root) -> None:
        self.path = os.fsencode(root)
        self.us = 1
        self.fs = SimpleNamespace(roots=(self.path,))
        self.source = make_source(root)
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        schema = resources.files("streamd.catalog").joinpath("schema.sql").read_text("utf-8")
        self.db.executescript(schema)
        self.state = load_source(self.db, "s", b"s" * 16)
        self.lookup = WalkLookup(self.db, self.state.number)
        self.in_flight = InFlight()
        self.fids = itertools.count(1000)

    def at(self, *names: str) -> bytes:
        return os.path.join(self.path, *map(os.fsencode, names))


def reused(ino: int, make, remove) -> None:
    """Make things until one has an inode number; those without it are kept aside meanwhile."""
    for number in range(64):
        if make(number) == ino:
            break
    else:
        raise AssertionError("the number was not used again")
    for each in range(number):
        remove(each)


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("depth", [Depth.BELOW, Depth.ENTRY])
def test_a_new_directory_never_shows_what_was_in_one_that_had_its_inode_number(disk, depth):
    one = OnDisk(disk / "tree")
    (disk / "tree/old").mkdir(parents=True)
    for name in "ab":
        (disk / "tree/old" / name).write_text("secret")
    one.capture()
    old, ino = one.fid(one.at("old")), (disk / "tree/old").stat().st_ino
    shutil.rmtree(disk / "tree/old")

    def make(number: int) -> int:
        path = disk / f"tree/try{number}"
        path.mkdir()
        return path.stat().st_ino

    reused(ino, make, lambda number: (disk / f"tree/try{number}").rmdir())
    (new,) = (disk / "tree").glob("try*")
    (new / "c").write_text("mine")
    # What is said of the removed one comes later: events of another directory may.
    findings = one.survey({os.fsencode(new): depth}).findings()
    for finding in findings:
        one.record([finding])
        shown = one.paths()
        for name in (b"a", b"b"):
            assert os.fsencode(new) + b"/" + name not in shown
    assert one.fid(os.fsencode(new)) not in {None, old}
    one.record(one.look({one.at("old"): Depth.BELOW}))
    assert one.paths() == {one.path, os.fsencode(new), os.fsencode(new) + b"/c"}


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("count", [1, 2])
def test_a_new_file_is_never_shown_under_the_names_of_one_that_had_its_inode_number(disk, count):
    tree = disk / "tree"
    tree.mkdir()
    one = OnDisk(tree)
    (tree / "a").write_text("old")
    for number in range(count - 1):
        os.link(tree / "a", tree / f"other{number}")
    before = os.lstat(tree / "a")
    one.capture()
    old = one.fid(one.at("a"))
    for path in list(tree.iterdir()):
        path.unlink()

    def make(number: int) -> int:
        path = tree / f"new{number}"
        path.write_text("new")  # as large as the old one, and of the same time
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        return path.stat().st_ino

    reused(before.st_ino, make, lambda number: (tree / f"new{number}").unlink())
    (new,) = tree.glob("new*")
    for number in range(count - 1):
        os.link(new, tree / f"more{number}")
    one.record(one.look({os.fsencode(path): Depth.ENTRY for path in tree.iterdir()}))
    assert one.fid(os.fsencode(new)) not in {None, old}
    assert one.fid(one.at("a")) == old  # nobody has looked there yet
    assert {one.fid(os.fsencode(path)) for path in tree.iterdir()} == {one.fid(os.fsencode(new))}


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_file_made_at_the_place_of_a_removed_one_with_its_number_is_another(disk):
    tree = disk / "tree"
    tree.mkdir()
    one = OnDisk(tree)
    (tree / "a").write_text("old")
    one.capture()
    old, ino = one.fid(one.at("a")), (tree / "a").stat().st_ino
    (entry,) = one.source.examine(one.path, [b"a"]).entries.values()
    generation = one.source.identify(one.path, [b"a"])[b"a"].generation
    (tree / "a").unlink()

    def make(number: int) -> int:
        path = tree / f"new{number}"
        path.write_text("new")
        return path.stat().st_ino

    reused(ino, make, lambda number: (tree / f"new{number}").unlink())
    next(iter(tree.glob("new*"))).rename(tree / "a")
    # Whoever reads it now does not take it for the one that was found.
    request = ReadRequest(one.at("a"), entry, None, generation)
    assert [each.outcome for each in one.source.read([request]).results] == [Outcome.TYPE_CHANGED]
    assert one.source.open_large(request).finish().outcome == Outcome.TYPE_CHANGED
    one.record(one.look({one.at("a"): Depth.ENTRY}))
    assert one.fid(one.at("a")) not in {None, old}


def test_what_moves_and_changes_at_once_is_known_again(disk):
    tree = disk / "tree"
    (tree / "old/in").mkdir(parents=True)
    (tree / "old/in/f").write_text("x")
    (tree / "g").write_text("x")
    one = OnDisk(tree)
    one.capture()
    names = ("old", "old/in", "old/in/f", "g")
    fids = [one.fid(one.at(name)) for name in names]
    (tree / "old").rename(tree / "new")
    (tree / "new/more").write_text("y")
    (tree / "g").rename(tree / "h")
    (tree / "h").write_text("another content")
    findings = one.look({one.path: Depth.BELOW})
    moved = {one.at("new"), one.at("new", "more"), one.at("h"), one.path}
    assert set(found_paths(findings)) == moved, "nothing below a moved directory is read again"
    assert not one.record(findings)
    now = ("new", "new/in", "new/in/f", "h")
    assert [one.fid(one.at(name)) for name in now] == fids


def test_the_compiled_module_identifies_as_the_code_beside_it_does(disk, monkeypatch):
    tree = disk / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("x")
    (tree / "link").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    (tree / "mount").mkdir()
    names = [b"folder", b"file", b"link", b"pipe", b"mount", b"nothing", b"x" * 300]
    assert bulk.identify is not None
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounted(tree / "mount", "-t", "tmpfs", "none"))
        fd = os.open(tree, os.O_PATH)
        stack.callback(os.close, fd)
        found = [identifying.identify(fd, names, births=births) for births in (False, True)]
        monkeypatch.setattr(bulk, "identify", None)
        assert found == [identifying.identify(fd, names, births=births) for births in (False, True)]
        for name in names[:5]:
            status = os.lstat(tree / os.fsdecode(name))
            who = found[1][name]
            assert (who.dev, who.ino) == (status.st_dev, status.st_ino)
            assert who.generation
            assert (
                identifying.identify_path(os.fsencode(tree / os.fsdecode(name)), births=True) == who
            )
        assert found[0].keys() == set(names[:5])
        assert len({who.generation for who in found[0].values()}) == len(found[0])


@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
def test_a_subvolume_is_identified_with_its_own_device(disk):
    subprocess.run(["btrfs", "subvolume", "create", disk / "sub"], check=True, capture_output=True)
    status = os.lstat(disk / "sub")
    fd = os.open(disk, os.O_PATH)
    who = identifying.identify(fd, [b"sub"], births=False)[b"sub"]
    os.close(fd)
    assert (who.dev, who.ino) == (status.st_dev, status.st_ino)
    assert who.generation


def test_a_file_system_whose_handles_do_not_last_is_judged_by_the_time_of_birth():
    fd = os.open("/proc/self", os.O_PATH)
    try:
        who = identifying.identify(fd, [b"status"], births=False)[b"status"]
    finally:
        os.close(fd)
    assert who.generation == 0
