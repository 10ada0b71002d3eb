"""The canary: a file in the source that is written again and again, to see that it arrives.

Everything else that says "protected" is the daemon's own opinion. The canary goes the whole way of
a user's change: another process writes it, the kernel reports it, it is looked at, read, stored.
It lives in the directory `.streamd` of a source's path, if there is one that the daemon may write
to: whoever makes that directory asks for it. It is an ordinary file, captured and restored.
"""

import asyncio
import functools
import os
import sqlite3
import sys
from collections.abc import Callable
from typing import Final

from streamd.catalog.db import Catalog
from streamd.catalog.walk import WalkLookup
from streamd.daemon.lost_threads import call_or_lose
from streamd.daemon.meters import Meters
from streamd.effects import MICROSECONDS, Clock
from streamd.observe.logging import get_logger
from streamd.observe.names import DESTINATIONS
from streamd.pipeline.jobs import Stream

DIRECTORY: Final = b".streamd"
NAME: Final = b"canary"
FIRST_SECONDS: Final = 5.0
WRITE_SECONDS_MAX: Final = 30.0
LATE_SECONDS_MIN: Final = 60.0
_LATE_RPOS: Final = 4  # after so many times the RPO it is late
_LOOK_SECONDS: Final = 0.2
_CHILD: Final = os.path.join(os.path.dirname(__file__), "canary_child.py")
_LOG: Final = get_logger("canary")


class Canary:
    """The canary of one source. `through` returns the watermark of a destination."""

    def __init__(
        self,
        *,
        stream: Stream,
        catalog: Catalog,
        clock: Clock,
        meters: Meters,
        through: Callable[[str], int],
        interval_seconds: float,
        rpo_seconds: float,
    ) -> None:
        self._stream = stream
        self._name = stream.identity.name
        self._catalog = catalog
        self._clock = clock
        self._meters = meters
        self._through = through
        self._interval_seconds = interval_seconds
        self._late_seconds = max(rpo_seconds * _LATE_RPOS, LATE_SECONDS_MIN)

    async def run(self) -> None:
        """Write and wait, again and again, until cancelled."""
        await asyncio.sleep(min(FIRST_SECONDS, self._interval_seconds))
        while True:
            try:
                directory = await call_or_lose(self._directory)
            except TimeoutError:
                directory = None  # it hangs, which others report
            if directory is not None:
                await self._round(directory)
            await asyncio.sleep(self._interval_seconds)

    def _directory(self) -> bytes | None:
        """Return where to write; None when nobody asked for it, or the source is read-only."""
        for root in self._stream.source.roots:
            directory = root.rstrip(b"/") + b"/" + DIRECTORY
            is_ours = os.path.isdir(directory) and not os.path.islink(directory)
            if is_ours and os.access(directory, os.W_OK | os.X_OK):
                return directory
        return None

    async def _round(self, directory: bytes) -> None:
        path = directory + b"/" + NAME
        text = f"streamd writes this to see that changes arrive: {self._clock.now_us()}\n"
        mtime_ns = await self._write(path, text)
        if not mtime_ns:
            return
        written_us = self._clock.now_us()
        waiting = list(DESTINATIONS)
        try:
            async with asyncio.timeout(self._late_seconds):
                while waiting:
                    is_captured = await self._catalog.read(
                        _captured_ns, self._stream.number, path, self._stream.source.roots
                    )
                    for destination in list(waiting) if is_captured == mtime_ns else ():
                        if self._through(destination) > written_us:
                            waiting.remove(destination)
                            seconds = (self._clock.now_us() - written_us) / MICROSECONDS
                            self._meters.canary_arrived(self._name, destination, seconds)
                    if waiting:
                        await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            for destination in waiting:
                self._meters.canary_late(self._name, destination)
            _LOG.error(
                "canary-late", source=self._name, missing_at=waiting, seconds=self._late_seconds
            )

    async def _write(self, path: bytes, text: str) -> int:
        """Have it written; return its modification time, 0 if that did not work."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", _CHILD, os.fsdecode(path), text
            )
            try:
                async with asyncio.timeout(WRITE_SECONDS_MAX):
                    code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
            if code == 0:
                return (await call_or_lose(functools.partial(os.lstat, path))).st_mtime_ns
        except (OSError, TimeoutError) as error:
            _LOG.warning("canary-not-written", source=self._name, why=str(error))
            return 0
        _LOG.warning("canary-not-written", source=self._name, why=f"exit code {code}")
        return 0


def _captured_ns(
    connection: sqlite3.Connection, number: int, path: bytes, roots: tuple[bytes, ...]
) -> int:
    """Return the modification time of the captured canary, 0 when there is none."""
    lookup = WalkLookup(connection, number)
    for root in roots:
        if path.startswith(root.rstrip(b"/") + b"/"):
            top = lookup.directory(lookup.root, root)
            home = None if top is None else lookup.directory(top[0], DIRECTORY)
            row = None if home is None else lookup.named(home[0], [NAME]).get(NAME)
            return 0 if row is None else row.stat.mtime_ns
    return 0
