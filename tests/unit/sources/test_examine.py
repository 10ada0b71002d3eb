"""Looking at directories."""

import errno
import os
import socket

import pytest

from streamd.model.entry import EntryType
from streamd.sources.filesystem import native
from streamd.sources.filesystem.opening import open_directory
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope


def test_the_virtual_root_has_the_configured_paths(tree, tmp_path):
    missing = os.fsencode(tmp_path / "missing")
    source = tree.source(roots=(tree.path, missing))
    assert set(source.examine(b"", None).entries) == {tree.path}
    assert set(source.examine(b"", [tree.path, missing, b"/etc"]).entries) == {tree.path}


def test_every_type_is_told_apart(tree):
    root = tree.root
    (root / "file").write_text("12345")
    (root / "dir").mkdir()
    (root / "link").symlink_to("there")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "sock"))
    found = tree.source().examine(tree.path, None).entries
    assert {name: (entry.type, entry.size) for name, entry in found.items()} == {
        b"file": (EntryType.REGULAR, 5),
        b"dir": (EntryType.DIRECTORY, 0),
        b"link": (EntryType.SYMLINK, 5),
        b"pipe": (EntryType.FIFO, 0),
        b"sock": (EntryType.SOCKET, 0),
    }


def test_the_stat_is_that_of_lstat(tree):
    path = tree.root / "f"
    path.write_text("x")
    path.chmod(0o4751)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    entry, status = tree.source().examine(tree.path, [b"f"]).entries[b"f"], path.stat()
    assert entry.mode == 0o4751
    assert entry.mtime_ns == 1_234_567_890_123_456_789
    assert (entry.ctime_ns, entry.dev, entry.ino) == (
        status.st_ctime_ns,
        status.st_dev,
        status.st_ino,
    )
    assert (entry.uid, entry.gid, entry.nlink) == (status.st_uid, status.st_gid, 1)


def test_names_that_do_not_exist_are_in_neither_mapping(tree):
    (tree.root / "f").touch()
    listing = tree.source().examine(tree.path, [b"f", b"g", b"x" * 300])
    assert set(listing.entries) == {b"f"}
    assert not listing.failed
    assert listing.error == 0


@pytest.mark.parametrize("name", [b"missing", b"file", b"file/below"])
def test_a_directory_that_is_none_is_gone(tree, name):
    (tree.root / "file").touch()
    assert tree.source().examine(tree.path + b"/" + name, None).error in {
        errno.ENOENT,
        errno.ENOTDIR,
    }


def test_what_is_outside_is_not_looked_at(tree, tmp_path):
    assert tree.source().examine(os.fsencode(tmp_path), None).error == errno.ENOENT
    (tmp_path / "treehouse").mkdir()
    assert tree.source().examine(tree.path + b"house", None).error == errno.ENOENT


@pytest.mark.parametrize("kernel", [True, False])
def test_no_symbolic_link_leads_out(tree, tmp_path, monkeypatch, kernel):
    monkeypatch.setattr(native, "HAVE_OPENAT2", kernel)
    (tmp_path / "secret/deep").mkdir(parents=True)
    (tree.root / "way").symlink_to(tmp_path / "secret")
    source = tree.source()
    assert source.examine(tree.path + b"/way", None).error == errno.ENOTDIR
    assert source.examine(tree.path + b"/way/deep", None).error == errno.ENOTDIR


@pytest.mark.parametrize("kernel", [True, False])
def test_the_way_to_a_root_may_have_links(tmp_path, tree, monkeypatch, kernel):
    monkeypatch.setattr(native, "HAVE_OPENAT2", kernel)
    (tmp_path / "way").symlink_to(".")
    (tree.root / "d").mkdir()
    (tree.root / "d/f").touch()
    root = os.fsencode(tmp_path / "way/tree")
    source = tree.source(roots=(root,))
    assert set(source.examine(root, None).entries) == {b"d"}
    assert set(source.examine(root + b"/d", None).entries) == {b"f"}


