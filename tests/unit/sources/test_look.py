"""One compiled call looks at a directory exactly as the Python code does, call by call."""

import errno
import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.model.host import HostStat, Identity
from streamd.sources.filesystem import bulk, listing, native
from streamd.sources.port import VIRTUAL_ROOT, Listing

NOBODY = 65534
KINDS = [
    "file",
    "empty",
    "directory",
    "link",
    "dangling",
    "fifo",
    "socket",
    "second name",
    "set-id",
]
odd_names = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)


def make(directory: bytes, name: bytes, kind: str) -> None:
    path = os.path.join(directory, name)
    match kind:
        case "directory":
            os.mkdir(path, 0o750)
        case "link":
            os.symlink(b"/", path)
        case "dangling":
            os.symlink(b"nowhere", path)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, 0o600 | stat.S_IFSOCK)
        case "second name":
            os.link(os.path.join(os.path.dirname(directory), b"first"), path)
        case _:
            with open(path, "wb") as file:
                file.write(b"" if kind == "empty" else name)
            if kind == "set-id":
                os.chmod(path, 0o6711)
                os.utime(path, ns=(-5_000_000_001, -5_000_000_001))


def looks(source, directory: bytes, names=None):
    """Return the listing, and which files its entries are, however that comes about."""
    seen = source.examine(directory, names, identities=True)
    taken = seen.fresh_identities()
    if taken is None:
        return seen, source.identify(directory, list(seen.entries))
    return seen, {name: taken[name] for name in seen.entries if name in taken}


def slow(patch: pytest.MonkeyPatch) -> None:
    for name in ("look", "look_unlike", "stat_entries", "stat_unlike", "identify"):
        patch.setattr(bulk, name, None)


def both(source, directory: bytes, names=None):
    """Look in one call and step by step; return what is the same."""
    quick = looks(source, directory, names)
    with pytest.MonkeyPatch.context() as patch:
        slow(patch)
        assert looks(source, directory, names) == quick
    assert source.examine(directory, names) == quick[0]  # without identities
    return quick


def rows_like(listing: Listing, changed: set[bytes]) -> list[tuple]:
    """Return rows as the catalog has them, those of `changed` names of something else."""
    return [
        (name, 5, 0, *(each._replace(ino=1) if name in changed else each))
        for name, each in sorted(listing.entries.items())
    ]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(odd_names, st.sampled_from(KINDS), max_size=12), st.lists(odd_names))
def test_any_directory_looks_the_same(tree_of, entries, others):
    with tempfile.TemporaryDirectory() as place:
        tree = tree_of(Path(place))
        (tree.root / "first").touch()
        inside = tree.path + b"/inside"
        os.mkdir(inside)
        for name, kind in entries.items():
            make(inside, name, kind)
        found, identities = both(tree.source(), inside)
        assert found.entries.keys() == identities.keys() == entries.keys()
        asked = [*list(entries)[::2], *others, b"x" * 300]
        some, _ = both(tree.source(), inside, asked)
        assert some.entries.keys() == entries.keys() & set(asked)
        rules = [os.fsdecode(name) for name in list(entries)[:1] if name.isalnum()]
        options = {"max_file_size": 3, "ignore_paths": (os.path.join(inside, b"a"),)}
        both(tree.source(rules, **options), inside)
        for name in entries:
            both(tree.source(), inside + b"/" + name)
        known = rows_like(found, set(list(entries)[::3]))
        for source in (tree.source(), tree.source(rules, **options)):
            quick = source.examine_known(inside, lambda: known)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bulk, "look_unlike", None)
                assert source.examine_known(inside, lambda: known) == quick
            assert quick.rest is not None
            assert quick.own == found.own


def test_the_ordinary_case_is_one_call(tree, monkeypatch):
    (tree.root / "d").mkdir()
    (tree.root / "d/f").touch()
    monkeypatch.setattr(listing, "open_directory", None)
    for names in (None, [b"f"]):
        seen = tree.source().examine(tree.path + b"/d", names, identities=True)
        assert seen.entries.keys() == seen.identities.keys() == {b"f"}
        assert tree.source().examine(tree.path + b"/d", names).identities is None


