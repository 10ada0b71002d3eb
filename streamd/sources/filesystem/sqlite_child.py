"""Copy an SQLite database consistently: a process of its own, started by `sqlite`.

    python -I -S sqlite_child.py NAME INODE TARGET      (NAME as a percent-encoded URI part)

in the database's directory. Apart, because closing any descriptor of a database takes away all the
locks that a process has on it, and because the file may come from somebody who wishes us ill.
Imports nothing of streamd. Exit status 0, or 1 with one line that says what SQLite said.
"""

import os
import select
import shutil
import sqlite3
import sys
from urllib.parse import unquote_to_bytes

_BUSY_SECONDS = 5.0
_TRIES = 5
_WAL_HEADER = 32
_CHANGED = "the file was replaced meanwhile"


def main() -> str:
    """Copy; return what went wrong, empty if nothing did."""
    quoted, inode, target = sys.argv[1:]
    name = unquote_to_bytes(quoted)
    if os.lstat(name).st_ino != int(inode):
        return _CHANGED
    if _may_write(name + b"-shm"):
        _back_up(quoted, target)
    elif not _copy_both(name, target):
        return "it was checkpointed during every copy"
    return "" if os.lstat(name).st_ino == int(inode) else _CHANGED


def _back_up(quoted: str, target: str) -> None:
    source = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    copy = sqlite3.connect(target, isolation_level=None)
    copy.execute("PRAGMA journal_mode = OFF")
    copy.execute("PRAGMA synchronous = OFF")
    source.backup(copy, pages=-1)  # all in one read transaction: writers are not kept waiting
    copy.close()
    source.close()


def _may_write(shm: bytes) -> bool:
    """Say whether SQLite can take part in the locking; without it, it may read an old state."""
    try:
        os.close(os.open(shm, os.O_RDWR | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def _copy_both(name: bytes, target: str) -> bool:
    """Copy database and -wal as they are, and let SQLite put the copies together.

    As long as nothing comes over into the database and the -wal is not begun anew, the first is
    constant and the second only grows; what it has grown by meanwhile ends at a transaction.
    """
    for attempt in range(_TRIES):
        before = _state(name)
        shutil.copyfile(name, target)
        shutil.copyfile(name + b"-wal", target + "-wal")
        if _state(name) == before:
            break
        select.select((), (), (), 0.05 * 2**attempt)
    else:
        return False
    copy = sqlite3.connect(target, isolation_level=None)
    copy.execute("PRAGMA synchronous = OFF")
    copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy.close()
    return True


def _state(name: bytes) -> tuple[object, ...]:
    status = os.lstat(name)
    with open(name + b"-wal", "rb") as wal:
        header = wal.read(_WAL_HEADER)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, header)


if __name__ == "__main__":
    try:
        failure = main()
    except (sqlite3.Error, OSError) as error:
        failure = str(error) or type(error).__name__
    sys.exit(failure.replace("\n", " ")[:200] or 0)
