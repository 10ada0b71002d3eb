"""Comparing a tree with the catalog, to find where to look: nothing is read and nothing recorded.

It walks the directories that the catalog knows, so what is new shows in its directory. What it
says is a hint like an event: a survey looks there and decides, for a comparison goes on beside
live surveys, and the catalog may be behind what is under way.

Several comparisons may share the work: each examines the directories whose number is its `part` of
`parts`, and reads from the catalog what is below the others. Blocking.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from errno import ENOENT, ENOTDIR
from typing import Final, NamedTuple

from streamd.catalog.walk import AGAIN, NUMBER, STAT, RawRow, WalkLookup
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.model.names import PackedNames
from streamd.sources.port import VIRTUAL_ROOT, Listing

DIFFERENCES_MAX: Final = 50_000  # more, and surveying everything is no more work
_GONE: Final = frozenset({ENOENT, ENOTDIR})
_DIRECTORY: Final = int(EntryType.DIRECTORY)
_DEV: Final = HostStat._fields.index("dev")  # may change when a file system is mounted again
_INO: Final = STAT + HostStat._fields.index("ino")  # in a row
_SLASH: Final = b"/"

Examine = Callable[[bytes, Sequence[bytes] | None], Listing]
ExamineKnown = Callable[[bytes, Callable[[], list[RawRow]]], Listing]


class Kind(IntEnum):
    """What a difference is."""

    CHANGED = 0
    NEW = 1
    GONE = 2
    DIRECTORY = 3  # of a directory itself: its times follow what is in it
    AGAIN = 4  # not a difference: it could not be captured well the last time
    UNREADABLE = 5  # cannot be examined
    FORMER = 6  # a configured path of earlier
    TOO_LARGE = 7  # not a difference: left out by its size, which has to be told


class Difference(NamedTuple):
    """Look at `path`; if `is_deep`, at everything below it too."""

    path: bytes
    kind: int
    is_deep: bool = False


class Comparison:
    """Compares one source. `entry_count` says afterwards at how many entries it has looked.

    `examine_known` is for sources that find by themselves what is as it was; see `Listing.rest`.
    """

    def __init__(
        self,
        examine: Examine,
        lookup: WalkLookup,
        roots: Sequence[bytes],
        *,
        part: int = 0,
        parts: int = 1,
        examine_known: ExamineKnown | None = None,
    ) -> None:
        self._examine = examine
        self._examine_known = examine_known
        self._lookup = lookup
        self._roots = tuple(roots)
        self._part, self._parts = part, parts
        self.entry_count = 0
        self.seen: Counter[str] = Counter()  # by class

    def differences(self, scopes: Sequence[bytes]) -> Iterator[list[Difference]]:
        """Yield what differs at and below `scopes`, directory by directory; empty lists too."""
        if self._part == 0:
            former = self._lookup.children(self._lookup.root).keys() - set(self._roots)
            yield [Difference(path, Kind.FORMER) for path in sorted(former)]
        for scope in scopes:
            at = self._find(scope)
            if at is None:
                yield [Difference(scope, Kind.NEW, is_deep=True)] if self._part == 0 else []
            else:
                yield from self._walk(*at)

    def _find(self, scope: bytes) -> tuple[bytes, int, bytes] | None:
        """Return (directory, its number, name) of a scope; None when the catalog has no such."""
        for root in self._roots:
            if scope == root:
                return VIRTUAL_ROOT, self._lookup.root, root
            if scope.startswith(root.rstrip(_SLASH) + _SLASH):
                break
        else:
            return None
        known = self._lookup.directory(self._lookup.root, root)
        directory = root
        *between, name = scope[len(root.rstrip(_SLASH)) + 1 :].split(_SLASH)
        for step in between:
            if known is None:
                return None
            known = self._lookup.directory(known[0], step)
            directory = _join(directory, step)
        return None if known is None else (directory, known[0], name)

    def _walk(self, directory: bytes, fid: int, name: bytes) -> Iterator[list[Difference]]:
        listing = self._examine(directory, [name])
        row = self._lookup.rows_between(fid, name, name + b"\0").get(name)
        known = {} if row is None else {name: row}
        found = self._compare(directory, listing, known) if self._part == 0 else []
        if directory == VIRTUAL_ROOT and name not in listing.entries:
            found = [
                Difference(name, Kind.GONE, is_deep=True)
            ]  # the survey knows what to make of it
        yield found
        if row is None or not _is_same_directory(row, listing, name):
            return
        stack = [(_join(directory, name), row[NUMBER], row[_INO], True)]
        while stack:
            path, fid, ino, is_checked = stack.pop()
            if fid % self._parts != self._part:
                children = self._lookup.directories(fid)
                stack.extend(
                    (_join(path, each), child, ino, False) for each, child, ino in children
                )
                continue
            if not is_checked and not self._is_still(path, ino):
                continue
            yield self._visit(path, fid, ino, stack)

    def _is_still(self, path: bytes, ino: int) -> bool:
        """Say whether a directory, whose own directory is another's part, is to be entered."""
        directory, _, name = path.rpartition(_SLASH)
        listing = self._examine(directory or _SLASH, [name])
        now = listing.entries.get(name)
        is_open = name not in listing.closed
        return now is not None and now.ino == ino and now.type == _DIRECTORY and is_open

    def _visit(
        self, path: bytes, fid: int, ino: int, stack: list[tuple[bytes, int, int, bool]]
    ) -> list[Difference]:
        """Compare one directory; those in it that are to be visited go to `stack`."""
        if self._examine_known is None:
            listing = self._examine(path, None)
        else:
            listing = self._examine_known(path, lambda: self._lookup.sorted_rows(fid))
        if listing.error:
            gone = listing.error in _GONE
            return [Difference(path, Kind.GONE if gone else Kind.UNREADABLE, is_deep=not gone)]
        if listing.own is not None and listing.own.ino != ino:
            return [Difference(path, Kind.CHANGED, is_deep=True)]
        if listing.names:
            return self._visit_in_slices(path, fid, listing.names, stack)
        rows = self._lookup.rows(fid) if listing.rest is None else listing.rest
        if rows and not listing.entries and not listing.same_count and path in self._roots:
            return [Difference(path, Kind.GONE, is_deep=True)]  # maybe not mounted
        found = self._compare(path, listing, rows)
        self._push(path, listing, rows, stack)
        return found

    def _visit_in_slices(
        self, path: bytes, fid: int, names: PackedNames, stack: list[tuple[bytes, int, int, bool]]
    ) -> list[Difference]:
        found: list[Difference] = []
        for number in range(len(names)):
            listing = self._examine(path, names.slice(number))
            if listing.error:
                return [*found, Difference(path, Kind.UNREADABLE, is_deep=True)]
            rows = self._lookup.rows_between(fid, *names.span(number))
            found += self._compare(path, listing, rows)
            self._push(path, listing, rows, stack)
            if len(found) > DIFFERENCES_MAX:
                break
        return found

    def _push(
        self,
        path: bytes,
        listing: Listing,
        rows: dict[bytes, RawRow],
        stack: list[tuple[bytes, int, int, bool]],
    ) -> None:
        for name, now in listing.entries.items():
            if now.type == _DIRECTORY and name in rows:
                row = rows[name]
                if _is_same_directory(row, listing, name):
                    stack.append((_join(path, name), row[NUMBER], row[_INO], True))

    def _compare(
        self, directory: bytes, listing: Listing, rows: dict[bytes, RawRow]
    ) -> list[Difference]:
        found: list[Difference] = []
        entries = listing.entries
        self.entry_count += len(entries) + listing.same_count
        listing.count_into(self.seen)
        for name, now in entries.items():
            row = rows.get(name)
            if row is None:
                found.append(Difference(_join(directory, name), Kind.NEW))
                continue
            was = row[STAT:]
            if was == now or (was[:_DEV] == now[:_DEV] and was[_DEV + 1 :] == now[_DEV + 1 :]):
                if row[AGAIN]:
                    found.append(Difference(_join(directory, name), Kind.AGAIN))
                continue
            is_directory = row[STAT] == now.type == _DIRECTORY and row[_INO] == now.ino
            kind = Kind.DIRECTORY if is_directory else Kind.CHANGED
            found.append(Difference(_join(directory, name), kind))
        found += [Difference(_join(directory, name), Kind.UNREADABLE) for name in listing.failed]
        too_large = listing.too_large
        found += [Difference(_join(directory, name), Kind.TOO_LARGE) for name in sorted(too_large)]
        if len(rows) + len(found) > len(entries):
            gone = rows.keys() - entries.keys() - listing.failed.keys() - too_large
            found += [Difference(_join(directory, name), Kind.GONE) for name in sorted(gone)]
        return found


def _is_same_directory(row: RawRow, listing: Listing, name: bytes) -> bool:
    now = listing.entries.get(name)
    return (
        now is not None
        and now.type == row[STAT] == _DIRECTORY
        and now.ino == row[_INO]
        and name not in listing.closed
    )


def _join(directory: bytes, name: bytes) -> bytes:
    if directory == VIRTUAL_ROOT:
        return name
    return directory + name if directory == _SLASH else directory + _SLASH + name
