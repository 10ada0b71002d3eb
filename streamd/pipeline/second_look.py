"""A second look at entries that changed between being seen and being read.

An editor that replaces a file, or a rename, may come just in between. Looking again at once,
before the cut is committed, keeps the cut true to one moment; what does not settle is left for the
next cut.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import field

from streamd.model.entry import EntryType
from streamd.pipeline.findings import BATCH_BYTES_MAX, Found
from streamd.policy.identity import Known, is_same_file
from streamd.sources.port import Outcome, ReadResult, Source

ROUNDS_MAX: Final = 3
_UNSETTLED: Final = frozenset({Outcome.VANISHED, Outcome.TYPE_CHANGED})
_QUICK: Final = frozenset({int(EntryType.REGULAR), int(EntryType.SYMLINK)})


class SecondLook(msgspec.Struct):
    """What a second look found: entries to read again, by position, and names that are gone."""

    again: dict[int, Found] = field(default_factory=dict)
    gone: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    def take_into(
        self, entries: list[Found], results: list[ReadResult], fresh: Sequence[ReadResult]
    ) -> None:
        """Put what was read again, with its results `fresh`, in its place; drop what is gone."""
        for (position, entry), result in zip(self.again.items(), fresh, strict=True):
            entries[position], results[position] = entry, result
        for position in sorted(self.gone, reverse=True):
            del entries[position], results[position]


def unsettled(results: Sequence[ReadResult]) -> list[int]:
    """Return the positions of entries that were not what they had been."""
    return [index for index, result in enumerate(results) if result.outcome in _UNSETTLED]


def look(
    source: Source, entries: Sequence[Found], positions: Sequence[int], new_fid: Callable[[], int]
) -> SecondLook:
    """Look at the entries at `positions` once more. Blocking.

    Only where nothing else can have changed with them: the directory must be the same one, and the
    entry a file or a symbolic link with one name, or gone.
    """
    found = SecondLook()
    for position in positions:
        entry = entries[position]
        directory = entry.path[: -len(entry.name) - 1] or b"/"
        if entry.parent <= 0 or entry.stat.type not in _QUICK:
            continue
        listing = source.examine(directory, [entry.name])
        if listing.error or listing.own is None or listing.own.ino != entry.parent_ino:
            continue
        now = listing.entries.get(entry.name)
        if now is None:
            if entry.name not in listing.failed:
                found.gone[position] = (entry.parent, entry.name)
            continue
        seen = source.identify(directory, [entry.name]).get(entry.name)
        if now.type not in _QUICK or now.size > BATCH_BYTES_MAX:
            continue
        if seen is None or (seen.dev, seen.ino) != (now.dev, now.ino):
            continue
        known = Known(entry.stat, entry.generation, 0)
        if is_same_file(known, now, seen, is_in_place=True):
            found.again[position] = entry._replace(stat=now, generation=seen.generation)
        elif now.nlink == 1:
            found.again[position] = entry._replace(
                stat=now, fid=new_fid(), is_fresh=True, generation=seen.generation
            )
    return found
