"""PostgreSQL data directories: files that fit together only when the server says so.

The files of a running server, read one after the other, are no copy of its databases: pages and
write-ahead log are of different moments. They are captured all the same, because it is better than
nothing, and the directory is reported, with what to do instead: protect the output of
`pg_basebackup` or `pg_dump`, for example by a source of kind "command".
"""

import os
from typing import Final

RUNNING: Final = "postgres-running"


def is_running(dir_fd: int) -> bool:
    """Say whether a directory is the data directory of a PostgreSQL server that runs.

    A server that was killed leaves its `postmaster.pid` behind: then the files may be torn, too.
    """
    return _is_there(dir_fd, b"PG_VERSION") and all(
        _is_there(dir_fd, name) for name in (b"global/pg_control", b"postmaster.pid")
    )


def _is_there(dir_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return True
