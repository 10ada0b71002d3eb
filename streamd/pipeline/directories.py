"""Directories on the way of a survey: which of the catalog they are, and what was seen of each."""

from collections.abc import Sequence

from streamd.catalog.walk import WalkLookup
from streamd.model.host import HostStat
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.visit import split
from streamd.sources.port import VIRTUAL_ROOT


class Directories:
    """Those that one survey knows, by path. Used by its thread."""

    def __init__(self, lookup: WalkLookup, in_flight: InFlight, roots: Sequence[bytes]) -> None:
        self._lookup = lookup
        self._in_flight = in_flight
        self._roots = roots
        self.fids: dict[bytes, int] = {VIRTUAL_ROOT: lookup.root}
        self.stats: dict[bytes, HostStat] = {}  # of those, as captured or just seen

    def resolve(self, directory: bytes) -> int | None:
        """Return the catalog's number of a directory; None if it is not committed (yet)."""
        way: list[tuple[bytes, bytes]] = []  # not recursive: it may be thousands long
        while (fid := self.fids.get(directory)) is None:
            if (at := split(directory, self._roots)) is None:
                return None
            way.append((directory, at[1]))
            directory = at[0]
        for path, name in reversed(way):
            found = self._lookup.directory(fid, name)
            if found is None or self._in_flight.is_moving((fid, name), found[0]):
                return None
            fid, self.stats[path] = found
            self.fids[path] = fid
        return fid

    def first_unknown(self, directory: bytes) -> tuple[bytes, bytes] | None:
        """Return (known directory, name in it): where the way to `directory` leaves the catalog."""
        probe = directory
        while (at := split(probe, self._roots)) is not None:
            if self.resolve(at[0]) is not None:
                return at
            probe = at[0]
        return None
