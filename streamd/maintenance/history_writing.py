"""Write history runs: the journal's records again, sorted by key, an hour or 65,536 at a time.

What a run covers stays in the journal: the run only spares whoever asks for one file's versions
from opening every segment. A host that may not read its own journal covers what it has written
since its start, for of that it still has the session keys.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from streamd.catalog.db import get_bytes, put_value
from streamd.errors import KeyRejected, VaultDamaged
from streamd.format.envelope import Kind
from streamd.format.history_run import (
    RUN_BYTES_MAX,
    Cover,
    HistoryRoot,
    HistoryRow,
)
from streamd.format.layout import JournalPosition
from streamd.format.segment import Segment
from streamd.maintenance.site import Site
from streamd.maintenance.stretch import HOUR_US, Stretch
from streamd.model.ids import SourceId
from streamd.model.record import Record
from streamd.vault.history_reader import HistoryReader, ListedRun
from streamd.vault.journal_reader import JournalReader, SegmentRow, follows
from streamd.vault.parallel import OBJECT_FAULTS, in_thread

DAY_US: Final = 24 * HOUR_US
MERGE_MIN: Final = 2  # fewer runs of a day are left as they are
MERGED_RECORDS_MAX: Final = 131_072  # they are objects of Python for a while, some 350 bytes each
_Part = tuple[HistoryRoot, list[HistoryRow]]
_THROUGH: Final = "history_through"  # in table meta: the last segment that runs cover


async def write_history(site: Site) -> int:
    """Write the runs that are due; return how many. Raises what the store raises."""
    journal = JournalReader(site.vault, site.vault.keys.writer)
    through = await site.catalog.read(_read_through)
    if through is None:
        through = await _covered_through(site)
    rows = [row for row in await journal.list_segments() if row.position > through]
    with Stretch() as stretch:
        return await _write_stretches(site, journal, rows, stretch, through)


async def _write_stretches(
    site: Site,
    journal: JournalReader,
    rows: Sequence[SegmentRow],
    stretch: Stretch,
    last: JournalPosition,
) -> int:
    written = 0
    for row in rows:
        if stretch.last is not None and not follows(row.position, last):
            stretch.clear()  # behind a hole another stretch begins
        last = row.position
        try:
            segment, records = await _read(site, journal, row)
        except (KeyRejected, *OBJECT_FAULTS):
            written += await _flush(site, stretch)
            continue
        size = sum(len(record.key) + len(record.value) for record in records)
        if not stretch.has_room_for(size, len(records)):
            written += await _flush(site, stretch)
            if not stretch.has_room_for(size, len(records)):
                continue  # this one alone is too much for a run: it stays a segment
        await in_thread(partial(stretch.add, segment, records))
        if stretch.is_due:
            written += await _flush(site, stretch)
    return written


async def _read(
    site: Site, journal: JournalReader, row: SegmentRow
) -> tuple[Segment, list[Record]]:
    segment = await journal.read_segment(row)
    return segment, await in_thread(partial(segment.records, site.vault.keys.secret_for))


async def _flush(site: Site, stretch: Stretch) -> int:
    """Write a run for each source in a stretch, remember how far they reach, and begin another."""
    if stretch.first is None or stretch.last is None:
        return 0
    first, last = stretch.first, stretch.last
    cover = Cover(site.vault.keys.writer, *first.position, *last.position, last.hash)
    sources = stretch.sources
    for source in sources:
        root = HistoryRoot(source, 1, first.start_us, last.end_us, cover, ())
        await _publish(site, root, stretch.rows(source))
    await site.catalog.write(_write_through, last.position)
    stretch.clear()
    return len(sources)


async def _publish(site: Site, root: HistoryRoot, rows: Iterable[HistoryRow]) -> None:
    """Put a run of sorted rows."""
    encoded = await in_thread(partial(site.writer.encode_history, root, rows))
    await site.publish(Kind.HISTORY, encoded)


async def _covered_through(site: Site) -> JournalPosition:
    """Return how far runs reach that an earlier catalog knew of."""
    reader, found = HistoryReader(site.vault), JournalPosition(0, 0)
    newest: dict[SourceId, ListedRun] = {run.span.source: run for run in await reader.listed()}
    for run in newest.values():
        try:
            opened = await reader.open(run)
        except (KeyRejected, *OBJECT_FAULTS):
            continue
        if opened.root.cover.writer == site.vault.keys.writer:
            found = max(found, opened.root.cover.last)
    return found


def _read_through(connection: sqlite3.Connection) -> JournalPosition | None:
    stored = get_bytes(connection, _THROUGH)
    if not stored:
        return None
    return JournalPosition(int.from_bytes(stored[:8], "big"), int.from_bytes(stored[8:], "big"))


def _write_through(connection: sqlite3.Connection, position: JournalPosition) -> None:
    stored = position.epoch.to_bytes(8, "big") + position.seq.to_bytes(8, "big")
    put_value(connection, _THROUGH, stored)


# -- days ------------------------------------------------------------------------------------------


async def merge_history(site: Site, now_us: int) -> int:
    """Merge the runs of days that are over; return how many were written.

    Raises KeyRejected on a host that may not read, and what the store raises.
    """
    reader, written = HistoryReader(site.vault), 0
    days: dict[tuple[SourceId, int], list[ListedRun]] = {}
    for run in await reader.listed():
        day = run.span.start_us // DAY_US
        if run.span.level == 1 and (day + 1) * DAY_US < now_us - HOUR_US:
            days.setdefault((run.span.source, day), []).append(run)
    done = {
        (run.span.source, run.span.start_us // DAY_US)
        for run in await reader.listed()
        if run.span.level > 1
    }
    for place, runs in sorted(days.items()):
        if place not in done and len(runs) >= MERGE_MIN:
            written += await _merge(site, reader, runs)
    return written


async def _merge(site: Site, reader: HistoryReader, runs: Sequence[ListedRun]) -> int:
    """Write the runs of one day as few ones of level 2, up to one that is damaged.

    However much changed that day, the rows of one new run are held, and those of one old one.
    """
    group: list[_Part] = []
    written = 0
    for run in runs:
        try:
            part = await reader.read_whole(run.name)
        except OBJECT_FAULTS:
            break
        if group and not _fits(group, part):
            written += await _publish_merged(site, group)
            group = []
        group.append(part)
    return written + await _publish_merged(site, group)


def _fits(group: Sequence[_Part], after: _Part) -> bool:
    """Whether a run continues those of a group, and is not too much for one run with them."""
    size = sum(_size(rows) for _, rows in (*group, after))
    count = sum(len(rows) for _, rows in (*group, after))
    is_next = follows(after[0].cover.first, group[-1][0].cover.last)
    return is_next and size <= RUN_BYTES_MAX and count <= MERGED_RECORDS_MAX


async def _publish_merged(site: Site, group: Sequence[_Part]) -> int:
    if len(group) < MERGE_MIN:
        return 0
    root, rows = _merged(group)
    rows.sort(key=lambda row: (row.key, row.number))
    await _publish(site, root, rows)
    return 1


def _size(rows: Sequence[HistoryRow]) -> int:
    return sum(len(row.key) + len(row.value) for row in rows)


def _merged(
    group: Sequence[_Part],
) -> tuple[HistoryRoot, list[HistoryRow]]:
    first, last = group[0][0], group[-1][0]
    if first.source != last.source:
        raise VaultDamaged("runs of different sources cannot be merged")
    cover = Cover(first.cover.writer, *first.cover.first, *last.cover.last, last.cover.hash)
    rows: list[HistoryRow] = []
    for _, part in group:
        start = len(rows)
        rows += [
            HistoryRow(row.key, start + row.number, row.at_us, row.op, row.value) for row in part
        ]
    return HistoryRoot(first.source, 2, first.start_us, last.end_us, cover, ()), rows