def test_of_many_entries_it_is_not_said_which_files_they_are(tree, monkeypatch):
    monkeypatch.setattr(listing, "IDENTITIES_MAX", 2)
    for name in "ab":
        (tree.root / name).touch()
    assert len(tree.source().examine(tree.path, None, identities=True).identities) == 2
    (tree.root / "c").touch()
    assert tree.source().examine(tree.path, None, identities=True).identities is None


@pytest.mark.parametrize("kernel", [True, False])
def test_links_on_the_way_lead_nowhere_for_both(tree, tmp_path, monkeypatch, kernel):
    monkeypatch.setattr(native, "HAVE_OPENAT2", kernel)
    (tmp_path / "secret/deep").mkdir(parents=True)
    (tree.root / "way").symlink_to(tmp_path / "secret")
    (tmp_path / "here").symlink_to("tree")
    (tree.root / "d").mkdir()
    (tree.root / "d/f").touch()
    for way in (b"/way", b"/way/deep", b"/d/f", b"/nothing", b"/d/../d", b"/" + b"x" * 300):
        found, identities = both(tree.source(), tree.path + way)
        assert (not found.error) == (way == b"/d/../d")
        assert not found.entries or identities
    root = os.fsencode(tmp_path / "here")
    for path in (root, root + b"/d"):  # the way to a root may be a link, a root may not
        both(tree.source(roots=(os.fsencode(tmp_path) + b"/here",)), path)
    both(tree.source(roots=(os.fsencode(tmp_path),)), os.fsencode(tmp_path))
    both(tree.source(), VIRTUAL_ROOT)


def test_an_old_kernel_or_a_filter_of_calls_has_the_same_said(tree, monkeypatch):
    (tree.root / "f").touch()
    seen = both(tree.source(), tree.path)
    monkeypatch.setattr(native, "HAVE_OPENAT2", False)
    assert both(tree.source(), tree.path) == seen


def test_tags_and_large_directories_are_left_to_the_code_beside(tree, monkeypatch):
    for name in ("CACHEDIR.TAG", "f", "g"):
        (tree.root / name).touch()
    (tree.root / "d").mkdir()
    (tree.root / "d/CACHEDIR.TAG").touch()
    (tree.root / "d/other").touch()
    found, _ = both(tree.source(exclude_if_present=(b"CACHEDIR.TAG",)), tree.path + b"/d")
    assert found.entries.keys() == {b"CACHEDIR.TAG"}
    monkeypatch.setattr(listing, "LARGE_DIRECTORY", 0)
    monkeypatch.setattr(listing, "ENTRIES_MAX", 2)
    found = tree.source().examine(tree.path, None, identities=True)
    assert [*found.names] == [[b"CACHEDIR.TAG", b"d", b"f", b"g"]]
    assert found.identities is None
    assert both(tree.source(), tree.path, [b"f"])[0].entries.keys() == {b"f"}


@pytest.mark.parametrize("is_one", [True, False])
def test_the_file_systems_of_the_kernel_look_the_same(tree, is_one):
    source = tree.source(roots=(b"/",), one_file_system=is_one)
    names = [b"proc", b"etc", b"tmp", b"dev", b"sys", b"bin", b"no such"]

    def what_holds():  # others change the times in there, and the number of processes
        seen, identities = looks(source, b"/", names)
        stats = {name: (now.type, now.dev, now.ino) for name, now in seen.entries.items()}
        return stats, seen.closed, seen.failed, identities.keys()

    quick = what_holds()
    assert b"proc" in quick[1]
    with pytest.MonkeyPatch.context() as patch:
        slow(patch)
        assert what_holds() == quick
    assert both(source, b"/proc/self")[0].error == errno.ENOTDIR  # a link


def test_mounts_look_the_same(tree):
    (tree.root / "inner").mkdir()
    (tree.root / "f").touch()
    subprocess.run(["mount", "-t", "tmpfs", "none", tree.root / "inner"], check=True)
    try:
        (tree.root / "inner/g").touch()
        for is_one in (True, False):
            source = tree.source(one_file_system=is_one)
            found, identities = both(source, tree.path)
            assert found.closed == ({b"inner"} if is_one else set())
            assert identities[b"inner"].dev == found.entries[b"inner"].dev != found.own.dev
            both(source, tree.path + b"/inner")
    finally:
        subprocess.run(["umount", tree.root / "inner"], check=True)


