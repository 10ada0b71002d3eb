"""A survey: look at dirty places, compare with the catalog, and say what is to be recorded.

Blocking, one thread at a time for each source, and lazy: the next batch is found when it is asked
for, so a scan of ten million files holds a few batches. What an earlier batch found and nobody has
committed yet is in `InFlight`; a survey leaves such entries alone and asks for another look later,
because only the committed tree is firm ground.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from errno import ENOENT, ENOTDIR
from typing import Final

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.catalog.lookup import NodeRow
from streamd.catalog.walk import WalkLookup
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.pipeline.directories import Directories
from streamd.pipeline.findings import (
    BATCH_BYTES_MAX,
    BATCH_ENTRIES_MAX,
    Finding,
    Found,
    Trouble,
)
from streamd.pipeline.in_flight import InFlight, SourceMissing
from streamd.pipeline.newcomers import plain_files
from streamd.pipeline.recognising import Recogniser
from streamd.pipeline.standing_alone import may_stand_alone
from streamd.pipeline.trail import Trail, left_behind, others_of
from streamd.pipeline.visit import (
    Visit,
    check_roots,
    is_same,
    join,
    rows_of,
    split,
    visits,
)
from streamd.policy.classes import TOO_LARGE
from streamd.sources.port import VIRTUAL_ROOT, Listing, Source

_DIRECTORY: Final = int(EntryType.DIRECTORY)
_REGULAR: Final = int(EntryType.REGULAR)
ALONE_MIN: Final = 32 * 1024 * 1024  # a file of this size may be captured by itself
AHEAD_MAX: Final = 256  # entries whose identities are looked up in one go
GONE_MAX: Final = 4096  # removals in one batch


class Survey:
    """Looks at `places` of one source. Iterate `findings`."""

    def __init__(
        self,
        source: Source,
        lookup: WalkLookup,
        in_flight: InFlight,
        places: Sequence[DirtyPlace],
        new_fid: Callable[[], int],
        *,
        deleted_roots: frozenset[bytes] = frozenset(),
        leaves_large: bool = False,
    ) -> None:
        self._source = source
        self._leaves_large = leaves_large  # see `trail.large`
        self._deleted_roots = deleted_roots  # known to be deleted, not only missing
        self._lookup = lookup
        self._in_flight = in_flight
        self._places = places
        self._new_fid = new_fid
        self._recogniser = Recogniser(source, lookup, in_flight)
        self._known = Directories(lookup, in_flight, source.roots)
        self.missing: set[bytes] = set()  # roots that are not there
        self.present: set[bytes] = set()  # and those that are, as far as was looked
        self._depths = {place.path: Depth(place.depth) for place in places}
        self._since = {place.path: place.first_us for place in places}
        self._visit_us = 0  # since when the places of the visit under way are dirty
        self._touched: dict[bytes, int] = {}  # what else needs a look in this cut, and since when
        self._finding = Finding()
        self._gone: dict[tuple[bytes, int], dict[bytes, None]] = {}  # directory, fid -> names
        self._links: dict[int, HostStat] = {}  # files with several names, found by this survey
        self._visited = 0  # how many of those have had it
        self.trail = Trail()
        self.entry_count = 0
        self.seen: Counter[str] = Counter()  # by class, of what it looked at as a whole
        self.change_count = 0

    # -- batching --------------------------------------------------------------------------------

    def findings(self) -> Iterator[Finding]:
        """Yield batches until every place has been looked at.

        Places below a root that is not there are left for later; `missing` names such roots.

        Removals come last: a file or directory that moved has its new name by then, and moving
        a directory costs two records instead of all that is below it.
        """
        for directory, names, deep in itertools.chain(
            visits(self._places, self._source.roots), self._touched_visits()
        ):
            self._visit_us = min(self._since[join(directory, name)] for name in names)
            try:
                for large in self._visit(directory, names, deep=deep):
                    if not self._finding.is_empty and (self._is_full() or large is not None):
                        yield self._take()
                    if large is not None:
                        yield Finding(found=[large], expected_bytes=large.stat.size, is_large=True)
            except SourceMissing as missing:
                self.missing.add(missing.root)
                for name in names:
                    self._slip(join(directory, name), self._depths[join(directory, name)])
        for path in self.trail.unexplained():
            self._slip(path, Depth.BELOW)
        yield from self._removals()

    def _removals(self) -> Iterator[Finding]:
        self._drop_former_roots()
        self._visit_us = min(self._since.values(), default=0)
        for (path, fid), gone in self._gone.items():
            names = list(gone)
            for start in range(0, len(names), GONE_MAX):
                if len(self._finding.gone) >= GONE_MAX or self._is_full():
                    yield self._take()
                self._remove(path, fid, names[start : start + GONE_MAX])
        if not self._finding.is_empty:
            yield self._take()

    def _drop_former_roots(self) -> None:
        """In a scan: paths that were taken out of the configuration are no longer protected."""
        if any(place.depth == Depth.SCAN for place in self._places):
            root = self._lookup.root
            former = self._lookup.children(root).keys() - set(self._source.roots)
            self._gone[VIRTUAL_ROOT, root] = dict.fromkeys(sorted(former))

    def _remove(self, directory: bytes, fid: int, names: list[bytes]) -> None:
        """Record as gone what was gone when this survey came by, and still is.

        Another survey may have found and committed since then what came back.
        """
        here: Iterable[bytes] = ()
        if directory != VIRTUAL_ROOT:
            listing = self._source.examine(directory, names)
            if listing.error:
                self._unlistable(directory, listing.error, names, is_last=True)
                return
            known = self._lookup.inode_of(fid)
            if listing.own is not None and known not in {0, listing.own.ino}:
                self._slip(directory, Depth.BELOW)
                return
            here = listing.entries.keys() | listing.failed.keys() | listing.too_large
        for name in names:
            key, path = (fid, name), join(directory, name)
            if self._in_flight.entries.get(key) is self:
                self._look_again(path, Depth.BELOW)  # it came back, and was found by this survey
            elif name in here or key in self._in_flight.entries:
                self._slip(path, Depth.BELOW)
            else:
                self._in_flight.add_gone(key, self)
                self._finding.gone.append(key)
                self._finding.absent.append(path)

    def _touch(self, others: Iterable[bytes], path: bytes) -> None:
        """Look at other names of the file at `path` in this same cut: they show what it is, too."""
        for other in others:
            if other not in self._since:
                self._touched.setdefault(other, self._since_us(path))

    def _is_full(self) -> bool:
        size = self._finding.expected_bytes
        return len(self._finding.found) >= BATCH_ENTRIES_MAX or size >= BATCH_BYTES_MAX

    def _take(self) -> Finding:
        taken, self._finding = self._finding, Finding()
        return taken

    # -- where to look ---------------------------------------------------------------------------

    def _touched_visits(self) -> Iterator[tuple[bytes, list[bytes], bool]]:
        """Yield what changed unannounced: directories, by what came and went; other names of files.

        Called when all places have been visited. What is visited may touch more.
        """
        while self._visited < len(self._touched):
            fresh = list(self._touched.items())[self._visited :]
            self._visited = len(self._touched)
            yield from self._grouped(fresh)

    def _grouped(
        self, touched: Sequence[tuple[bytes, int]]
    ) -> Iterator[tuple[bytes, list[bytes], bool]]:
        by_directory: dict[bytes, list[bytes]] = {}
        for path, since_us in touched:
            if (at := split(path, self._source.roots)) is None:
                continue
            self._since.setdefault(path, since_us)
            self._depths.setdefault(path, Depth.ENTRY)
            parent = self._known.fids.get(at[0])
            if parent is not None and (parent, at[1]) in self._in_flight.entries:
                self._look_again(path, Depth.ENTRY)  # found by us, before it changed
            else:
                by_directory.setdefault(at[0], []).append(at[1])
        for directory, names in by_directory.items():
            yield directory, names, False

    def _visit(self, directory: bytes, names: list[bytes], *, deep: bool) -> Iterator[Found | None]:
        """Look at names in a directory, and below. Yields a large file, or None: batch may go."""
        parent = self._known.resolve(directory)
        if parent is None:
            at = self._known.first_unknown(directory)
            if at is None:
                return
            directory, name = at
            known = self._known.resolve(directory)
            assert known is not None
            if (known, name) in self._in_flight.entries:
                self._defer(known, name, join(directory, name), deep=True)
                return
            parent, names, deep = known, [name], True
        stack: list[Visit] = [Visit(directory, parent, names, deep)]
        while stack:
            visit = stack.pop().unpacked()
            listing = visit.examined(self._source, self._in_flight.entries)
            if listing.error:
                self._unlistable(visit.path, listing.error, visit.names or ())
                continue
            if listing.names is not None:  # too many for one answer
                stack += visit.in_slices(listing.names)
                continue
            if not self._is_meant(visit, listing):
                continue
            check_roots(
                self._lookup, self._source, visit, listing, self._deleted_roots, self.present
            )
            below: list[Visit] = []
            yield from self._compare(visit, listing, below)
            yield None
            stack.extend(reversed(below))

    def _defer(
        self,
        parent: int,
        name: bytes,
        path: bytes,
        now: HostStat | None = None,
        *,
        deep: bool = False,
    ) -> None:
        """The entry is in flight. Unless this survey itself found it, look again later."""
        entries, depth = self._in_flight.entries, Depth.BELOW if deep else Depth.ENTRY
        if entries.get((parent, name)) is not self:
            self._slip_in_flight((parent, name), path, depth)
        elif now is not None and self._in_flight.stat_of((parent, name)) != now:
            self._slip(path, depth)  # it changed since it was found

    def _since_us(self, path: bytes) -> int:
        """Return since when a change at `path` may have been waiting."""
        return self._since.get(path, self._visit_us)

    def _look_again(self, path: bytes, depth: Depth) -> None:
        since_us = min(self._since_us(path), self._visit_us)  # of what was to be looked at there
        self.trail.deferred.append(DirtyPlace(path, depth, since_us))
        self._finding.deferred.append(self.trail.deferred[-1])

    def _slip(self, path: bytes, depth: Depth) -> None:
        """Nothing is known of a place that is sure to hold: neither what was nor what is."""
        self._look_again(path, depth)
        self.trail.slipped.append(path)

    def _slip_in_flight(self, key: tuple[int, bytes], path: bytes, depth: Depth) -> None:
        """Let what is in flight slip. A large file that is read by itself is waited for there."""
        seen, is_other = self._in_flight.stat_of(key), self._in_flight.entries.get(key) is not self
        if self._leaves_large and is_other and seen is not None and seen.size >= ALONE_MIN:
            self.trail.large[path] = DirtyPlace(path, depth, self._since_us(path))
            self.trail.slipped.append(path)
        else:
            self._slip(path, depth)

    def _is_meant(self, visit: Visit, listing: Listing) -> bool:
        """Check the directory itself: is it the one we know under this path, and unchanged?

        Names that come and go change their directory's times without an event for it.
        """
        known = self._known.stats.get(visit.path)
        if known is None or listing.own is None or known.ino == 0:
            return True
        if listing.own.ino != known.ino:
            self._known.fids.pop(visit.path, None)
            self._ask_entry(visit.path)
            return False
        if not is_same(known, listing.own):
            self._touched.setdefault(visit.path, self._visit_us)
        return True

    # -- what is there ---------------------------------------------------------------------------

    def _unlistable(
        self, path: bytes, errno: int, names: Sequence[bytes], *, is_last: bool = False
    ) -> None:
        """Note that a directory in which `names` were to be looked at cannot be listed."""
        if errno not in {ENOENT, ENOTDIR}:
            self._finding.troubles.append(Trouble(path, "unreadable", errno))
            return
        self._finding.absent.extend(join(path, name) for name in names)
        if is_last:
            self._look_again(path, Depth.ENTRY)
        else:
            self._ask_entry(path)

    def _ask_entry(self, path: bytes) -> None:
        """A directory is not what it was; its own entry tells what happened, in this look."""
        if self.trail.is_unlike(path):
            self._touched.setdefault(path, self._visit_us)
            self._since[path] = min(self._since_us(path), self._visit_us)
        else:
            self._slip(path, Depth.BELOW)

    def _compare(
        self, visit: Visit, listing: Listing, below: list[Visit]
    ) -> Iterator[Found | None]:
        """Compare one listing with the catalog; directories to descend into go to `below`."""
        parent, in_flight = visit.fid, self._in_flight.entries
        rows = rows_of(self._lookup, visit, in_flight)
        self._missing(visit, listing, rows)
        self.entry_count += len(listing.entries)
        names = list(listing.entries)
        while names:
            part, names = names[:AHEAD_MAX], names[AHEAD_MAX:]
            self._recogniser.look_ahead(visit.path, part, listing, rows)
            part = self._take_new(visit, listing, part)
            if self._is_full():
                yield None
                names = part + names  # that may have taken a while: what was looked up is old
                continue
            for at, name in enumerate(part, 1):
                now, row = listing.entries[name], rows.get(name)
                if (parent, name) in in_flight:
                    self._meet(visit, listing, name, row, below)
                    continue
                found = None
                if row is None or row.again or not is_same(row.stat, now):
                    found = self._judge(parent, name, visit.path, row, now)
                    if self._is_put_off(join(visit.path, name), row, found):
                        continue
                if now.type == _DIRECTORY and name not in listing.closed:
                    self._descend(visit, name, now, row, found, below)
                if found is None:
                    continue
                self.trail.found(row, found)
                self._touch(others_of(self._lookup, row, found), found.path)
                is_large = self._is_large(found)
                if is_large or self._is_full():
                    yield found if is_large else None
                    names = part[at:] + names
                    break

    def _take_new(self, visit: Visit, listing: Listing, names: list[bytes]) -> list[bytes]:
        """Take new files of a new directory into the batch at once; return the other names."""
        if not self._recogniser.is_all_new:
            return names
        own, finding = self._known.stats.get(visit.path), self._finding
        found, left, size = plain_files(
            visit.fid,
            own.ino if own is not None else 0,
            join(visit.path, b""),
            names,
            listing.entries,
            self._recogniser.seen,
            self._in_flight.entries,
            self._since,
            self._visit_us,
            self._new_fid,
            BATCH_ENTRIES_MAX - len(finding.found),
            BATCH_BYTES_MAX - finding.expected_bytes,
            BATCH_BYTES_MAX,
        )
        self._in_flight.add_new(found, self)
        self.change_count += len(found)
        finding.found += found
        finding.expected_bytes += size
        return left

    def _meet(
        self,
        visit: Visit,
        listing: Listing,
        name: bytes,
        row: NodeRow | None,
        below: list[Visit],
    ) -> None:
        """Leave an entry alone that is in flight.

        Below a directory that stays where it is nothing has to wait: only what is recorded of
        itself is on its way.
        """
        now, key = listing.entries[name], (visit.fid, name)
        if (
            row is None
            or now.type != _DIRECTORY
            or not self._recogniser.is_still(row, name, now)
            or self._in_flight.is_moving(key, row.fid)
        ):
            self._defer(visit.fid, name, join(visit.path, name), now, deep=visit.deep)
            return
        self._defer(visit.fid, name, join(visit.path, name), now)
        if name not in listing.closed:
            self._descend(visit, name, now, row, None, below)

    def _is_put_off(self, path: bytes, row: NodeRow | None, found: Found | None) -> bool:
        """Leave an entry to a later look, or to whoever captures large files by themselves."""
        if found is None or self._in_flight.is_held(found, self):
            self._slip(path, Depth.BELOW)
            return True
        if self._leaves_large and may_stand_alone(row, found, ALONE_MIN):
            self.trail.large[path] = DirtyPlace(path, Depth.ENTRY, found.since_us)
            return True
        return False

    def _is_large(self, found: Found) -> bool:
        """Take an entry into the batch; say True instead if it has to be a batch of its own."""
        self.change_count += 1
        self._in_flight.add(found, self)
        if found.stat.type == _REGULAR and found.read:
            if found.stat.size > BATCH_BYTES_MAX:
                return True
            self._finding.expected_bytes += found.stat.size
        self._finding.found.append(found)
        return False

    def _missing(self, visit: Visit, listing: Listing, rows: dict[bytes, NodeRow]) -> None:
        """Note entries that are gone, or that could not be examined."""
        parent, in_flight, too_large = visit.fid, self._in_flight.entries, listing.too_large
        for name, errno in listing.failed.items():
            self._finding.troubles.append(Trouble(join(visit.path, name), "unreadable", errno))
        large = [Trouble(join(visit.path, name), TOO_LARGE, 0) for name in too_large]
        self._finding.troubles.extend(large)
        if visit.deep:  # part of a scan: each directory once
            listing.count_into(self.seen)
        looked_for = visit.looked_for(rows, self._in_flight.names_in(parent, self))
        for name in sorted(looked_for - listing.entries.keys() - listing.failed.keys() - too_large):
            path = join(visit.path, name)
            if (parent, name) in in_flight:
                self._slip_in_flight((parent, name), path, Depth.ENTRY)
                continue
            self.trail.was_absent(path)
            if name in rows:
                self._gone.setdefault((visit.path, parent), {})[name] = None
                self.trail.gone(path)
                self._touch(left_behind(self._lookup, rows[name], path), path)
                self.change_count += 1
            else:
                self._finding.absent.append(path)

    def _descend(
        self,
        visit: Visit,
        name: bytes,
        now: HostStat,
        row: NodeRow | None,
        found: Found | None,
        below: list[Visit],
    ) -> None:
        """Remember a directory, and have it visited if it is new here or everything is."""
        fid = found.fid if found is not None else row.fid if row is not None else None
        assert fid is not None
        # Also when it is in flight now: places below it are looked at by this survey all the same.
        child = join(visit.path, name)
        self._known.fids[child], self._known.stats[child] = fid, now
        is_here_before = row is not None and row.fid == fid
        if visit.deep or not is_here_before:
            new_at = (visit.fid, name) if found is not None and found.is_fresh else None
            below.append(Visit(child, fid, None, deep=True, new_at=new_at))
            self.trail.was_anew(child)

    def _judge(
        self, parent: int, name: bytes, directory: bytes, row: NodeRow | None, now: HostStat
    ) -> Found | None:
        """Return what is to be recorded of one entry that is not as captured.

        None: it was replaced since it was listed.
        """
        path, own = join(directory, name), self._known.stats.get(directory)
        since_us, ino = self._since_us(path), own.ino if own is not None else 0
        new = self._recogniser.new_generation(name, now) if row is None else None
        if new is not None:
            number = self._new_fid()
            return Found(parent, name, path, number, now, since_us, ino, True, True, new)
        if self._recogniser.is_lost(name, row, now):
            return None
        fid, is_fresh = self._recogniser.fid_of(name, row, now), False
        if fid is None:
            fid, is_fresh = self._new_fid(), True
        is_read, generation = True, self._recogniser.generation(name)
        if now.nlink > 1 and now.type != _DIRECTORY:
            is_read = self._links.get(fid) != now
            self._links[fid] = now
        return Found(
            parent, name, path, fid, now, since_us, ino, is_read, is_read and is_fresh, generation
        )
