"""A stretch of the journal on its way into history runs, sorted by key.

An hour of a busy host is a hundred thousand records. As objects of Python they would be some 40 MiB
every quarter of an hour, which are free afterwards, but scattered, so that the process stays as
large. So they lie in a private database, which goes to a file when they are many.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, Self

from streamd.format.history_run import RUN_BYTES_MAX, RUN_RECORDS_MAX, HistoryRow
from streamd.format.segment import Segment
from streamd.model.ids import SourceId
from streamd.model.record import Op, Record
from streamd.vault.record_reader import of_source

RECORDS_DUE: Final = 65_536
HOUR_US: Final = 3_600_000_000
_CACHE_KIB: Final = 4 * 1024
_KEPT_OPS: Final = frozenset({Op.SET, Op.DEL, Op.MARK, Op.GAP, Op.RESET})


class Stretch:
    """Segments read and not yet written as runs. Blocking; use it in a `with`."""

    def __init__(self) -> None:
        self.first: Segment | None = None
        self.last: Segment | None = None
        self.record_count = 0
        self.size = 0
        self._counts: dict[SourceId, int] = {}
        # An empty name makes a private database that spills to disk when the cache is full.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute(
            "CREATE TABLE row (source BLOB, key BLOB, number INTEGER, at_us INTEGER, op INTEGER,"
            " value BLOB, PRIMARY KEY (source, key, number)) WITHOUT ROWID"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def clear(self) -> None:
        """Begin another one."""
        self.first = self.last = None
        self.record_count = self.size = 0
        self._counts.clear()
        self._db.execute("DELETE FROM row")

    def add(self, segment: Segment, records: Sequence[Record]) -> None:
        """Take one more segment."""
        self.first = self.first or segment
        self.last = segment
        rows: list[tuple[SourceId, bytes, int, int, int, bytes]] = []
        for number, source in enumerate(segment.sources):
            for record in of_source(records, number):
                if record.op not in _KEPT_OPS:
                    continue
                key = record.key if record.op in (Op.SET, Op.DEL) else b""
                at_us, count = segment.start_us + record.dt_us, self._counts.get(source, 0)
                rows.append((source, key, count, at_us, int(record.op), record.value))
                self._counts[source] = count + 1
                self.size += len(key) + len(record.value)
        self.record_count += len(rows)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def has_room_for(self, size: int, count: int) -> bool:
        """Whether that many bytes and records more still fit into a run."""
        return self.size + size <= RUN_BYTES_MAX and self.record_count + count <= RUN_RECORDS_MAX

    @property
    def is_due(self) -> bool:
        """Whether it is long enough to be written."""
        if self.first is None or self.last is None:
            return False
        return self.record_count >= RECORDS_DUE or self.last.end_us - self.first.start_us >= HOUR_US

    @property
    def sources(self) -> list[SourceId]:
        """The sources that have records in it, in order."""
        return sorted(self._counts)

    def rows(self, source: SourceId) -> Iterator[HistoryRow]:
        """Yield the records of a source in the order of a run."""
        found = self._db.execute(
            "SELECT key, number, at_us, op, value FROM row WHERE source = ? ORDER BY key, number",
            (source,),
        )
        for row in found:
            yield HistoryRow(*row)
