"""Checkpoints in time: at least one a day, so that any state is a short replay away."""

from collections.abc import Iterable
from typing import Final

from streamd.catalog.db import get_int, put_value
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.maintenance.site import Site
from streamd.vault.state_reader import StateReader

DAY_US: Final = 86_400_000_000
CHECKPOINT_WANTED: Final = "checkpoint_wanted"  # in table meta: the journal before is damaged
JOURNAL_BYTES: Final = 64 * 1024 * 1024  # a record takes about 70 bytes: some million of them


async def checkpoint_due(site: Site, sources: Iterable[str]) -> int:
    """Write a checkpoint of each source whose last one is a day or 64 MiB of journal behind.

    Of all that have changed, if a rebuild met a damaged journal: no replay gets across that, but
    a checkpoint stands on its own. Returns how many were written. Needs no private key.
    """
    is_wanted = bool(await site.catalog.read(get_int, CHECKPOINT_WANTED))
    reader, written = StateReader(site.vault), 0
    heads = await reader.heads()
    for name in sources:
        source = reader.source_id(name)
        rows = await reader.checkpoints(source)
        last_us = rows[-1].at_ms * 1000 + 999 if rows else 0
        behind = [head for head in heads if head.end_us > last_us and source in head.sources]
        if not behind:
            continue
        size = sum(head.size_bytes for head in behind)
        is_old = site.clock.now_us() - behind[0].start_us >= DAY_US
        is_due = is_wanted or is_old or size >= JOURNAL_BYTES
        if is_due and await checkpoint_current(site, name):
            written += 1
    if is_wanted:
        await site.catalog.write(put_value, CHECKPOINT_WANTED, 0)
    return written
