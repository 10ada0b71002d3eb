"""Recognising what a survey finds: which known file an entry is, wherever it is now.

An inode number says little, for it is used again; what tells is asked of the source for all
entries that are not as captured, a few hundred at a time. Blocking, used by one survey.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from streamd.catalog.lookup import NodeRow
from streamd.catalog.walk import WalkLookup
from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.visit import is_same
from streamd.policy.identity import Known, is_same_file
from streamd.sources.port import Listing, Source

_DIRECTORY: Final = int(EntryType.DIRECTORY)


class Recogniser:
    """Says of entries which files they are. `look_ahead` comes first."""

    def __init__(self, source: Source, lookup: WalkLookup, in_flight: InFlight) -> None:
        self._source = source
        self._lookup = lookup
        self._in_flight = in_flight
        self._directory = b""  # that was looked at ahead
        self._by_inode: dict[tuple[int, int], NodeRow | None] = {}
        self.seen: Mapping[bytes, Identity] = {}  # by name, of what was looked at ahead
        self.is_all_new = False  # nothing is known of any of that, nor of its inodes

    def look_ahead(
        self,
        directory: bytes,
        names: Sequence[bytes],
        listing: Listing,
        rows: Mapping[bytes, NodeRow],
    ) -> None:
        """Look up in one go what `names` in a directory may be, where they are not as captured."""
        self._directory = directory
        entries, taken = listing.entries, listing.fresh_identities()
        if rows:
            changed, other = _unlike(names, entries, rows)
        else:  # a new directory: short, because a first capture has no others
            changed = list(names)
            other = [(now.dev, now.ino) for now in [entries[name] for name in names]]
        known = self._lookup.by_inodes(other) if other else {}
        self._by_inode = {key: known.get(key) for key in other} if known else dict.fromkeys(other)
        self.is_all_new = not rows and not known
        old: list[bytes] = []  # known from before there were generations
        if not self.is_all_new:
            changed, old = self._by_age(changed, entries, rows)
        self.seen = {}
        if taken is not None:
            self.seen = taken if self.is_all_new else _some_of(taken, changed)
        elif changed:
            self.seen = self._source.identify(directory, changed, births=False)
        if old:
            self.seen = {**self.seen, **self._source.identify(directory, old, births=True)}

    def _by_age(
        self,
        names: Sequence[bytes],
        entries: Mapping[bytes, HostStat],
        rows: Mapping[bytes, NodeRow],
    ) -> tuple[list[bytes], list[bytes]]:
        """Tell what is new or was captured with a generation from what was captured without."""
        plain: list[bytes] = []
        old: list[bytes] = []
        for name in names:
            now, row = entries[name], rows.get(name)
            if row is None or row.stat.ino != now.ino:
                row = self._by_inode[now.dev, now.ino]
            (plain if row is None or row.generation else old).append(name)
        return plain, old

    def new_generation(self, name: bytes, now: HostStat) -> int | None:
        """Return the generation of an entry if it is a new file beyond doubt, with one name.

        That is what nearly all entries of a first capture are, so it is made short.
        """
        seen = self.seen.get(name)
        if seen is None or now.nlink != 1 or now.type == _DIRECTORY:
            return None
        dev, ino, generation, _ = seen
        is_known = self._by_inode.get((dev, ino), self) is not None
        return None if is_known or ino != now.ino or dev != now.dev else generation

    def is_lost(self, name: bytes, row: NodeRow | None, now: HostStat) -> bool:
        """Say whether an entry was replaced since it was listed. `row`: captured at its place."""
        seen = self.seen.get(name)
        if seen is None or (seen.dev, seen.ino) != (now.dev, now.ino):
            return True
        if row is None or not (row.generation and seen.generation) or not is_same(row.stat, now):
            return False
        if row.generation == seen.generation:
            return False
        # As captured when listed, another when identified. Where that is because handles mean other
        # things now (a snapshot in place of a btrfs subvolume) it stays so: nothing may wait.
        return self._source.examine(self._directory, [name]).entries.get(name) != now

    def generation(self, name: bytes) -> int:
        """Return which use of its inode number an entry is."""
        return self.seen[name].generation

    def is_still(self, row: NodeRow, name: bytes, now: HostStat) -> bool:
        """Say whether an entry is the file that was captured at its place."""
        if is_same(row.stat, now):
            return True  # the time of its last change too, to the nanosecond
        return self._is_file(row, name, now, is_in_place=True)

    def fid_of(self, name: bytes, row: NodeRow | None, now: HostStat) -> int | None:
        """Return the known file that an entry is, a captured one or one in flight.

        `row` is what was captured at its place. None: it is a new file.
        """
        if row is not None and row.stat.type == now.type:
            if row.stat.ino == 0:  # rebuilt from the vault: same place, identity unknown
                return row.fid
            if self.is_still(row, name, now):
                is_linked = now.nlink > 1 and now.type != _DIRECTORY
                return (self._elsewhere(name, now) if is_linked else None) or row.fid
        return self._elsewhere(name, now)

    def _elsewhere(self, name: bytes, now: HostStat) -> int | None:
        """Return the file that this new name belongs to: another link, or a renamed file."""
        key = now.dev, now.ino
        if now.nlink > 1 and now.type != _DIRECTORY:
            fid = self._in_flight.fid_of(*key, self.seen[name].generation)
            if fid is not None:
                return fid
        row = self._by_inode[key] if key in self._by_inode else self._lookup.by_inode(*key)
        if row is None or not self._is_file(row, name, now, is_in_place=False):
            return None
        return row.fid

    def _is_file(self, row: NodeRow, name: bytes, now: HostStat, *, is_in_place: bool) -> bool:
        seen = self.seen.get(name)
        if seen is None:
            return False
        is_old = not row.generation and seen.birth_ns
        birth_ns = self._lookup.birth_of(row.fid) if is_old else 0
        known = Known(row.stat, row.generation, birth_ns)
        return is_same_file(known, now, seen, is_in_place=is_in_place)


def _unlike(
    names: Sequence[bytes], entries: Mapping[bytes, HostStat], rows: Mapping[bytes, NodeRow]
) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Return the names that are not as captured, and the inodes that are not captured there."""
    changed: list[bytes] = []
    other: list[tuple[int, int]] = []
    for name in names:
        now, row = entries[name], rows.get(name)
        if row is None or row.stat.ino != now.ino:
            other.append((now.dev, now.ino))
        elif is_same(row.stat, now) and not row.again:
            continue
        changed.append(name)
    return changed, other


def _some_of(seen: Mapping[bytes, Identity], names: Sequence[bytes]) -> dict[bytes, Identity]:
    return {name: seen[name] for name in names if name in seen}