@pytest.mark.parametrize("kernel", [True, False])
def test_paths_longer_than_the_kernel_takes_are_opened_in_pieces(tree, monkeypatch, kernel):
    monkeypatch.setattr(native, "HAVE_OPENAT2", kernel)
    fd = os.open(tree.path, os.O_RDONLY)
    depth = 60
    for _ in range(depth):
        os.mkdir("x" * 200, dir_fd=fd)
        deeper = os.open("x" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    path = tree.path + (b"/" + b"x" * 200) * depth
    assert len(path) > 8192
    assert set(tree.source().examine(path, None).entries) == {b"f"}
    assert tree.source().examine(path + b"/f", None).error == errno.ENOTDIR


def test_the_root_directory_can_be_a_source():
    scope = TreeScope((b"/",), rules=ExcludeRules())
    os.close(open_directory(scope, b"/", flags=os.O_RDONLY))
    assert scope.protects(b"/etc", directory=True)
    assert scope.relative(b"/", b"/etc/x") == b"etc/x"


def test_pseudo_file_systems_are_closed(tree):
    listing = tree.source(roots=(b"/",)).examine(b"/", [b"proc", b"etc"])
    assert listing.closed == {b"proc"}
    assert tree.source(roots=(b"/",)).examine(b"//etc", [b"passwd"]).entries


def test_excluded_names_are_absent(tree):
    for name in ("a.tmp", "keep.tmp", "b", "cache/x"):
        (tree.root / name).parent.mkdir(exist_ok=True)
        (tree.root / name).touch()
    source = tree.source(rules=("*.tmp", "!keep.tmp", "cache/"))
    assert set(source.examine(tree.path, None).entries) == {b"keep.tmp", b"b"}
    assert set(source.examine(tree.path, [b"a.tmp", b"b", b"cache"]).entries) == {b"b"}
    assert source.examine(tree.path + b"/cache", None).error == errno.ENOENT


def test_a_tag_excludes_what_is_beside_it(tree):
    (tree.root / "d").mkdir()
    for name in ("CACHEDIR.TAG", "f"):
        (tree.root / "d" / name).touch()
    source = tree.source(exclude_if_present=(b"CACHEDIR.TAG",))
    assert set(source.examine(tree.path, None).entries) == {b"d"}
    assert set(source.examine(tree.path + b"/d", None).entries) == {b"CACHEDIR.TAG"}
    assert not source.examine(tree.path + b"/d", [b"f"]).entries


def test_a_tag_in_a_root_changes_nothing(tree):
    for name in ("CACHEDIR.TAG", "f"):
        (tree.root / name).touch()
    source = tree.source(exclude_if_present=(b"CACHEDIR.TAG",))
    assert set(source.examine(tree.path, None).entries) == {b"CACHEDIR.TAG", b"f"}


def test_a_root_that_is_a_link_is_only_a_link(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree.root)
    root = os.fsencode(tmp_path / "link")
    source = tree.source(roots=(root,))
    assert source.examine(b"", None).entries[root].type == EntryType.SYMLINK
    assert source.examine(root, None).error == errno.ENOTDIR


def test_own_directories_are_invisible(tree):
    (tree.root / "state/d").mkdir(parents=True)
    source = tree.source(ignore_paths=(tree.path + b"/state",))
    assert not source.examine(tree.path, None).entries
    assert not source.examine(tree.path, [b"state"]).entries
    assert source.examine(tree.path + b"/state/d", None).error == errno.ENOENT


def test_files_beyond_the_limit_are_left_out(tree):
    (tree.root / "small").write_bytes(bytes(10))
    (tree.root / "large").write_bytes(bytes(11))
    (tree.root / "dir").mkdir()
    source = tree.source(max_file_size=10)
    assert set(source.examine(tree.path, None).entries) == {b"small", b"dir"}


def test_no_descriptor_stays_open(tree):
    source = tree.source()
    before = len(os.listdir("/proc/self/fd"))
    for name in (b"", b"/missing", b"/etc"):
        source.examine(tree.path + name, None)
    assert len(os.listdir("/proc/self/fd")) == before
