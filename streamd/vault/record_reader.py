"""The records of one source, for listings: from history runs where there are, else from segments.

Records are decrypted, and what they stand in authenticates by its sealing; signatures and the chain
are not checked here. Whoever restores reads the journal itself.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from streamd.format.layout import JournalPosition, parse_segment_name
from streamd.model.ids import SourceId, WriterId
from streamd.model.record import NO_SOURCE, Op, Record
from streamd.storage.port import BlobName
from streamd.vault.history_reader import HistoryReader, OpenRun
from streamd.vault.index_reader import IndexGeneration
from streamd.vault.journal_reader import JournalReader, SegmentHead
from streamd.vault.parallel import OBJECT_FAULTS, in_waves
from streamd.vault.vault import Vault

_WIDTH: Final = 16
_MS_US: Final = 1000
_STATE_OPS: Final = frozenset({Op.SET, Op.DEL})


def heads_in(index: IndexGeneration, writer: WriterId) -> dict[BlobName, SegmentHead]:
    """Return the heads of a journal's segments as far as an index knows them."""
    manifest, found = index.manifest, dict[BlobName, SegmentHead]()
    for row in manifest.objects:
        if not row.end_us:
            continue
        name = index.full_name(row)
        position = parse_segment_name(name)
        if position is not None:
            sources = tuple(SourceId(manifest.sources[number]) for number in row.sources)
            found[name] = SegmentHead(
                writer, position, row.start_us, row.end_us, sources, row.size, name
            )
    return found


class RecordReader:
    """Reads the records of one source of a journal. `heads` are all segments, in order."""

    def __init__(
        self, vault: Vault, journal: JournalReader, heads: Sequence[SegmentHead], source: SourceId
    ) -> None:
        self._history = HistoryReader(vault)
        self._journal = journal
        self._heads = heads
        self._source = source

    async def records(
        self,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        prefixes: Sequence[bytes] | None = None,
    ) -> AsyncIterator[tuple[int, Record]]:
        """Yield (instant, record), in the order of the journal.

        `prefixes` leaves out SET and DEL of keys that begin otherwise. Records outside of the
        times may be among them. A segment or run that does not parse is left out.
        """
        runs = await self._chosen_runs(since_us, until_us)
        segments: list[SegmentHead] = []
        for head in self._heads:
            if until_us is not None and head.start_us > until_us:
                break
            while runs and runs[0].root.cover.last < head.position:
                run = runs.pop(0)
                async for item in self._from_segments(segments, prefixes):
                    yield item
                segments = []
                async for item in self._from_run(run, prefixes):
                    yield item
            is_covered = bool(runs) and runs[0].root.cover.first <= head.position
            is_early = since_us is not None and head.end_us < since_us
            if not is_covered and not is_early and self._source in head.sources:
                segments.append(head)
        async for item in self._from_segments(segments, prefixes):
            yield item
        for run in runs:
            async for item in self._from_run(run, prefixes):
                yield item

    async def _chosen_runs(self, since_us: int | None, until_us: int | None) -> list[OpenRun]:
        """Return runs that do not overlap, in order; of two that do, the higher level."""
        if not self._heads:
            return []
        begin_ms = self._heads[0].start_us // _MS_US
        listed = [
            run
            for run in await self._history.listed(self._source)
            if run.span.start_us // _MS_US >= begin_ms  # else the journal was cut off in it
            and (since_us is None or run.span.end_us + _MS_US > since_us)
            and (until_us is None or run.span.end_us <= until_us)
        ]
        positions = {head.position for head in self._heads}
        listed.sort(key=lambda run: (-run.span.level, run.span.start_us))
        chosen: list[OpenRun] = []
        async for _, opened in in_waves(listed, self._history.open, width=_WIDTH):
            if isinstance(opened, Exception):
                continue
            cover = opened.root.cover
            is_ours = cover.writer == self._journal.writer and cover.first in positions
            if is_ours and not any(_overlap(cover.first, cover.last, each) for each in chosen):
                chosen.append(opened)
        return sorted(chosen, key=lambda run: run.root.cover.first)

    async def _from_run(
        self, run: OpenRun, prefixes: Sequence[bytes] | None
    ) -> AsyncIterator[tuple[int, Record]]:
        try:
            rows = await self._history.rows(run, prefixes)
        except OBJECT_FAULTS:
            cover = run.root.cover
            covered = [
                head
                for head in self._heads
                if cover.first <= head.position <= cover.last and self._source in head.sources
            ]
            async for item in self._from_segments(covered, prefixes):
                yield item
            return
        for row in rows:
            yield row.at_us, Record(Op(row.op), 0, 0, row.key, row.value)

    async def _from_segments(
        self, heads: Sequence[SegmentHead], prefixes: Sequence[bytes] | None
    ) -> AsyncIterator[tuple[int, Record]]:
        async for head, records in in_waves(heads, self._journal.records_of, width=_WIDTH):
            if isinstance(records, Exception):
                continue
            for record in _wanted(of_source(records, head.sources.index(self._source)), prefixes):
                yield head.start_us + record.dt_us, record


def of_source(records: Sequence[Record], number: int) -> list[Record]:
    """Return the records of a segment's source; gaps and marks of no source are everybody's."""
    return [
        record
        for record in records
        if record.source_ix == number
        or (record.source_ix == NO_SOURCE and record.op in (Op.GAP, Op.MARK))
    ]


def _wanted(records: list[Record], prefixes: Sequence[bytes] | None) -> list[Record]:
    """Return the records but for changes of keys that begin otherwise."""
    if prefixes is None:
        return records
    beginnings = tuple(prefixes)
    return [
        record
        for record in records
        if record.op not in _STATE_OPS or record.key.startswith(beginnings)
    ]


def _overlap(first: JournalPosition, last: JournalPosition, other: OpenRun) -> bool:
    cover = other.root.cover
    return first <= cover.last and cover.first <= last
