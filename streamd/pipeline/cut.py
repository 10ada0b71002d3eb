"""A live cut on its way: what one look at a busy source finds, to be committed as one instant.

The look is made in passes. What the last pass says counts; what was read in an earlier one is used
again where nothing changed since, and its content is already sealed.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.catalog.tree import Intent
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.pipeline.findings import Found

if TYPE_CHECKING:
    from streamd.pipeline.jobs import Parked

TICK_NS: Final = 10_000_000  # the kernel's clock for files may be this much behind
SIZES_MAX: Final = 10_000
_DIRECTORY: Final = int(EntryType.DIRECTORY)
Key = tuple[int, int, int]  # device, inode, generation


class Cut:
    """The findings of a live cut. Used on the event loop only."""

    def __init__(self) -> None:
        self.is_held = True  # not to be committed before its end
        self.is_broken = False  # a part of it was committed before all of it was there
        self._open = 0
        self._read = asyncio.Event()
        self._read.set()
        self._parked: list[Parked] = []
        self._known: dict[Key, tuple[HostStat, bytes]] = {}
        self.sizes: dict[int, int] = {}  # of files that were read, by fid; so many at most

    # -- told by the pipeline --------------------------------------------------------------------

    def enter(self) -> None:
        """A finding was handed in."""
        self._open += 1
        self._read.clear()

    def park(self, parked: "Parked") -> None:
        """A finding was read and sealed."""
        self._parked.append(parked)
        for intent in parked.ready.intents:
            if intent.version is not None and len(self.sizes) < SIZES_MAX:
                self.sizes[intent.fid] = intent.stat.size
            if intent.version is not None and not intent.again:
                key = (intent.stat.dev, intent.stat.ino, intent.generation)
                self._known[key] = (intent.stat, intent.version)
        self._open -= 1
        if not self._open:
            self._read.set()

    def known(self, entry: Found) -> Intent | None:
        """Return what is to be recorded of an entry without reading it again, if that is known."""
        found = self._known.get((entry.stat.dev, entry.stat.ino, entry.generation))
        if found is None or found[0] != entry.stat:
            return None
        return Intent(
            entry.parent,
            entry.name,
            entry.fid,
            found[0],
            found[1],
            again=False,
            is_fresh=entry.is_fresh,
            generation=entry.generation,
        )

    # -- for whoever makes the cut ---------------------------------------------------------------

    async def was_read(self) -> None:
        """Wait until everything that was handed in is read and sealed."""
        await self._read.wait()

    def slipped(self) -> list[DirtyPlace]:
        """Return what vanished or changed its type between being seen and being read."""
        return [place for parked in self._parked for place in parked.ready.slipped]

    def unread(self) -> list[DirtyPlace]:
        """Return names of files that were to be read under another name, which came to nothing.

        Such a name would show what is known of the file from before.
        """
        read = {
            intent.fid
            for parked in self._parked
            for intent in parked.ready.intents
            if intent.version is not None
        }
        return [
            DirtyPlace(entry.path, Depth.ENTRY, entry.since_us)
            for parked in self._parked
            for entry in parked.job.finding.found
            if not entry.read and entry.fid not in read
        ]

    def young(self, since_us: int) -> Iterator[tuple[Found, HostStat]]:
        """Yield files that are recorded as they became after an instant."""
        since_ns = since_us * 1000 - TICK_NS
        for parked in self._parked:
            found = {(entry.parent, entry.name): entry for entry in parked.job.finding.found}
            for intent in parked.ready.intents:
                entry = found.get((intent.parent, intent.name))
                is_file = intent.stat.type != _DIRECTORY
                if entry is not None and is_file and intent.stat.ctime_ns >= since_ns:
                    yield entry, intent.stat

    def void(self, settle: Callable[["Parked"], None]) -> None:
        """Let nothing of the pass that was read be recorded; another one follows."""
        for parked in self._parked:
            settle(parked)
            parked.void()
        self._parked = []