@pytest.fixture
def tree_for_all(tree_of):
    """Return a tree to which the way is open to everybody."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield tree_of(Path(place))


def test_what_may_not_be_read_is_refused_the_same_way(tree_for_all):
    tree = tree_for_all
    for name, mode in (("closed", 0), ("listed", 0o744), ("entered", 0o711)):
        (tree.root / name).mkdir()
        (tree.root / name / "f").touch()
        (tree.root / name).chmod(mode)
    os.seteuid(NOBODY)
    try:
        seen = {
            (name, asked): both(tree.source(), tree.path + name, asked and [asked])[0]
            for name in (b"/closed", b"/listed", b"/entered")
            for asked in (None, b"f")
        }
    finally:
        os.seteuid(0)
    assert seen[b"/closed", None].error == errno.EACCES
    assert seen[b"/entered", None].error == errno.EACCES
    assert seen[b"/listed", None].failed == {b"f": errno.EACCES}
    assert seen[b"/entered", b"f"].entries


def test_what_comes_and_goes_under_our_hands_is_there_or_is_not(tree):
    (tree.root / "stays").touch()
    is_done = threading.Event()

    def churn():
        while not is_done.is_set():
            for number in range(20):
                (tree.root / f"f{number}").touch()
            for number in range(20):
                (tree.root / f"f{number}").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            found = tree.source().examine(tree.path, None, identities=True)
            assert not found.error
            assert not found.failed
            assert b"stays" in found.entries
            assert found.identities.keys() <= found.entries.keys()
            assert found.identities[b"stays"].ino == found.entries[b"stays"].ino
    finally:
        is_done.set()
        thread.join()


def test_wrong_arguments_are_refused():
    good = (b"/", None, HostStat, Identity, 1, 1)
    for at, wrong in ((0, b"a\0b"), (1, [b"a", "b"]), (1, 5), (4, -1), (5, -1), (2, int), (3, int)):
        with pytest.raises((TypeError, ValueError)):
            bulk.look(*good[:at], wrong, *good[at + 1 :])
    assert bulk.look(b"/no such", *good[1:]) is None
    assert bulk.look(b"/", [b"a\0b"], *good[2:])[2] == {b"a\0b": errno.EINVAL}
    assert bulk.look(b"/etc", *good[1:4], 0, 0) is None  # larger than that


def test_rows_are_asked_for_when_the_directory_is_open_and_not_before(tree):
    (tree.root / "f").touch()
    asked, before = [], len(os.listdir("/proc/self/fd"))

    def known():
        asked.append(len(os.listdir("/proc/self/fd")))
        return []

    assert bulk.look_unlike(tree.path + b"/missing", known, HostStat, b"-wal", 1 << 20) is None
    assert bulk.look_unlike(tree.path, known, HostStat, b"-wal", 0) is None
    assert tree.source().examine_known(tree.path, known).entries.keys() == {b"f"}
    assert asked == [before + 1]
    for wrong in (lambda: None, lambda: [5], lambda: [(b"f",)], lambda: 1 // 0, 5):
        with pytest.raises((TypeError, ZeroDivisionError)):
            bulk.look_unlike(tree.path, wrong, HostStat, b"-wal", 1 << 20)
    with pytest.raises(ValueError):
        bulk.look_unlike(tree.path, known, HostStat, b"-wal", -1)
    with pytest.raises(TypeError):
        bulk.look_unlike(tree.path, known, int, b"-wal", 1 << 20)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_stays_open(tree):
    (tree.root / "f").touch()
    before = len(os.listdir("/proc/self/fd"))
    for path in (b"", b"/missing", b"/f"):
        for names in (None, [b"f"]):
            tree.source().examine(tree.path + path, names, identities=True)
    bulk.look(tree.path, None, HostStat, Identity, 0, 0)
    assert len(os.listdir("/proc/self/fd")) == before
