"""Which chunks are in the vault already, or are on their way there in front of us.

A chunk that an earlier batch of the same lane is about to store counts as present: batches of a
lane are committed in order, so whoever refers to it is committed after it is durable. Batches of
another lane store it again; two packs may hold a chunk, and either is valid.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Final

from streamd.catalog import objects

SEEN_MAX: Final = 1 << 16  # chunks of a new catalog, some 8 MiB; with more of them it is asked

Lane = tuple[int, int]  # number of the source, LIVE or BULK


class _Reader:
    """The connection of one thread, which is not closed while that is asking."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def find(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the chunks among `ids` that the vault holds, with the number of an object."""
        with self._lock:
            return objects.find_chunks(self._connection, ids)

    def has_chunks(self) -> bool:
        """Say whether the catalog knows of any chunk."""
        with self._lock:
            return objects.has_chunks(self._connection)

    def close(self) -> None:
        """Close it; a thread that asks later fails, and nobody waits for it."""
        with self._lock:
            self._connection.close()


class DedupIndex:
    """Asked by the sealing threads, told by the commit. Bounded by what is in flight.

    Of a catalog that had no chunks yet, what was claimed since is all that it can have, but for
    what maintenance adds, and a chunk that is stored twice does no harm. So a first capture asks
    only for chunks that it has met, as long as those are not many.
    """

    def __init__(self, open_reader: Callable[[], sqlite3.Connection]) -> None:
        self._open_reader = open_reader
        self._lock = threading.Lock()
        self._coming: dict[bytes, tuple[Lane, int]] = {}
        self._seen: set[bytes] | None = None  # all that was claimed; None: that is not all there is
        self._is_begun = False
        self._local = threading.local()
        self._readers: list[_Reader] = []

    def _reader(self) -> "_Reader":
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _Reader(self._open_reader())
            with self._lock:
                self._readers.append(reader)
        return reader

    def claim(self, ids: Sequence[bytes], lane: Lane, sequence: int) -> tuple[set[bytes], set[int]]:
        """Return (the ids that the caller must store, objects that hold some of the others).

        `ids` has no duplicates. Those to be stored are ours until `settle`.
        """
        if not self._is_begun:
            self._begin()
        unknown: list[bytes] = []
        with self._lock:
            for chunk_id in ids:
                coming = self._coming.get(chunk_id)
                if coming is None or coming[0] != lane or coming[1] > sequence:
                    unknown.append(chunk_id)
            seen = self._seen
            asked = unknown if seen is None else [each for each in unknown if each in seen]
        held = self._reader().find(asked) if asked else {}
        new = {chunk_id for chunk_id in unknown if chunk_id not in held}
        with self._lock:
            for chunk_id in new:
                self._coming.setdefault(chunk_id, (lane, sequence))
            if self._seen is not None:
                self._seen |= new
                if len(self._seen) > SEEN_MAX:
                    self._seen = None
        return new, set(held.values())

    def _begin(self) -> None:
        """See whether there are chunks from before: whoever claims first, before all commits."""
        is_new = not self._reader().has_chunks()
        with self._lock:
            if not self._is_begun:
                self._is_begun, self._seen = True, set() if is_new else None

    def settle(self, ids: Sequence[bytes]) -> None:
        """These chunks are committed (or given up): the catalog answers for them now."""
        with self._lock:
            for chunk_id in ids:
                self._coming.pop(chunk_id, None)

    def close(self) -> None:
        """Close the readers; nobody may ask afterwards."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()
