"""What a survey must remember besides its findings: what it is not sure of, and what moved."""

from collections.abc import Collection, Iterator

from streamd.catalog.dirty import DirtyPlace
from streamd.catalog.lookup import NodeRow, TreeLookup
from streamd.model.entry import EntryType
from streamd.pipeline.findings import Found
from streamd.policy.settling import above

_DIRECTORY = int(EntryType.DIRECTORY)
NAMES_MAX = 64  # names of one file that are looked at in the same cut


class Trail:
    """The way of one survey through a tree that others change. Used by its thread."""

    def __init__(self) -> None:
        self.deferred: list[DirtyPlace] = []  # what needs a look after this one
        self.large: dict[bytes, DirtyPlace] = {}  # large files left to be captured by themselves
        self.slipped: list[bytes] = []  # those of it of which nothing is known that holds
        self._moved: dict[bytes, int] = {}  # where known directories are that were elsewhere
        self._shared: dict[int, set[bytes]] = {}  # files with several names: those found
        self._gone: set[bytes] = set()
        # Directories that were not what they had been when something in them was to be looked at;
        # those found absent; those found anew, with a look at all below them.
        self._unlike: set[bytes] = set()
        self._absent: set[bytes] = set()
        self._anew: set[bytes] = set()

    @property
    def absent(self) -> Collection[bytes]:
        """Places where nothing was found."""
        return self._absent

    # -- directories that were not what they had been --------------------------------------------

    def is_unlike(self, path: bytes) -> bool:
        """A directory is not what it was. Say whether its own entry can still tell what happened.

        Not if that was already looked at, and it was there: it changed right under our hands.
        """
        if path in self._anew:
            return False
        if path not in self._absent:
            self._unlike.add(path)
        return True

    def was_absent(self, path: bytes) -> None:
        """Nothing is at this place."""
        self._absent.add(path)
        self._anew.discard(path)

    def was_anew(self, path: bytes) -> None:
        """A directory is at this place, and all below it will be looked at."""
        self._anew.add(path)
        self._absent.discard(path)

    def unexplained(self) -> Iterator[bytes]:
        """Yield directories that were not what they had been, and nothing told what they are."""
        known = self._absent | self._anew
        for path in sorted(self._unlike):
            if path not in known and not any(each in known for each in above(path)):
                yield path

    # -- what moved ------------------------------------------------------------------------------

    def found(self, row: NodeRow | None, found: Found) -> None:
        """An entry is to be recorded where `row` was: remember what concerns other paths too."""
        if found.stat.type != _DIRECTORY:
            if found.stat.nlink > 1:
                self._shared.setdefault(found.fid, set()).add(found.path)
        elif not found.is_fresh and (row is None or row.fid != found.fid):
            self._moved[found.path] = found.fid

    def gone(self, path: bytes) -> None:
        """A known entry is gone."""
        self._gone.add(path)

    def moves(self, lookup: TreeLookup) -> dict[bytes, bytes]:
        """Return the former and the new places of directories that moved."""
        return {old: new for new, fid in self._moved.items() for old in lookup.paths_of(fid, 1)}

    def names_left(self, lookup: TreeLookup, fid: int) -> set[bytes]:
        """Return the names that a file with several of them has, as far as this survey says."""
        moves = self.moves(lookup)
        left = set(self._shared.get(fid, ()))
        for path in lookup.paths_of(fid, NAMES_MAX):
            for each in (path, *above(path)):
                if each in moves:
                    left.add(moves[each] + path[len(each) :])
                    break
                if each in self._gone:
                    break
            else:
                left.add(path)
        return left - self._gone


def others_of(lookup: TreeLookup, row: NodeRow | None, found: Found) -> list[bytes]:
    """Return the names to look at when `found` is recorded where `row` was.

    Where a file was before is among them: it leaves that place, and another may be there by now.
    """
    if row is None or row.fid != found.fid:
        left = [] if row is None else left_behind(lookup, row, found.path)
        former = [] if found.is_fresh else lookup.paths_of(found.fid, NAMES_MAX)
        return [*left, *(each for each in former if each != found.path)]
    if row.stat.nlink > 1 and row.stat.type != EntryType.DIRECTORY and found.read:
        return [each for each in lookup.paths_of(row.fid, NAMES_MAX) if each != found.path]
    return []


def left_behind(lookup: TreeLookup, row: NodeRow, path: bytes) -> list[bytes]:
    """Return another name of a file that leaves this one: what was done to it shows there."""
    if row.stat.nlink <= 1 or row.stat.type == EntryType.DIRECTORY:
        return []
    return [each for each in lookup.paths_of(row.fid, 2) if each != path][:1]
