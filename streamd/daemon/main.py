"""The daemon: everything that `streamd run` keeps going, from the first signal handler to the
drain.

    daemon ─ TaskGroup                      shared fate: if one of these dies, streamd exits
    ├─ control · http · watchdog · state    windows to the outside
    ├─ upload                               only with a container vault
    ├─ retention                            one run at a time, on a schedule and on request
    └─ capture ─ TaskGroup
       ├─ pipeline
       └─ one supervised protection per source

Stopping has two phases. *Drain*: no new looks, what is in the pipeline becomes durable. *Abort*
after `DRAIN_SECONDS`: cancelled, which loses nothing, for nothing was acknowledged that is not
durable.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry

from streamd import __version__
from streamd.catalog.db import get_int, put_value
from streamd.config.diff import ConfigChanges, diff
from streamd.config.host import check_host
from streamd.config.load import load
from streamd.config.model import Config, SourceConfig
from streamd.daemon.control import ControlServer
from streamd.daemon.host import Host, open_host, watch_state
from streamd.daemon.http import HttpServer
from streamd.daemon.http import Protection as HttpProtection
from streamd.daemon.meters import Meters
from streamd.daemon.notify import Notifier, watchdog_interval_seconds
from streamd.daemon.protection import CLEAN_KEY, Protection
from streamd.daemon.report import DaemonReport
from streamd.daemon.status import ReloadReport
from streamd.daemon.upkeep import Upkeep
from streamd.effects import MICROSECONDS, Clock, Entropy
from streamd.errors import ConfigInvalid, StreamdError, TransientError
from streamd.observe.logging import get_logger
from streamd.observe.metrics import Watermark
from streamd.policy.backoff import Backoff, fraction_of

DRAIN_SECONDS: Final = 12.0
COVERAGE_SECONDS: Final = 20.0  # how often the coverage of each source is written down
_LOG: Final = get_logger("daemon")

Announce = Callable[["Daemon"], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Running:
    """A source under supervision."""

    config: SourceConfig
    protection: Protection | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""


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
        self.running: dict[str, Running] = {}
        self.meters = Meters(CollectorRegistry())
        self.http_port = 0
        self.host: Host | None = None
        self.upkeep: Upkeep | None = None
        self._entropy = entropy
        self._notifier = notifier
        self.started = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._sources: asyncio.TaskGroup | None = None

    # -- running ---------------------------------------------------------------------------------

    async def run(self, announce: Announce | None = None) -> None:
        """Protect until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        loop.add_signal_handler(signal.SIGUSR1, _log_tasks)
        metrics = self.meters.metrics
        async with open_host(
            self.config, clock=self.clock, entropy=self._entropy, meters=self.meters
        ) as host:
            self.host = host
            self.upkeep = Upkeep(host, lambda: self.config)
            self._describe_metrics(host)
            host.was_clean = bool(await host.catalog.read(get_int, CLEAN_KEY))
            await host.catalog.write(put_value, CLEAN_KEY, 0)
            metrics.config_last_reload_successful.set(1)
            metrics.config_last_reload_success_timestamp_seconds.set_to_current_time()
            metrics.config_generation.set(self.generation)
            report = DaemonReport(self)
            http = HttpServer(metrics_registry(self), problem=self._problem, protection=self._http)
            control = ControlServer(
                self.config.daemon.socket,
                {
                    "status": report.status,
                    "problems": report.problems,
                    "reload": self._reload_request,
                    "retention-run": self.upkeep.run_request,
                },
            )
            async with asyncio.TaskGroup() as services:
                tasks = [
                    services.create_task(control.run(), name="control"),
                    services.create_task(self._watch_state(host), name="state"),
                    services.create_task(self.meters.watch_loop_lag(), name="loop-lag"),
                    services.create_task(self._watchdog(), name="watchdog"),
                    services.create_task(self._reload_loop(), name="reload"),
                    services.create_task(self._remember_coverage(host), name="coverage"),
                    services.create_task(self.upkeep.run(), name="upkeep"),
                ]
                if host.uploader is not None:
                    tasks.append(services.create_task(host.uploader.run(), name="upload"))
                if announce is not None:
                    tasks.append(services.create_task(announce(self), name="announce"))
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
            await self._write_coverage(host)
            await host.catalog.write(put_value, CLEAN_KEY, 1)
            for running in self.running.values():
                if running.protection is not None:
                    running.protection.close()

    async def _capture(self, host: Host) -> None:
        """Run the pipeline and all sources until asked to stop; then drain."""
        try:
            async with asyncio.TaskGroup() as group:
                pipeline = group.create_task(host.pipeline.run(), name="pipeline")
                self._sources = group
                for name, source in self.config.sources.items():
                    self._start_source(name, source)
                if self.config.bandwidth:
                    _LOG.warning("not-enforced", key="bandwidth", why="no traffic limits yet")
                self._notifier.ready(f"protecting {', '.join(sorted(self.config.sources))}")
                _LOG.info(
                    "started", sources=sorted(self.config.sources), vault=self.config.vault.url
                )
                self.started.set()
                await self._stop.wait()
                _LOG.info("stopping")
                async with asyncio.timeout(DRAIN_SECONDS):
                    for name in list(self.running):
                        await self._stop_source(name)
                    await host.pipeline.drain()
                    await pipeline
                    await host.finish()
        except* TimeoutError:
            _LOG.warning("drain-cut-short", seconds=DRAIN_SECONDS)
        self._sources = None

    # -- sources ---------------------------------------------------------------------------------

    def _start_source(self, name: str, config: SourceConfig) -> None:
        assert self._sources is not None
        running = self.running[name] = Running(config)
        self._sources.create_task(self._supervise(name, running), name=f"source:{name}")

    async def _stop_source(self, name: str) -> None:
        running = self.running.get(name)
        if running is not None:
            running.stop.set()
            await running.stopped.wait()

    async def _supervise(self, name: str, running: Running) -> None:
        """Keep one source going: its troubles are its own, and end by themselves or by a fix."""
        assert self.host is not None
        backoff, attempt = Backoff(), 0
        try:
            while not running.stop.is_set():
                try:
                    running.protection = await self.host.protection(name, running.config)
                    running.failure = ""
                    await running.protection.run(running.stop)
                except* StreamdError as group:
                    error = group.exceptions[0]
                    assert isinstance(error, StreamdError)
                    running.failure = error.code
                    transient = isinstance(error, TransientError)
                    _LOG.error("source-failed", source=name, reason=error.code, what=str(error))
                    fraction = fraction_of(self._entropy.token(8))
                    delay = backoff.delay_seconds(attempt, fraction=fraction) if transient else 60.0
                    attempt += 1
                    await _wait_for(running.stop, delay)
        finally:
            running.stopped.set()

    # -- reload ----------------------------------------------------------------------------------

    async def _reload_loop(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            try:
                await self.reload()
            except ConfigInvalid:
                continue  # said in the log, the metric and the status already

    async def _reload_request(self, _: dict[str, object]) -> ReloadReport:
        changes = await self.reload()
        return ReloadReport(
            config_generation=self.generation,
            added_sources=changes.added_sources,
            removed_sources=changes.removed_sources,
            changed_sources=changes.changed_sources,
            applies=changes.applies,
            needs_restart=changes.needs_restart,
        )

    async def reload(self) -> ConfigChanges:
        """Read the configuration again and apply it, all or nothing. Raises ConfigInvalid."""
        async with self._reload_lock:
            self._notifier.reloading(self.clock.monotonic())
            metrics = self.meters.metrics
            try:
                new = await asyncio.to_thread(_load_checked, self.path)
            except StreamdError as error:
                self.config_error = str(error)
                metrics.config_last_reload_successful.set(0)
                problems = getattr(error, "problems", ())
                _LOG.error("reload-rejected", reason=error.code, what=str(error), problems=problems)
                raise
            finally:
                self._notifier.ready(f"configuration generation {self.generation}")
            changes = diff(self.config, new)
            self.config, self.config_error = new, ""
            self.generation += 1
            for name in (*changes.removed_sources, *changes.changed_sources):
                await self._stop_source(name)
                running = self.running.pop(name)
                if running.protection is not None:
                    running.protection.close()
                if name in changes.removed_sources:
                    metrics.remove_source(name)
            for name in (*changes.added_sources, *changes.changed_sources):
                self._start_source(name, new.sources[name])
            metrics.config_last_reload_successful.set(1)
            metrics.config_last_reload_success_timestamp_seconds.set_to_current_time()
            metrics.config_generation.set(self.generation)
            _LOG.info(
                "reloaded",
                generation=self.generation,
                added=changes.added_sources,
                removed=changes.removed_sources,
                changed=changes.changed_sources,
                applied=changes.applies,
                needs_restart=changes.needs_restart,
            )
            return changes

    # -- windows to the outside ------------------------------------------------------------------

    def _describe_metrics(self, host: Host) -> None:
        metrics = self.meters.metrics
        metrics.set_build(version=__version__, python=_python_version())
        metrics.set_repository(
            repository_id=host.vault.config.id,
            kind="directory" if host.stores.remote is None else "azure",
            format_version=str(host.vault.config.major),
        )
        metrics.set_watermarks(self._watermarks)

    def destinations(self) -> tuple[str, ...]:
        """Where changes become durable, in order; a directory vault is both at once."""
        return ("local", "vault")

    def _watermarks(self) -> list[Watermark]:
        """Called at each scrape, in any thread."""
        return [
            Watermark(
                name,
                destination,
                running.protection.protected_through_us(destination),
                running.protection.lag_seconds(destination),
            )
            for name, running in list(self.running.items())
            if running.protection is not None
            for destination in self.destinations()
        ]

    def _http(self) -> tuple[HttpProtection, ...]:
        rows = []
        for name, running in self.running.items():
            protection = running.protection
            for destination in self.destinations():
                lag = 0.0 if protection is None else protection.lag_seconds(destination)
                problem = running.failure
                if protection is None:
                    problem = problem or "starting"
                elif protection.progress.state not in {"protected", "scanning"}:
                    problem = problem or protection.progress.state
                elif not protection.progress.scanned.is_set():
                    problem = problem or "first scan under way"
                rows.append(
                    HttpProtection(name, destination, lag, running.config.rpo_seconds, problem)
                )
        return tuple(rows)

    def _problem(self) -> str:
        return ""

    async def _watch_state(self, host: Host) -> None:
        protections: dict[str, Protection] = {}

        async def collect() -> None:
            while True:
                protections.clear()
                for name, running in self.running.items():
                    if running.protection is not None and not running.stop.is_set():
                        protections[name] = running.protection
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as group:
            group.create_task(collect(), name="state.collect")
            group.create_task(watch_state(host, protections), name="state.refresh")

    async def _watchdog(self) -> None:
        """Tell systemd that the loop turns; silence gets us restarted."""
        interval = watchdog_interval_seconds()
        if interval is None:
            return
        while True:
            self._notifier.ping()
            await asyncio.sleep(interval)

    async def _remember_coverage(self, host: Host) -> None:
        while True:
            await asyncio.sleep(COVERAGE_SECONDS)
            await self._write_coverage(host)

    async def _write_coverage(self, host: Host) -> None:
        covered = {
            name: running.protection.progress.drained_us
            for name, running in self.running.items()
            if running.protection is not None and running.protection.progress.scanned.is_set()
        }
        if covered:
            await host.catalog.write(host.journal.remember_coverage, covered)

    def stop(self) -> None:
        """Ask for an orderly stop."""
        self._stop.set()

    def uptime_seconds(self) -> float:
        """Return for how long this daemon has been up."""
        return (self.clock.now_us() - self.started_us) / MICROSECONDS


def metrics_registry(daemon: Daemon) -> CollectorRegistry:
    """Return the registry that /metrics shows."""
    return daemon.meters.registry


def _load_checked(path: str) -> Config:
    config = load(path)
    check_host(config)
    return config


def _log_tasks() -> None:
    """Write to the log where every task is waiting: for a daemon that seems to be stuck."""
    for task in asyncio.all_tasks():
        frames = [f"{one.f_code.co_filename}:{one.f_lineno}" for one in task.get_stack()]
        _LOG.info("task", task=task.get_name(), at=frames[-1:] or "not started")


def _python_version() -> str:
    import platform

    return platform.python_version()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
