"""Programs of the operator around each capture of a source, one capture at a time.

Before: to bring an application to rest, for example. After: to let it go on; that one runs whether
the capture went well or not, also when streamd stops in the middle. Only SIGKILL prevents it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from streamd.catalog import dirty
from streamd.catalog.db import Catalog
from streamd.config.model import SourceConfig
from streamd.daemon.meters import Meters
from streamd.effects import Clock
from streamd.observe.logging import get_logger
from streamd.pipeline.jobs import Stream
from streamd.sources.command.process import Process, ProgramFailed, run_to_end

BEFORE: Final = "before_capture"
AFTER: Final = "after_capture"
REASON: Final = "hook-failed"  # in `streamd problems`
RETRY_SECONDS: Final = 5.0  # after a capture was refused
_LOG: Final = get_logger("hooks")


class Hooks:
    """The hooks of one source. Use `before` and, if it did not refuse, `after`."""

    def __init__(self, name: str, source: SourceConfig, clock: Clock, meters: Meters) -> None:
        self._name = name
        self._before = source.before_capture
        self._after = source.after_capture
        self._seconds = float(source.hook_timeout_seconds)
        self._refuses = source.hook_failure == "refuse"
        self._clock = clock
        self._meters = meters
        self._turn = asyncio.Lock()  # live and bulk captures are not inside of one another
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"hook:{name}")
        self.is_refused = False  # the newest capture
        self.failure = ""  # of the newest capture; what the hook said

    async def around(
        self, work: Callable[[], Awaitable[int]], catalog: Catalog, stream: Stream, *, scan: bool
    ) -> int:
        """Do the work of a capture between the hooks, if there is any, and return its result.

        If there is none the work is not begun: it would take up what is noted from now on, outside
        of the hooks. That has a capture of its own coming.
        """
        if not await catalog.read(dirty.has_unpicked, stream.number, scan=scan):
            return 0
        self.is_refused = not await self.before()
        if self.is_refused:
            await self._tell(catalog, stream)
            await asyncio.sleep(RETRY_SECONDS)
            return 0
        is_good = False
        try:
            result = await work()
            is_good = True
        finally:
            await self.after(is_good=is_good)
        await self._tell(catalog, stream)
        return result

    async def _tell(self, catalog: Catalog, stream: Stream) -> None:
        """Show a failed hook as a problem of the source; a good one takes it away."""
        if self.failure:
            root, now_us = stream.source.roots[0], self._clock.now_us()
            problem = dirty.Problem(root, REASON, 0, now_us, self.failure)
            await catalog.write(dirty.set_problem, stream.number, problem)
        else:
            await catalog.write(dirty.clear_reason, stream.number, REASON)

    async def before(self) -> bool:
        """Run `before_capture`; return whether to capture. Only then `after` has to follow."""
        await self._turn.acquire()
        try:
            self.failure = await self._run(BEFORE, self._before, {})
        except BaseException:  # it was begun, so it has to be ended
            await self.after(is_good=False)
            raise
        if self.failure and self._refuses:
            self._turn.release()
            return False
        return True

    async def after(self, *, is_good: bool) -> None:
        """Run `after_capture`, told how the capture went."""
        result = {"STREAMD_RESULT": "ok" if is_good else "failed"}
        try:
            failure = await self._run(AFTER, self._after, result)
            self.failure = self.failure or failure
        finally:
            self._turn.release()

    async def _run(self, hook: str, argv: Sequence[str], extra: dict[str, str]) -> str:
        """Run one; return what went wrong, empty if nothing did."""
        if not argv:
            return ""
        running: list[Process] = []
        is_cancelled = threading.Event()

        def started(process: Process) -> None:
            running.append(process)
            if is_cancelled.is_set():
                process.kill()

        words = {"STREAMD_SOURCE": self._name, "STREAMD_HOOK": hook, **extra}
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread,
                lambda: run_to_end(
                    argv,
                    words,
                    seconds=self._seconds,
                    clock=self._clock,
                    started=started,
                ),
            )
        except asyncio.CancelledError:
            is_cancelled.set()  # first: it may just be starting
            for process in running:
                process.kill()
            raise
        except ProgramFailed as error:
            _LOG.error("hook-failed", source=self._name, hook=hook, what=str(error))
            self._meters.hook_ran(self._name, hook, "failed")
            return f"{hook}: {error}"
        self._meters.hook_ran(self._name, hook, "ok")
        return ""

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)
