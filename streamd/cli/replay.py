"""A source's history as a sequence of steps: what was kept whole, and what was recorded after it.

Where the journal is there, every commit is a step. Where it has been thinned, the checkpoints kept
from that time are, each a whole state. Together they are all that is known.
"""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Final

import msgspec

from streamd.cli.times import LATEST_US
from streamd.format.checkpoint import CheckpointRoot
from streamd.model.record import Record
from streamd.vault.journal_reader import SegmentHead, follows
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.state_reader import CheckpointRow, StateReader

_MS_US: Final = 1_000
_BEGINNING_US: Final = -1


class Kept(msgspec.Struct, frozen=True):
    """The whole state at an instant; nothing is known of how it came from the one before."""

    at_us: int
    root: CheckpointRoot


class Commit(msgspec.Struct, frozen=True):
    """Records of one instant, to be applied together."""

    at_us: int
    records: list[Record]


async def steps(
    reader: StateReader, source: str, *, damage: list[str]
) -> AsyncIterator[Kept | Commit]:
    """Yield the history of a source, oldest first; unreadable checkpoints are noted in `damage`."""
    rows = _needed(await reader.heads(), await reader.checkpoints(source))
    kept = _readable(reader, rows, damage)
    state = await anext(kept, None)
    commit: Commit | None = None
    async for at_us, record in reader.changes(source, _BEGINNING_US, LATEST_US):
        if commit is not None and commit.at_us == at_us:
            commit.records.append(record)
            continue
        if commit is not None:
            yield commit
        while state is not None and state.at_us < at_us:
            yield state
            state = await anext(kept, None)
        commit = Commit(at_us, [record])
    if commit is not None:
        yield commit
    while state is not None:
        yield state
        state = await anext(kept, None)


async def _readable(
    reader: StateReader, rows: list[CheckpointRow], damage: list[str]
) -> AsyncIterator[Kept]:
    for row in rows:
        try:
            root = await reader.read_checkpoint(row.name)
        except OBJECT_FAULTS as error:
            damage.append(f"{row.name}: {error}")
        else:
            yield Kept(root.at_us, root)


def _needed(heads: list[SegmentHead], rows: list[CheckpointRow]) -> list[CheckpointRow]:
    """Return the checkpoints that tell what the journal does not: those in or before a hole."""
    holes: list[tuple[int, int]] = []
    for writer in {head.writer for head in heads}:
        own = sorted(
            (head for head in heads if head.writer == writer), key=lambda head: head.position
        )
        holes.append((_BEGINNING_US, own[0].start_us))
        holes.extend(
            (last.end_us, head.start_us)
            for last, head in pairwise(own)
            if not follows(head.position, last.position)
        )
    if not heads:
        return list(rows)
    return [
        row
        for row in rows
        if any(start - _MS_US <= row.at_ms * _MS_US < end for start, end in holes)
    ]
