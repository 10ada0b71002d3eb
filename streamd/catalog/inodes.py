"""Inode numbers of the files that were recorded since a source began.

A first capture asks of every new directory whether one of its entries is a file that is known, by
its inode: nearly always there is none, and the question costs more than all else that is done to
find that out. So what is recorded meanwhile is remembered here, as long as it is not much.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

KEPT_MAX: Final = 1 << 17  # some 12 MiB; with more of them the catalog is asked


class Inodes:
    """Told by the catalog's thread before it commits, so never behind; asked by any thread."""

    def __init__(self) -> None:
        self._seen: set[int] | None = None  # None: not known
        self._is_over = False

    def watch(self) -> None:
        """Begin to remember, unless it was too much once."""
        if self._seen is None and not self._is_over:
            self._seen = set()

    @property
    def is_watching(self) -> bool:
        """Whether somebody may ask."""
        return self._seen is not None

    def add(self, numbers: Iterable[int]) -> None:
        """Files with these inode numbers are about to be recorded."""
        if self._seen is None:
            return
        self._seen.update(numbers)
        if len(self._seen) > KEPT_MAX:
            self._seen, self._is_over = None, True

    def may_hold(self, numbers: Iterable[int]) -> bool:
        """Say whether a file with one of these numbers may have been recorded since `watch`."""
        seen = self._seen
        return seen is None or not seen.isdisjoint(numbers)


def watched(connection: sqlite3.Connection, inodes: Inodes, source: int) -> Inodes | None:
    """Return what knows all inodes of a source of which nothing is recorded yet; else None.

    To be called in the writer's thread: nothing is recorded meanwhile.
    """
    row = connection.execute("SELECT key_count FROM source WHERE number = ?", (source,)).fetchone()
    if row is None or row[0]:
        return None
    inodes.watch()
    return inodes
