"""Rows written many to a statement.

Each step of a statement gives the interpreter's lock away and has to win it back from the threads
that read and seal; with one step for each row a commit spends its time waiting for that.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

_AT_ONCE: Final = (256, 16)  # few sizes, so that few statements are prepared; then one by one


def insert_rows(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows of one width by the statement that begins with `into`, INSERT INTO a table."""
    if not rows:
        return
    one, at = f"({','.join('?' * len(rows[0]))})", 0
    for count in _AT_ONCE:
        while len(rows) - at >= count:
            values = list(chain.from_iterable(rows[at : at + count]))
            connection.execute(f"{into} VALUES {','.join([one] * count)}", values)
            at += count
    connection.executemany(f"{into} VALUES {one}", rows[at:])
