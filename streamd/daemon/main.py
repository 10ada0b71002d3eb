"""The daemon: everything that `streamd run` keeps going, from the first signal handler to the
drain.

    daemon ─ TaskGroup                      shared fate: if one of these dies, streamd exits
    ├─ services                             `daemon.services`: windows to the outside, upkeep, …
    └─ capture ─ TaskGroup
       ├─ pipeline
       └─ one supervised protection per source (`daemon.running`)

Stopping has two phases. *Drain*: no new looks, what is in the pipeline becomes durable. *Abort*
after `DRAIN_SECONDS`: cancelled, which loses nothing, for nothing was acknowledged that is not
durable.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from prometheus_client import CollectorRegistry

from streamd.catalog.db import get_int, put_value
from streamd.config.model import Config
from streamd.daemon.following import describe_keys
from streamd.daemon.host import Host, open_host
from streamd.daemon.http import HttpServer
from streamd.daemon.loading import load_all
from streamd.daemon.memory import settle
from streamd.daemon.meters import Meters
from streamd.daemon.notify import Notifier, listen_fds
from streamd.daemon.opening import CLEAN_KEY
from streamd.daemon.reloading import Reloading, describe_generation
from streamd.daemon.running import Running, Supervisor
from streamd.daemon.services import leave_handover, services_of, write_coverage
from streamd.daemon.upkeep import Upkeep
from streamd.daemon.windows import DESTINATIONS, describe, http_protections
from streamd.effects import Clock, Entropy
from streamd.observe.logging import get_logger
from streamd.sources.filesystem.kept import KeptGroups

DRAIN_SECONDS: Final = 12.0
_LOG: Final = get_logger("daemon")

Announce = Callable[["Daemon"], Coroutine[Any, Any, None]]


class Daemon:
    """One daemon process. `run` returns after SIGTERM or SIGINT, everything durable."""

    def __init__(
        self, path: str, config: Config, *, clock: Clock, entropy: Entropy, notifier: Notifier
    ) -> None:
        self.path = path
        self.config = config
        self.clock = clock
        self.started_us = clock.now_us()
        self.generation = 1
        self.config_error = ""
        self.meters = Meters(CollectorRegistry())
        self.http_port = 0
        self.host: Host | None = None
        self.upkeep: Upkeep | None = None
        self.supervisor = Supervisor(entropy)
        self.reloading = Reloading(self, notifier)
        self.started = asyncio.Event()
        self._entropy = entropy
        self._notifier = notifier
        self._stop = asyncio.Event()

    @property
    def running(self) -> dict[str, Running]:
        """The sources under supervision, by name."""
        return self.supervisor.running

    # -- running ---------------------------------------------------------------------------------

    async def run(self, announce: Announce | None = None) -> None:
        """Protect until told to stop."""
        load_all()
        self._handle_signals()
        kept = KeptGroups(self._notifier, listen_fds())
        async with open_host(
            self.config, clock=self.clock, entropy=self._entropy, meters=self.meters, kept=kept
        ) as host:
            self.host = host
            host.view.now = lambda: self.config
            host.traffic.on_change = self.meters.traffic
            host.traffic.apply()
            if host.spool is not None:
                host.spool.is_seeding = self._is_seeding
            self.upkeep = Upkeep(host, lambda: self.config)
            describe(self.meters, host, self.supervisor)
            host.was_clean = bool(await host.catalog.read(get_int, CLEAN_KEY))
            await host.catalog.write(put_value, CLEAN_KEY, 0)
            describe_generation(self)
            describe_keys(host)
            http = HttpServer(
                self.meters.metrics.registry,
                problem=lambda: "",
                protection=lambda: http_protections(self.supervisor),
            )
            services = services_of(self, host, self.upkeep, self._notifier)
            if announce is not None:
                services["announce"] = lambda: announce(self)
            settle()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(), name=name) for name, run in services.items()]
                address = self.config.metrics.address
                if address is not None:
                    self.http_port = await http.start(*address)
                try:
                    await self._capture(host)
                finally:
                    self._notifier.stopping("stopping")
                    await http.aclose()
                    for task in tasks:
                        task.cancel()
            await write_coverage(host, self.supervisor)
            await leave_handover(host, self.supervisor)
            await host.catalog.write(put_value, CLEAN_KEY, 1)
            self.supervisor.close()

    def _is_seeding(self) -> bool:
        """Whether bulk goes around the local copy: in the first capture of a source."""
        local = self.config.local
        if local is None or local.seed != "bypass":
            return False
        return any(one.is_seeding for one in self.supervisor.active().values())

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reloading.asked.set)
        loop.add_signal_handler(signal.SIGUSR1, _log_tasks)

    async def _capture(self, host: Host) -> None:
        """Run the pipeline and all sources until asked to stop; then drain."""
        try:
            async with asyncio.TaskGroup() as group:
                pipeline = group.create_task(host.pipeline.run(), name="pipeline")
                self.supervisor.open(host, group)
                host.mounts.expected = sum(
                    source.kind == "filesystem" for source in self.config.sources.values()
                )
                for name, source in self.config.sources.items():
                    self.supervisor.start(name, source)
                self._notifier.ready(f"protecting {', '.join(sorted(self.config.sources))}")
                _LOG.info(
                    "started", sources=sorted(self.config.sources), vault=self.config.vault.url
                )
                self.started.set()
                await self._stop.wait()
                _LOG.info("stopping")
                async with asyncio.timeout(DRAIN_SECONDS):
                    await host.mounts.end()
                    for name in list(self.running):
                        await self.supervisor.stop(name)
                    await host.pipeline.drain()
                    await pipeline
                    await host.finish()
        except* TimeoutError:
            _LOG.warning("drain-cut-short", seconds=DRAIN_SECONDS)

    # -- for others ------------------------------------------------------------------------------

    def destinations(self) -> tuple[str, ...]:
        """Where changes become durable, in order; a directory vault is both at once."""
        return DESTINATIONS

    def stop(self) -> None:
        """Ask for an orderly stop."""
        self._stop.set()


def _log_tasks() -> None:
    """Write to the log where every task is waiting: for a daemon that seems to be stuck."""
    for task in asyncio.all_tasks():
        frames = [f"{one.f_code.co_filename}:{one.f_lineno}" for one in task.get_stack()]
        _LOG.info("task", task=task.get_name(), at=frames[-1:] or "not started")
