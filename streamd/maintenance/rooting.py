"""Give every kept point outside the window a checkpoint of its own, and prove what was written.

A point of the past is replayed from the journal. The newest one need not be: the catalog has it,
and the last segment says the sum that a replay would arrive at. Whatever was written is read back
from the vault and summed again, and what its rows refer to is marked as needed on the way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from operator import ge
from typing import Final

import msgspec

from streamd.errors import VaultDamaged
from streamd.format import batch, checkpoint, state_sum, wire
from streamd.format.checkpoint import CheckpointRoot
from streamd.format.crypto import Buffer
from streamd.format.keys import Role
from streamd.maintenance.checkpointing import (
    RowsDiffer,
    checkpoint_newest,
    checkpoint_replayed,
    replay,
)
from streamd.maintenance.cut import Verdict
from streamd.maintenance.live import LiveSet
from streamd.maintenance.points import SourceHistory
from streamd.maintenance.site import Site
from streamd.model.ids import SourceId
from streamd.model.record import Op, StateSum
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import JournalReader, SegmentRow
from streamd.vault.parallel import in_thread
from streamd.vault.state_reader import StateReader

_STATE: Final = msgspec.msgpack.Decoder(StateSum)
_AT_ONCE_BYTES: Final = 2 << 20  # of pages summed up in one go
_CHANGING: Final = frozenset({Op.SET, Op.DEL, Op.RESET})
Progress = Callable[[str, int, int], None]  # step, done, of how many (0: unknown)


class Rooted(msgspec.Struct, frozen=True):
    """A checkpoint that a run wrote, and the state that it was written of."""

    name: BlobName
    source: SourceId
    state: StateSum
    is_newest: bool = False  # the rows are those of the catalog


async def root_points(
    site: Site, reader: StateReader, verdicts: Sequence[Verdict], progress: Progress
) -> list[Rooted]:
    """Write a checkpoint of each kept point outside the window that has none. VaultDamaged."""
    wanted = [(verdict.history, verdict.points_without_root()) for verdict in verdicts]
    total = sum(len(points) for _, points in wanted)
    written: list[Rooted] = []
    for history, points in wanted:
        newest = await _newest(site, history, points[-1]) if points else None
        rest = points if newest is None else points[:-1]
        if rest:
            async for state in replay(site, reader, history.id, rest):
                progress("checkpoint", len(written), total)
                name = await checkpoint_replayed(site, state)
                written.append(Rooted(name, history.id, state.state))
        if newest is not None:
            written.append(newest)
    return written


async def _newest(site: Site, history: SourceHistory, at_us: int) -> Rooted | None:
    """Write a checkpoint from the catalog if `at_us` is its state, and the journal says so too."""
    stated = await _last_sum(site, history, at_us)
    if stated is None:
        return None
    try:
        name = await checkpoint_newest(site, history.name, history.id, at_us, stated)
    except RowsDiffer:  # of a newer streamd, whose additions the catalog does not keep
        return None
    return None if name is None else Rooted(name, history.id, stated, is_newest=True)


async def _last_sum(site: Site, history: SourceHistory, at_us: int) -> StateSum | None:
    """Return what a replay up to the end of the source's last segment, `at_us`, arrives at."""
    if not history.heads:
        return None
    head = history.heads[-1]
    if head.end_us != at_us or head.writer != site.vault.keys.writer:
        return None
    row = SegmentRow(head.position, head.name, head.size_bytes)
    segment = await JournalReader(site.vault, head.writer).read_segment(row)
    number = segment.sources.index(history.id)
    stated: StateSum | None = None
    for record in segment.records(site.vault.keys.secret_for):
        if record.source_ix != number:
            continue
        if record.op == Op.STATE:
            stated = wire.decode(_STATE, record.value, "a state sum")
        elif record.op in _CHANGING:
            stated = None
    return stated


async def prove_roots(
    reader: StateReader,
    verdicts: Sequence[Verdict],
    written: Sequence[Rooted],
    live: LiveSet,
    progress: Progress,
) -> None:
    """Read back what was written: it must be the state that was to be kept. VaultDamaged.

    What the rows refer to is in `live` afterwards, and the roots are in the histories.
    """
    histories = {verdict.history.id: verdict.history for verdict in verdicts}
    for done, rooted in enumerate(written):
        progress("read back", done, len(written))
        root = await reader.read_checkpoint(rooted.name)
        if root.state != rooted.state or root.source != rooted.source:
            raise VaultDamaged(f"{rooted.name} is not what was written", name=rooted.name)
        await _prove(reader, rooted.name, root, live)
        histories[rooted.source].roots[rooted.name] = root
    for verdict in verdicts:
        if verdict.points_without_root():
            raise VaultDamaged(f"a kept point of {verdict.history.name} has no checkpoint")


async def _prove(reader: StateReader, name: BlobName, root: CheckpointRoot, live: LiveSet) -> None:
    """Raise VaultDamaged unless the pages of a root hold what its state sum says."""
    seen = _Seen(live)
    held: dict[bytes, Buffer] = {}
    async for pages in reader.chunks.read_chunks({page.id for page in root.pages}, Role.META):
        held |= pages
        if sum(map(len, held.values())) >= _AT_ONCE_BYTES:
            await in_thread(partial(seen.add, held))
            held = {}
    await in_thread(partial(seen.add, held))
    for page, following in pairwise(root.pages):
        if seen.spans[page.id][1] >= seen.spans[following.id][0]:
            raise VaultDamaged(f"{name} has a key twice, or not in order", name=name)
    if StateSum(state_sum.to_bytes(seen.total), seen.count) != root.state:
        raise VaultDamaged(f"{name} is not the state that it was written of", name=name)
    live.has_marked(root)


class _Seen:
    """Sums up pages and marks what they refer to. Blocking."""

    def __init__(self, live: LiveSet) -> None:
        self._live = live
        self.total = self.count = 0
        self.spans: dict[bytes, tuple[bytes, bytes]] = {}  # page -> its first and last key

    def add(self, pages: Mapping[bytes, Buffer]) -> None:
        """Take pages, each a sorted part of the state, in any order. Raises VaultDamaged."""
        for page_id, body in pages.items():
            rows = checkpoint.decode_page(body)
            keys = [key for key, _ in rows]
            if any(map(ge, keys, islice(keys, 1, None))):
                raise VaultDamaged("a checkpoint page has a key twice, or not in order")
            self.spans[page_id] = keys[0], keys[-1]
            self.count += len(rows)
            self.total += batch.sum_rows(rows)
            self._live.add_rows(rows)


def proven_in_catalog(written: Iterable[Rooted]) -> dict[SourceId, StateSum]:
    """Return the sources whose present state, as the catalog has it, was just proved."""
    return {rooted.source: rooted.state for rooted in written if rooted.is_newest}
