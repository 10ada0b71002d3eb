"""The sources under supervision: started, stopped, and started again when one fails.

A source is the fault boundary: a `StreamdError` ends one source for a while and nothing else. Any
other exception is a mistake of ours and ends the process.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import field

from streamd.config.model import SourceConfig
from streamd.effects import Entropy
from streamd.errors import StreamdError, TransientError
from streamd.observe.logging import get_logger
from streamd.policy.backoff import Backoff, fraction_of

if TYPE_CHECKING:
    from streamd.daemon.host import Host
    from streamd.daemon.protection import Protection

RESTART_SECONDS: Final = 60.0  # after a failure that does not go away by itself
_LOG: Final = get_logger("daemon")


class Running(msgspec.Struct):
    """A source under supervision."""

    config: SourceConfig
    protection: "Protection | None" = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""


class Supervisor:
    """Keeps sources going. `open` gives it what they run in."""

    def __init__(self, entropy: Entropy) -> None:
        self.running: dict[str, Running] = {}
        self._entropy = entropy
        self._host: Host | None = None
        self._group: asyncio.TaskGroup | None = None

    def open(self, host: "Host", group: asyncio.TaskGroup) -> None:
        """Run sources on `host`, as tasks of `group`, from now on."""
        self._host, self._group = host, group

    def start(self, name: str, config: SourceConfig) -> None:
        """Protect a source."""
        assert self._group is not None
        running = self.running[name] = Running(config)
        self._group.create_task(self._supervise(name, running), name=f"source:{name}")

    async def stop(self, name: str) -> None:
        """Stop protecting a source; what it handed in is committed by others."""
        running = self.running.get(name)
        if running is not None:
            running.stop.set()
            await running.stopped.wait()

    async def remove(self, name: str) -> None:
        """Stop a source and let go of what it holds."""
        await self.stop(name)
        running = self.running.pop(name)
        if running.protection is not None:
            running.protection.close()

    def close(self) -> None:
        """Let go of what the stopped sources hold."""
        for running in self.running.values():
            if running.protection is not None:
                running.protection.close()

    def active(self) -> "dict[str, Protection]":
        """Return the protections of the sources that are not being stopped."""
        return {
            name: running.protection
            for name, running in self.running.items()
            if running.protection is not None and not running.stop.is_set()
        }

    async def _supervise(self, name: str, running: Running) -> None:
        """Keep one source going: its troubles are its own, and end by themselves or by a fix."""
        assert self._host is not None
        backoff, attempt = Backoff(), 0
        try:
            while not running.stop.is_set():
                try:
                    running.protection = await self._host.protection(name, running.config)
                    running.failure = ""
                    await running.protection.run(running.stop)
                except* StreamdError as group:
                    error = group.exceptions[0]
                    assert isinstance(error, StreamdError)
                    running.failure = error.code
                    transient = isinstance(error, TransientError)
                    _LOG.error("source-failed", source=name, reason=error.code, what=str(error))
                    fraction = fraction_of(self._entropy.token(8))
                    delay = backoff.delay_seconds(attempt, fraction=fraction)
                    attempt += 1
                    await _wait_for(running.stop, delay if transient else RESTART_SECONDS)
        finally:
            running.stopped.set()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
