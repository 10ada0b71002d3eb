"""How far one source is protected, and by how much it lags behind.

A change that nobody has noticed yet is no less unprotected than one that waits to be captured. So
the lag is also the age of the instant up to which the watch has been read, once that stands still:
behind a flood of events elsewhere on the file system, or where looking up what events are about
takes long. While nothing happens a watch says so about once a second, and the instant moves.
"""

import os
from collections.abc import Callable
from typing import Final

from streamd.catalog.dirty import EVER
from streamd.daemon.progress import Progress
from streamd.effects import MICROSECONDS, Clock
from streamd.observe.logging import get_logger
from streamd.sources.filesystem.modes import POLL_SECONDS, POLLING
from streamd.sources.port import Source

PATIENCE_SECONDS: Final = 3.0  # a watch says about once a second how far it is
_LOG: Final = get_logger("protection")


class Watermarks:
    """Of one protection. `covered_us` says what an earlier one had noticed, EVER: nothing.

    The numbers may be asked for from any thread.
    """

    def __init__(
        self, source: Source, progress: Progress, clock: Clock, covered_us: Callable[[], int]
    ) -> None:
        self._source = source
        self._progress = progress
        self._clock = clock
        self._covered_us = covered_us
        self._born_us = clock.now_us()
        self._is_said = False

    @property
    def noticed_us(self) -> int:
        """Every change made before has been noticed, or could not be by this protection."""
        if self._progress.drained_us:
            return self._progress.drained_us
        covered_us = self._covered_us()
        return self._born_us if covered_us == EVER else covered_us

    @property
    def waits_since_us(self) -> int:
        """Return since when changes may not have been noticed; 0: the watch is on time."""
        noticed_us = self.noticed_us
        late_us = self._clock.now_us() - noticed_us
        return noticed_us if late_us > self._patience_seconds * MICROSECONDS else 0

    @property
    def _patience_seconds(self) -> float:
        is_polled = POLLING in tuple(self._source.watch_modes.values())
        return PATIENCE_SECONDS + (POLL_SECONDS if is_polled else 0.0)

    def lag_seconds(self, destination: str) -> float:
        """Return the age of the oldest change that is not, or may not be, durable there; 0: none.

        What never was captured ages from when it could have been.
        """
        ages = [self.waits_since_us or None, self._progress.oldest_us(destination)]
        known = [self._born_us if age == EVER else age for age in ages if age is not None]
        return max(self._clock.now_us() - min(known), 0) / MICROSECONDS if known else 0.0

    def through_us(self, destination: str) -> int:
        """Return the watermark: every change made before it is durable at `destination`."""
        return self._progress.through_us(destination)

    def waiting(self) -> str:
        """Say in words that events wait; empty while the watch is on time, or has not begun."""
        since_us = self.waits_since_us
        if not since_us or not self._progress.is_watching:
            return ""
        seconds = (self._clock.now_us() - since_us) // MICROSECONDS
        roots = ", ".join(os.fsdecode(root) for root in self._source.roots)
        return f"events of {roots} wait: what changed in the last {seconds} s may be unnoticed"

    def look(self) -> None:
        """Say in the log when events begin to wait, and when they do no longer."""
        text = self.waiting()
        if bool(text) == self._is_said:
            return
        self._is_said = bool(text)
        if text:
            _LOG.warning("events-wait", source=self._source.name, what=text)
        else:
            _LOG.info("events-wait-no-longer", source=self._source.name)
