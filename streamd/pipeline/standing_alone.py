"""A large file that stays where it is, looked at alone, so that no live cut has to wait for it.

Reading it may take longer than the RPO. As long as nothing but what it is changes, it can be
recorded at an instant of its own. Whatever else is met is left to a live cut: a file that moved,
that has several names, or is gone.
"""

from collections.abc import Callable, Iterator
from typing import Final

from streamd.catalog.dirty import DirtyPlace
from streamd.catalog.lookup import NodeRow
from streamd.catalog.walk import WalkLookup
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.pipeline.findings import Finding, Found
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.recognising import Recogniser
from streamd.pipeline.visit import is_same, split
from streamd.sources.port import VIRTUAL_ROOT, Listing, Source

_REGULAR: Final = int(EntryType.REGULAR)


def may_stand_alone(row: NodeRow | None, found: Found, size_min: int) -> bool:
    """Say whether a file can be recorded without all else that was found with it.

    It is large, and it is the one captured at its place, or new at a place where nothing was; so
    nothing else is recorded otherwise because of it. `row` is what was captured at its place.
    """
    if found.stat.type != _REGULAR or found.stat.size < size_min or found.stat.nlink != 1:
        return False
    if row is None:
        return found.is_fresh
    return row.fid == found.fid and row.stat.nlink <= 1


class LoneLook:
    """Looks at one place where a large file was. Iterate `findings`; at most one is yielded."""

    def __init__(
        self,
        source: Source,
        lookup: WalkLookup,
        in_flight: InFlight,
        place: DirtyPlace,
        new_fid: Callable[[], int],
        *,
        size_min: int,
    ) -> None:
        self._source = source
        self._lookup = lookup
        self._in_flight = in_flight
        self._place = place
        self._new_fid = new_fid
        self._size_min = size_min
        self._found: Found | None = None

    def was_captured(self) -> bool:
        """Say, when all is committed, whether the file is recorded as it was found, or newer."""
        found = self._found
        if found is None:
            return False
        row = self._lookup.named(found.parent, [found.name]).get(found.name)
        if row is None or row.fid != found.fid:
            return False
        return row.stat.ctime_ns >= found.stat.ctime_ns

    def findings(self) -> Iterator[Finding]:
        """Yield the file, or the place for a live cut to look at; nothing if it is as captured."""
        found = self._look()
        if found is None:
            yield Finding(deferred=[self._place])
        elif found.read:
            self._found = found
            self._in_flight.add(found, self)
            yield Finding(found=[found], expected_bytes=found.stat.size, is_large=True)

    def _look(self) -> Found | None:
        """Return what is to be recorded, with `read` False if it is as captured; None: not here."""
        at = split(self._place.path, self._source.roots)
        parent = self._resolve(at[0]) if at is not None else None
        if at is None or parent is None or (parent[0], at[1]) in self._in_flight.entries:
            return None
        listing = self._source.examine(at[0], [at[1]])
        now, own = listing.entries.get(at[1]), listing.own
        if now is None or (own is not None and parent[1] not in {0, own.ino}):
            return None
        return self._judge(at[0], at[1], parent, now)

    def _judge(
        self, directory: bytes, name: bytes, parent: tuple[int, int], now: HostStat
    ) -> Found | None:
        row = self._lookup.named(parent[0], [name]).get(name)
        found = Found(
            parent=parent[0],
            name=name,
            path=self._place.path,
            fid=0 if row is None else row.fid,
            stat=now,
            since_us=self._place.first_us,
            parent_ino=parent[1],
            read=False,
            is_fresh=False,
        )
        if row is not None and not row.again and is_same(row.stat, now):
            return found
        recogniser = Recogniser(self._source, self._lookup, self._in_flight)
        known = {} if row is None else {name: row}
        recogniser.look_ahead(directory, [name], Listing({name: now}), known)
        if recogniser.is_lost(name, row, now):
            return None
        fid, generation = recogniser.fid_of(name, row, now), recogniser.generation(name)
        found = found._replace(
            fid=fid or self._new_fid(), read=True, is_fresh=fid is None, generation=generation
        )
        is_alone = may_stand_alone(row, found, self._size_min)
        return found if is_alone and not self._in_flight.is_held(found, self) else None

    def _resolve(self, directory: bytes) -> tuple[int, int] | None:
        """Return (number, inode) of a directory; None if the way to it is not firm ground."""
        way: list[bytes] = []
        while directory != VIRTUAL_ROOT:
            at = split(directory, self._source.roots)
            if at is None:
                return None
            way.append(at[1])
            directory = at[0]
        fid, ino = self._lookup.root, 0
        for name in reversed(way):
            found = self._lookup.directory(fid, name)
            if found is None or self._in_flight.is_moving((fid, name), found[0]):
                return None
            fid, ino = found[0], found[1].ino
        return fid, ino
