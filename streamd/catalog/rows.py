"""Rows written and asked for many to a statement, by statements of few shapes.

Each step of a statement gives the interpreter's lock away and has to win it back from the threads
that read and seal; with one step for each row a commit spends its time waiting for that. And a
statement whose text was not seen lately has to be compiled first: so few numbers of parameters.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeVar

T = TypeVar("T")

_INSERTED_AT_ONCE: Final = (256, 64, 16, 4)  # then one by one
_ASKED_AT_ONCE: Final = (1, 4, 16, 64, 128, 256)  # parameters, or places of several
ASKED_MAX: Final = _ASKED_AT_ONCE[-1]


def insert_rows(
    connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], or_else: str = ""
) -> None:
    """Write rows of one width by the statement that begins with `into`, INSERT INTO a table.

    `or_else` is its ON CONFLICT clause.
    """
    if not rows:
        return
    width, at = len(rows[0]), 0
    for count in _INSERTED_AT_ONCE:
        while len(rows) - at >= count:
            values = list(chain.from_iterable(rows[at : at + count]))
            connection.execute(_insertion(into, count, width, or_else), values)
            at += count
    if at < len(rows):
        connection.executemany(_insertion(into, 1, width, or_else), rows[at:])


@lru_cache(256)
def _insertion(into: str, count: int, width: int, or_else: str) -> str:
    return f"{into} VALUES {places(count, width)} {or_else}"


@lru_cache(256)
def places(count: int, width: int) -> str:
    """Return the text of so many rows of parameters."""
    return ",".join([f"({','.join('?' * width)})"] * count)


@lru_cache(256)
def marks(count: int) -> str:
    """Return the text of so many parameters, for IN (…)."""
    return ",".join("?" * count)


def filled(items: Sequence[T]) -> Iterator[list[T]]:
    """Yield items in parts of few sizes; one that is not full has its last item several times.

    For questions whose answer does not depend on how often something is asked for.
    """
    for start in range(0, len(items), ASKED_MAX):
        part = list(items[start : start + ASKED_MAX])
        size = next(size for size in _ASKED_AT_ONCE if size >= len(part))
        part += part[-1:] * (size - len(part))
        yield part
