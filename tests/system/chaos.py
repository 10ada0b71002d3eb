"""Random changes of every kind to a tree and what lies around it, as fast as possible.

Unlike `system.mutator` it keeps no log: what is right is what the tree is when it stands still. It
does what a log could not follow: stores through mappings, exchanges, files without a name, links
and unlinks through names outside of the source, moves across its border, file systems mounted on top.
"""

import contextlib
import ctypes
import mmap
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_EXCHANGE = 2
_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400
DIRECTORIES_MAX = 120
FILES = 40  # names of files in a directory
OUTSIDE_MAX = 200

WEIGHTS = {
    "write": 26, "patch": 12, "append": 6, "truncate": 4, "store": 6, "unlink": 6, "rename": 10,
    "make": 6, "move": 5, "exchange": 4, "out": 3, "back": 4, "remove": 2, "mode": 5, "owner": 2,
    "link": 3, "symlink": 3, "xattr": 3, "nameless": 4, "link_out": 3, "write_out": 5,
    "unlink_out": 3, "link_in": 3, "times": 2,
}  # fmt: skip


class Chaos:
    """Changes `tree`; `outside` is a directory beside it on the same file system."""

    def __init__(self, tree: str, outside: str, *, seed: int) -> None:
        self.tree, self.outside = tree, outside
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._serial = 0
        self._names = list(WEIGHTS)
        self._weights = list(WEIGHTS.values())
        self._mounted = ""
        os.makedirs(outside, exist_ok=True)
        self._directories = [tree]
        for number in range(20):
            path = f"{tree}/i{number}/s"
            os.makedirs(path)
            self._directories += [f"{tree}/i{number}", path]

    def run(self, count: int, stop: Callable[[], bool] = bool) -> None:
        """Do `count` operations; those that the file system refuses count too."""
        for _ in range(count):
            self._serial += 1
            name = self._rng.choices(self._names, self._weights)[0]
            with contextlib.suppress(OSError, ValueError, IndexError, shutil.Error):
                getattr(self, f"_{name}")()
                self.counts[name] += 1
            if self._serial % 64 == 0 or len(self._directories) > 2 * DIRECTORIES_MAX:
                self._forget()
            if stop():
                return

    # -- mounts ----------------------------------------------------------------------------------

    def mount(self) -> None:
        """Hide a directory of the tree behind another file system, with a file of its own."""
        path = self._rng.choice([each for each in self._directories if each != self.tree])
        if not self._mounted and os.path.isdir(path):
            subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
            self._mounted = path
            with open(f"{path}/on-top", "w", encoding="ascii") as file:
                file.write("x")

    def unmount(self) -> None:
        """Take it away again."""
        if self._mounted:
            subprocess.run(["umount", "-l", self._mounted_now()], check=True)
            self._mounted = ""

    def _mounted_now(self) -> str:
        """Return where it is now: a directory above it may have moved."""
        with open("/proc/self/mounts", encoding="ascii") as lines:
            points = [line.split()[1] for line in lines if line.startswith("none ")]
        return next(point for point in points if point.startswith((self.tree, self.outside)))

    # -- choosing --------------------------------------------------------------------------------

    def _directory(self) -> str:
        return self._rng.choice(self._directories)

    def _file(self) -> str:
        return f"{self._directory()}/f{self._rng.randrange(FILES)}"

    def _fresh(self, kind: str) -> str:
        return f"{self._directory()}/{kind}{self._serial}"

    def _elsewhere(self) -> str:
        names = os.listdir(self.outside)
        return f"{self.outside}/{self._rng.choice(names)}"  # IndexError when there is nothing

    def _data(self) -> bytes:
        size = self._rng.choice((0, 1, 20, 400, 5000, 9000))
        return b"%d " % self._serial * (size // 4 + 1)

    def _forget(self) -> None:
        known = sorted(path for path in set(self._directories) if os.path.isdir(path))
        self._rng.shuffle(known)
        self._directories = [self.tree, *known[:DIRECTORIES_MAX]]
        beside = os.listdir(self.outside)
        for name in beside[OUTSIDE_MAX:]:
            path = f"{self.outside}/{name}"
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    # -- files -----------------------------------------------------------------------------------

    def _write(self) -> None:
        with open(self._file(), "wb") as file:
            file.write(self._data())

    def _patch(self) -> None:
        with open(self._file(), "r+b") as file:
            file.seek(self._rng.randrange(50))
            file.write(b"%d" % self._serial)

    def _append(self) -> None:
        with open(self._file(), "ab") as file:
            file.write(self._data())

    def _truncate(self) -> None:
        os.truncate(self._file(), self._rng.randrange(3000))

    def _store(self) -> None:
        """Write through a mapping; the kernel tells nobody of it."""
        fd = os.open(self._file(), os.O_RDWR)
        try:
            with mmap.mmap(fd, 0) as mapping:
                at = self._rng.randrange(len(mapping))
                mapping[at : at + 1] = b"%c" % self._rng.randrange(256)
        finally:
            os.close(fd)

    def _unlink(self) -> None:
        os.unlink(self._file())

    def _rename(self) -> None:
        os.rename(self._file(), self._file())

    def _link(self) -> None:
        os.link(self._file(), self._fresh("l"))

    def _symlink(self) -> None:
        os.symlink(f"f{self._rng.randrange(FILES)}", self._fresh("s"))

    def _nameless(self) -> None:
        """Make a file without a name, write to it, and give it one."""
        fd = os.open(self._directory(), os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.write(fd, self._data())
            old, new = b"/proc/self/fd/%d" % fd, os.fsencode(self._fresh("n"))
            if _libc.linkat(_AT_FDCWD, old, _AT_FDCWD, new, _AT_SYMLINK_FOLLOW):
                raise OSError(ctypes.get_errno(), "linkat")
        finally:
            os.close(fd)

    def _mode(self) -> None:
        os.chmod(self._file(), self._rng.choice((0o600, 0o644, 0o755)))

    def _owner(self) -> None:
        os.chown(self._file(), self._rng.randrange(3000), self._rng.randrange(3000))

    def _times(self) -> None:
        """Set the time back, as tools that hide a change do."""
        at = self._rng.randrange(10**18)
        os.utime(self._file(), ns=(at, at))

    def _xattr(self) -> None:
        os.setxattr(self._file(), "user.a", b"%d" % self._serial)

    # -- directories -----------------------------------------------------------------------------

    def _make(self) -> None:
        path = f"{self._directory()}/d{self._rng.randrange(6)}/e{self._rng.randrange(3)}"
        os.makedirs(path)
        self._directories.append(path)

    def _move(self) -> None:
        old, new = self._directory(), self._fresh("r")
        if old != self.tree:
            os.rename(old, new)
            self._directories.append(new)

    def _exchange(self) -> None:
        pick = self._directory if self._rng.random() < 0.5 else self._file
        first, second = pick(), pick()
        if self.tree not in {first, second}:
            _libc.renameat2(
                _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE
            )

    def _remove(self) -> None:
        path = self._directory()
        if path != self.tree:
            shutil.rmtree(path)

    # -- over the border -------------------------------------------------------------------------

    def _out(self) -> None:
        path = self._directory() if self._rng.random() < 0.5 else self._file()
        if path != self.tree:
            os.rename(path, f"{self.outside}/o{self._serial}")

    def _back(self) -> None:
        target = self._fresh("b")
        os.rename(self._elsewhere(), target)
        if os.path.isdir(target):
            self._directories.append(target)

    def _link_out(self) -> None:
        os.link(self._file(), f"{self.outside}/h{self._serial}")

    def _link_in(self) -> None:
        os.link(self._elsewhere(), self._fresh("h"))

    def _write_out(self) -> None:
        """Write to a file through a name outside of the source."""
        with open(self._elsewhere(), "r+b") as file:
            file.write(b"out %d" % self._serial)

    def _unlink_out(self) -> None:
        os.unlink(self._elsewhere())
