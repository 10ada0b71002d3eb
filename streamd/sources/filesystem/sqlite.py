"""SQLite databases in WAL mode: what is in the file alone is not what is in the database.

Commits go to a second file beside it (`-wal`) and come over later, page by page, so that the bytes
of the two, read one after the other, fit together only by luck. So the database is copied by
SQLite's own backup, in one read transaction, and that copy is what is stored as the content of the
file. The `-wal` and the `-shm` are stored as empty files: whoever restores all three gets a
database that opens at that transaction, and nothing of an older `-wal` is applied to it.

To the engine a database and its `-wal` are one file that changed when either did (`with_wal`).
"""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.sources.port import VIRTUAL_ROOT, Listing

MAGIC: Final = b"SQLite format 3\0"
HEADER_SIZE: Final = 20
_WAL: Final = 2  # the two version numbers at offset 18; 1 is a rollback journal
WAL_SUFFIX: Final = b"-wal"
SIDE_SUFFIXES: Final = (b"-wal", b"-shm")
SCRATCH_PREFIX: Final = "sqlite-copy-"
_CHILD: Final = Path(__file__).with_name("sqlite_child.py")
_START_SECONDS: Final = 15.0
_SLOWEST: Final = 4 << 20  # bytes per second
_REGULAR: Final = int(EntryType.REGULAR)
_PROBE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SqliteFailed(Exception):
    """SQLite could not copy a database; the text says why."""


def is_wal_database(header: bytes | memoryview) -> bool:
    """Say whether a file that begins so is an SQLite database in WAL mode."""
    return len(header) >= HEADER_SIZE and header[:16] == MAGIC and _WAL in {*header[18:20]}


def is_side_file(dir_fd: int, name: bytes) -> bool:
    """Say whether `name` is the -wal or -shm of an SQLite database in WAL mode beside it."""
    if not name.endswith(SIDE_SUFFIXES):
        return False
    try:
        fd = os.open(name[:-4], _PROBE, dir_fd=dir_fd)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and is_wal_database(os.pread(fd, HEADER_SIZE, 0))
    finally:
        os.close(fd)


def wal_of(dir_fd: int, name: bytes) -> os.stat_result | None:
    """Return the stat of the -wal beside `name` if there is one with something in it."""
    try:
        status = os.stat(name + WAL_SUFFIX, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) and status.st_size else None


def joined(own: HostStat, wal_size: int, wal_ctime_ns: int) -> HostStat:
    """Return the stat of a file and its -wal as one: both sizes, and the later change time."""
    return own._replace(size=own.size + wal_size, ctime_ns=max(own.ctime_ns, wal_ctime_ns))


def with_wal_names(names: Sequence[bytes]) -> list[bytes]:
    """Return `names` and what may be their -wal files, each once."""
    return list(dict.fromkeys([*names, *(name + WAL_SUFFIX for name in names)]))


def join_wals(listing: Listing, asked: Sequence[bytes] | None) -> None:
    """Make each file with a -wal beside it one with it; leave out what was not `asked` for."""
    entries = listing.entries
    for name in [name for name in entries if name.endswith(WAL_SUFFIX)]:
        wal, own = entries[name], entries.get(name[:-4])
        if own is not None and own.type == wal.type == _REGULAR and wal.size:
            entries[name[:-4]] = joined(own, wal.size, wal.ctime_ns)
    if asked is not None:
        wanted = set(asked)
        for found in (entries, listing.failed, listing.left_out):
            for name in found.keys() - wanted:
                found.pop(name)


def examine_joined(
    examine: Callable[[bytes, Sequence[bytes] | None], Listing],
    directory: bytes,
    names: Sequence[bytes] | None,
) -> Listing:
    """Have `names` in a directory examined, each together with its -wal."""
    if directory == VIRTUAL_ROOT:
        return examine(directory, names)
    listing = examine(directory, None if names is None else with_wal_names(names))
    join_wals(listing, names)
    return listing


class SqliteCopier:
    """Makes consistent copies in `scratch`, a directory of streamd's own. Threads may share one."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        for name in os.listdir(scratch) if os.path.isdir(scratch) else ():
            if name.startswith(SCRATCH_PREFIX):  # of a process that was killed
                with suppress(OSError):
                    os.unlink(os.path.join(scratch, name))

    def copy(
        self,
        dir_fd: int,
        name: bytes,
        status: os.stat_result,
        wal_size: int,
        started: Callable[["subprocess.Popen[bytes]"], None] = lambda _: None,
    ) -> int:
        """Return a descriptor of a copy that has no name. Blocking. Raises SqliteFailed.

        `started` is handed the process, so that another thread can end it.
        """
        import tempfile  # with the first database, not at every start

        size = status.st_size + 2 * wal_size
        try:
            free = os.statvfs(self._scratch)
            if free.f_bavail * free.f_frsize < size + size // 8:
                raise SqliteFailed(f"a copy of {size} bytes does not fit into {self._scratch}")
            fd, target = tempfile.mkstemp(prefix=SCRATCH_PREFIX, dir=self._scratch)
        except OSError as error:
            raise SqliteFailed(f"{self._scratch}: {error.strerror}") from error
        try:
            command = [sys.executable, "-I", "-S", str(_CHILD), quote_from_bytes(name, safe="")]
            command += [str(status.st_ino), target]
            self._run(command, dir_fd, _START_SECONDS + size / _SLOWEST, started)
        except BaseException:
            os.close(fd)
            raise
        finally:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(target + suffix)
        return fd

    @staticmethod
    def _run(
        command: list[str],
        dir_fd: int,
        seconds: float,
        started: Callable[["subprocess.Popen[bytes]"], None],
    ) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                command,
                cwd=f"/proc/self/fd/{dir_fd}",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise SqliteFailed(f"{command[0]}: {error.strerror}") from error
        with process:
            started(process)
            try:
                said = process.communicate(timeout=seconds)[1]
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise SqliteFailed(f"not copied within {seconds:.0f} s") from error
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise SqliteFailed(lines[-1] if lines else f"status {process.returncode}")
