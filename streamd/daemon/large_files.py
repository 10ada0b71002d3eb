"""Large files that changed: each is captured by itself, beside the live cuts of its source.

Reading one may take longer than the RPO, and one that never stands still changes again meanwhile:
small changes would always wait for it. So a live cut hands over what it finds of such files, with
the places in the dirty set, and goes on. A file is read again at the earliest after as long as its
last reading took, so that one that never stands still takes half of one reader at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from streamd.catalog.dirty import DirtyPlace
from streamd.daemon.meters import Meters
from streamd.daemon.surveying import Surveying
from streamd.observe.logging import get_logger

WAITING_MAX: Final = 1000  # more of them are read within the cut
BUSY_SECONDS: Final = 0.5  # before another look at a file that a scan is reading
_LOG: Final = get_logger("protection")


class LargeFiles:
    """The large files of one source that wait to be captured by themselves."""

    def __init__(
        self,
        surveying: Surveying,
        meters: Meters,
        *,
        slow_seconds: float,
        on_captured: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._on_captured = on_captured
        self._surveying = surveying
        self._meters = meters
        self._slow_seconds = slow_seconds  # longer is worth a line in the log
        self._is_running = False
        self._waiting: dict[bytes, tuple[DirtyPlace, int]] = {}  # path -> place, survey number
        self._rests: dict[bytes, float] = {}  # path -> loop time before which it is left alone
        self.captured: dict[bytes, float] = {}  # path -> loop time when its last capture began
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether large files may be handed over."""
        return self._is_running and len(self._waiting) < WAITING_MAX

    async def take_over(self, places: Iterable[DirtyPlace]) -> None:
        """Take places out of a live cut that is about to end."""
        taken: list[tuple[DirtyPlace, int, int]] = []
        for place in places:
            known, former = self._waiting.get(place.path, (place, 0))
            older = place._replace(first_us=min(known.first_us, place.first_us))
            taken.append((older, self._surveying.begin(), former))
        await self._surveying.hand_over(taken)
        # Only now: whoever ends before the places are its own would leave them dirty for ever, and
        # one that has begun meanwhile, as the former, does not see what is taken over here.
        self._waiting.update({place.path: (place, number) for place, number, _ in taken})
        self._told()

    async def run(self) -> None:
        """Capture what was handed over, one file after the other."""
        self._is_running = True
        try:
            while True:
                wait = self._seconds_until_due()
                if wait == 0:
                    await self._capture()
                    continue
                self._changed.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            self._is_running = False

    def _seconds_until_due(self) -> float | None:
        """Return how long nothing is to be done; None: until something comes."""
        if not self._waiting:
            return None
        now = asyncio.get_running_loop().time()
        return max(0.0, min(self._rests.get(path, 0.0) for path in self._waiting) - now)

    async def _capture(self) -> None:
        loop, surveying = asyncio.get_running_loop(), self._surveying
        path = min(self._waiting, key=lambda each: self._rests.get(each, 0.0))
        if surveying.stream.in_flight.has_path(path):  # a scan is reading it
            self._rests[path] = loop.time() + BUSY_SECONDS
            return
        place, number = self._waiting.pop(path)
        self._told()
        started = loop.time()
        if await surveying.capture_alone(place, number):
            self.captured.pop(path, None)
            self.captured[path] = started
            if len(self.captured) > WAITING_MAX:
                del self.captured[next(iter(self.captured))]
            await self._on_captured(path)
        now = loop.time()
        seconds = now - started
        self._rests = {each: at for each, at in self._rests.items() if at > now}
        self._rests[path] = now + seconds
        if seconds > self._slow_seconds:
            _LOG.info(
                "large-file-captured",
                source=surveying.stream.identity.name,
                path=path,
                seconds=round(seconds, 1),
            )

    def _told(self) -> None:
        self._meters.large_files(self._surveying.stream.identity.name, len(self._waiting))
        self._changed.set()
