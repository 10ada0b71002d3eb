"""Keep the accelerators: write history runs and index generations, and let old ones go.

Nothing else depends on them, so nothing is marked, moved or waited for; but what goes is written
down before it goes, like everything that is ever deleted.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from streamd.errors import KeyRejected
from streamd.format import layout
from streamd.maintenance.generations import Generations
from streamd.maintenance.history_writing import merge_history, write_history
from streamd.maintenance.index_writing import write_index
from streamd.maintenance.site import Site
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.history_reader import HistoryReader, ListedRun
from streamd.vault.index_reader import generations, newest_index
from streamd.vault.journal_reader import JournalReader
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.vault import Vault

UNCOVERED_MIN: Final = 256  # objects that an index may lack before the next one is due, …
UNCOVERED_SHARE: Final = 4  # … or a quarter of what it has, if that is more
_PATIENCE_SECONDS: Final = 60.0
_MS_US: Final = 1000


class RunsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was written and dropped."""

    history_runs: int = 0
    index_chunks: int | None = None  # None: no new index was due
    dropped: int = 0


async def keep_runs(site: Site, record: BlobStore, *, force_index: bool = False) -> RunsReport:
    """Write what is due and drop what is superseded. Raises what stores raise.

    `record` is the vault of record. One task at a time does maintenance on a site.
    """

    async def is_durable(numbers: Sequence[int]) -> bool:
        return await site.are_durable(numbers, patience_seconds=_PATIENCE_SECONDS)

    await site.finish_puts()
    deletions = Generations(site)
    if not await deletions.finish(is_durable):
        return RunsReport()  # the vault of record is behind: later
    written = await write_history(site)
    with suppress(KeyRejected):  # a host that may not read leaves its runs as it wrote them
        written += await merge_history(site, site.clock.now_us())
    names = await superseded(site.vault)
    if names:
        await deletions.condemn(names)
        await deletions.finalise(names, ())
        await deletions.carry_out(is_durable)
    chunks: int | None = None
    if force_index or await index_is_due(site, record):  # last: it says what there is
        chunks = await write_index(site, record)
    return RunsReport(history_runs=written, index_chunks=chunks, dropped=len(names))


async def index_is_due(site: Site, record: BlobStore) -> bool:
    """Whether the newest index knows objects that are gone, or lacks many that are there."""
    index = await newest_index(site.vault, [])
    if index is None:
        return True
    known = set(index.objects())
    fresh = 0
    async for info in record.scan(layout.domain_prefix(site.vault.keys.domain)):
        if info.name in known:
            known.discard(info.name)
        elif layout.parse_index_name(info.name) is None:
            fresh += 1
    count = len(index.manifest.objects)
    return bool(known) or fresh >= max(UNCOVERED_MIN, count // UNCOVERED_SHARE)


async def superseded(vault: Vault) -> list[BlobName]:
    """Return the runs and generations that no reader needs any more.

    Of the generations the newest stays, and so the one before it until the next time.
    """
    names: list[BlobName] = []
    known = await generations(vault)
    newest = await newest_index(vault, [])
    if newest is not None:
        for generation, its in known.items():
            if generation < newest.manifest.generation:
                names += its
    runs = await HistoryReader(vault).listed()
    begin_ms = await _journal_begin_ms(vault)
    for run in runs:
        is_cut = begin_ms is not None and run.span.start_us // _MS_US < begin_ms
        if is_cut or any(_contains(other, run) for other in runs):
            names.append(run.name)
    return names


def _contains(other: ListedRun, run: ListedRun) -> bool:
    return (
        other.span.source == run.span.source
        and other.span.level > run.span.level
        and other.span.start_us <= run.span.start_us
        and run.span.end_us <= other.span.end_us
    )


async def _journal_begin_ms(vault: Vault) -> int | None:
    """Return when the journal of this host begins by now; None if that cannot be said."""
    journal = JournalReader(vault, vault.keys.writer)
    rows = await journal.list_segments()
    if not rows:
        return None
    try:
        return (await journal.read_head(rows[0])).start_us // _MS_US
    except OBJECT_FAULTS:
        return None
