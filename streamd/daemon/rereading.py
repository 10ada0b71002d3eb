"""Rolling verification of content: files are read again although their stat says nothing changed.

A stat cannot show everything: a disk that rots, a write to the block device, a file system without
honest times. Every file gets its turn within the configured time. Reading goes through the
ordinary capture, so what differs is captured, and the vault has it from then on.
"""

import asyncio
from typing import Final

import msgspec

from streamd.catalog import rolling
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import Depth
from streamd.catalog.rolling import Picked
from streamd.daemon.meters import Meters
from streamd.daemon.noticing import Noticing
from streamd.daemon.progress import Progress
from streamd.effects import Clock
from streamd.model.entry import FileVersion, VersionFlag
from streamd.observe.logging import get_logger
from streamd.pipeline.jobs import Stream

TICK_SECONDS_MIN: Final = 1.0
TICK_SECONDS_MAX: Final = 60.0
TURN_FILES_MAX: Final = 500
TURN_BYTES_MAX: Final = 256 << 20
TURN_SECONDS_MAX: Final = 900.0
_LOOK_SECONDS: Final = 0.5
_TICKS: Final = 1000  # in one round through all files
_LOG: Final = get_logger("reread")


class Rereader:
    """Reads the files of one source again, each once within `round_seconds`."""

    def __init__(
        self,
        *,
        stream: Stream,
        catalog: Catalog,
        noticing: Noticing,
        progress: Progress,
        meters: Meters,
        clock: Clock,
        round_seconds: float,
    ) -> None:
        self._number = stream.number
        self._name = stream.identity.name
        self._catalog = catalog
        self._noticing = noticing
        self._progress = progress
        self._meters = meters
        self._clock = clock
        self._round_seconds = round_seconds

    async def run(self) -> None:
        """Go on until cancelled; for a daemon that is started often there is one file at once."""
        tick = min(max(self._round_seconds / _TICKS, TICK_SECONDS_MIN), TICK_SECONDS_MAX)
        due = 1.0
        while True:
            await asyncio.sleep(tick)
            due += self._progress.entry_count * tick / self._round_seconds
            due = min(due, TURN_FILES_MAX)
            is_quiet = self._progress.state == "protected" and not self._progress.dirty_count
            if due >= 1 and is_quiet:  # live changes come first
                await self.turn(int(due))
                due -= int(due)

    async def turn(self, count: int) -> None:
        """Read the next `count` files again and say what was found."""
        picked = await self._catalog.write(
            rolling.pick, self._number, count=count, bytes_max=TURN_BYTES_MAX
        )
        if not picked:
            return
        places = {one.path: int(Depth.ENTRY) for one in picked}
        await self._noticing.note(places, self._clock.now_us())
        try:
            async with asyncio.timeout(TURN_SECONDS_MAX):
                await self._until_read(picked)
        except TimeoutError:
            _LOG.info("reread-unfinished", source=self._name, files=len(picked))
        found = await self._now(picked)
        for one in picked:
            result = _judge(one.version, *found.get(one.fid, (b"", False)))
            self._meters.reread(self._name, result)
            if result == "differs":
                _LOG.error("content-differs", source=self._name, path=one.path)

    async def _until_read(self, picked: list[Picked]) -> None:
        # The commit clears it in the catalog, which tells nobody.
        while any(again for _, again in (await self._now(picked)).values()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    async def _now(self, picked: list[Picked]) -> dict[int, tuple[bytes, bool]]:
        return await self._catalog.read(rolling.versions, [one.fid for one in picked])


def _judge(before: bytes, after: bytes, waits: bool) -> str:
    """Say how reading a file again ended: ok, differs, changed (as its stat says), unread."""
    if waits:
        return "unread"
    if not after:
        return "changed"
    if before == after:
        return "ok"
    old, new = (msgspec.msgpack.decode(one, type=FileVersion) for one in (before, after))
    stable = ("size", "mtime_ns", "ctime_ns")
    if any(getattr(old, name) != getattr(new, name) for name in stable):
        return "changed"
    # Reading some twice may give two answers; what is cut otherwise has other chunks.
    unlike = (old.flags | new.flags) & (VersionFlag.FUZZY | VersionFlag.DERIVED)
    if unlike or old.profile != new.profile:
        return "changed"
    return "ok" if (old.levels, old.content) == (new.levels, new.content) else "differs"
