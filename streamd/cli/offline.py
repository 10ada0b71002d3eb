"""What this host's catalog says, read without the daemon: it may run or not."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote_from_bytes

from streamd.catalog import dirty
from streamd.catalog.census import pending_paths
from streamd.catalog.db import FILE_NAME, SCHEMA
from streamd.config.model import Config
from streamd.daemon.status import ProblemLine, problem_line


@contextmanager
def open_catalog(config: Config) -> Iterator[sqlite3.Connection | None]:
    """Lend a read-only connection; None if there is no catalog that can be read here."""
    path = os.path.join(config.daemon.state, FILE_NAME)
    connection: sqlite3.Connection | None = None
    try:
        uri = f"file:{quote_from_bytes(os.fsencode(path))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        version = None
    try:
        yield connection if version == SCHEMA else None
    finally:
        if connection is not None:
            connection.close()


def source_number(connection: sqlite3.Connection, name: str) -> int | None:
    """Return the number of a source in the catalog; None if nothing was captured of it."""
    row = connection.execute("SELECT number FROM source WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def problem_lines(connection: sqlite3.Connection, name: str) -> tuple[list[ProblemLine], int]:
    """Return the problems of a source, and how many there are."""
    number = source_number(connection, name)
    if number is None:
        return [], 0
    rows = dirty.problems(connection, number)
    return [problem_line(name, row) for row in rows], dirty.problem_count(connection, number)


def pending_lines(connection: sqlite3.Connection, name: str, limit: int) -> list[ProblemLine]:
    """Return what is noticed and not yet captured."""
    number = source_number(connection, name)
    if number is None:
        return []
    return [
        problem_line(name, dirty.Problem(path, "pending", 0, since_us))
        for path, since_us in pending_paths(connection, number, limit)
    ]
