"""A copy of a real tree comes back identical, from a directory vault and from Azurite.

STREAMD_ROUNDTRIP_FILES (default 2,000; the slow test takes 50,000) says how many names of /usr.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from azurite import azurite  # noqa: F401 - a fixture
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon
from system.tree import difference, listing

FILES = int(os.environ.get("STREAMD_ROUNDTRIP_FILES", "2000"))
SLOW_FILES = max(FILES, 50_000)
# smallest first: what one has too few of, the next ones make up for
PLACES = ("/usr/bin", "/usr/include", "/usr/lib/python3", "/usr/share/zoneinfo", "/usr/share")


def copy_of_usr(target: Path, names: int) -> None:
    """Copy about so many names, keeping owner, mode, times, xattrs, symlinks and hard links."""
    target.mkdir()
    os.chmod(target, 0o750)
    inodes: dict[tuple[int, int], str] = {}
    folders = []
    for source, path in _names(names):
        status = os.lstat(source)
        to = os.path.join(target, path)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        key = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            os.makedirs(to, exist_ok=True)
            folders.append((source, to))
        elif status.st_nlink > 1 and key in inodes:
            os.link(inodes[key], to, follow_symlinks=False)
        else:
            shutil.copy2(source, to, follow_symlinks=False)
            os.chown(to, status.st_uid, status.st_gid, follow_symlinks=False)
            os.utime(to, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)
            inodes[key] = to
    for source, to in reversed(folders):
        shutil.copystat(source, to)


def special_files(target: Path) -> None:
    """Add what /usr has none of: holes, odd names, fifos, devices, xattrs, empty folders."""
    target.mkdir()
    (target / "empty folder").mkdir(mode=0o1777)
    os.mkfifo(target / "fifo", 0o640)
    with (target / "holes").open("wb") as holes:
        holes.truncate(20 << 20)
        holes.seek(8 << 20)
        holes.write(b"in between" * 1000)
    os.mknod(target / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for name in (b"\xff\xfe", b"new\nline", b" ", b"-rf", b"x" * 255, "ä€𐍈".encode()):
        Path(os.fsdecode(os.fsencode(target) + b"/" + name)).write_bytes(name)
    os.symlink(b"\xff/../nowhere", os.fsencode(target) + b"/dangling")
    marked = target / "marked"
    marked.write_bytes(b"content")
    os.setxattr(marked, "user.colour", b"\x00\xffblue")
    os.setxattr(target / "empty folder", "user.colour", b"")
    os.link(marked, target / "marked too")
    os.chown(marked, 12345, 54321)
    os.chmod(marked, 0o6751)
    os.utime(marked, ns=(1, 1_234_567_891_234_567_891))
    os.utime(target / "dangling", ns=(7, 7), follow_symlinks=False)
    os.utime(target / "empty folder", ns=(5, -5_000_000_001))  # before 1970


def _names(wanted: int) -> Iterator[tuple[str, str]]:
    """Yield about so many (full path, path below /usr), as many from each place as it has."""
    left = wanted
    for number, place in enumerate(PLACES):
        share = left // (len(PLACES) - number)
        for full in islice(_below(place), share):
            left -= 1
            yield full, full.removeprefix("/usr/")


def _below(place: str) -> Iterator[str]:
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in PLACES)
        yield from (os.path.join(folder, name) for name in (*folders, *sorted(names)))


def _captured_and_restored(daemon: Daemon, target: Path) -> None:
    expected = listing(daemon.tree)
    daemon.init()
    daemon.command("capture")
    daemon.restore(target)
    assert difference(expected, listing(target)) == []
    assert difference(expected, listing(daemon.tree)) == [], "the capture changed the source"


def _tree(tmp_path: Path, files: int) -> Path:
    tree = tmp_path / "tree"
    copy_of_usr(tree, files)
    special_files(tree / "special")
    return tree


@pytest.mark.root
@pytest.mark.timeout(300)
def test_a_real_tree_comes_back_from_a_directory(tmp_path) -> None:
    with Daemon(tmp_path / "streamd", _tree(tmp_path, FILES)) as daemon:
        _captured_and_restored(daemon, tmp_path / "restored")
        daemon.command("verify", "--level", "full")


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.timeout(300)
def test_a_real_tree_comes_back_from_azurite(tmp_path, azurite) -> None:
    tree = _tree(tmp_path, FILES)
    with Daemon(tmp_path / "streamd", tree, **azurite_vault(azurite, tmp_path)) as daemon:
        _captured_and_restored(daemon, tmp_path / "restored")
        # and without the local copy: everything has to be in the container
        shutil.rmtree(tmp_path / "streamd" / "local")
        shutil.rmtree(tmp_path / "streamd" / "state")
        daemon.restore(tmp_path / "from-azurite")
        assert difference(listing(tree), listing(tmp_path / "from-azurite")) == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.timeout(1800)
def test_fifty_thousand_files_come_back_from_both(tmp_path, azurite) -> None:
    tree = _tree(tmp_path, SLOW_FILES)
    with Daemon(tmp_path / "directory", tree) as daemon:
        _captured_and_restored(daemon, tmp_path / "restored")
    shutil.rmtree(tmp_path / "restored")
    with Daemon(tmp_path / "container", tree, **azurite_vault(azurite, tmp_path)) as daemon:
        _captured_and_restored(daemon, tmp_path / "restored")
