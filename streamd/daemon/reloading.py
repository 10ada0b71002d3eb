"""Taking up a changed configuration: all of it or nothing."""

import asyncio
from typing import TYPE_CHECKING, Final

from streamd.config.diff import ConfigChanges, diff
from streamd.config.host import check_host
from streamd.config.load import load
from streamd.config.model import Config
from streamd.config.unheeded import unheeded
from streamd.daemon.following import follow_keys
from streamd.daemon.notify import Notifier
from streamd.daemon.status import ReloadReport
from streamd.errors import ConfigInvalid, StreamdError
from streamd.observe.logging import get_logger

if TYPE_CHECKING:
    from streamd.daemon.main import Daemon

_LOG: Final = get_logger("daemon")


class Reloading:
    """Reads the configuration again when asked to, and applies it to a daemon."""

    def __init__(self, daemon: "Daemon", notifier: Notifier) -> None:
        self.asked = asyncio.Event()
        self._daemon = daemon
        self._notifier = notifier
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Reload whenever it is `asked`, until cancelled."""
        while True:
            await self.asked.wait()
            self.asked.clear()
            try:
                await self.reload()
            except ConfigInvalid:
                continue  # said in the log, the metric and the status already

    async def request(self, _: dict[str, object]) -> ReloadReport:
        """Answer `reload` on the control socket."""
        changes = await self.reload()
        return ReloadReport(
            config_generation=self._daemon.generation,
            added_sources=changes.added_sources,
            removed_sources=changes.removed_sources,
            changed_sources=changes.changed_sources,
            applies=changes.applies,
            needs_restart=changes.needs_restart,
        )

    async def reload(self) -> ConfigChanges:
        """Read the configuration again and apply it, all or nothing. Raises ConfigInvalid."""
        daemon = self._daemon
        async with self._lock:
            self._notifier.reloading(daemon.clock.monotonic())
            try:
                new = await asyncio.to_thread(load_checked, daemon.path)
            except StreamdError as error:
                daemon.config_error = str(error)
                daemon.meters.metrics.config_last_reload_successful.set(0)
                problems = getattr(error, "problems", ())
                _LOG.error("reload-rejected", reason=error.code, what=str(error), problems=problems)
                raise
            finally:
                self._notifier.ready(f"configuration generation {daemon.generation}")
            changes = diff(daemon.config, new)
            await self._apply(new, changes)
            _LOG.info(
                "reloaded",
                generation=daemon.generation,
                added=changes.added_sources,
                removed=changes.removed_sources,
                changed=changes.changed_sources,
                applied=changes.applies,
                needs_restart=changes.needs_restart,
            )
            return changes

    async def _apply(self, new: Config, changes: ConfigChanges) -> None:
        daemon = self._daemon
        metrics = daemon.meters.metrics
        daemon.config, daemon.config_error = new, ""
        daemon.generation += 1
        for name in (*changes.removed_sources, *changes.changed_sources):
            await daemon.supervisor.remove(name)
            if name in changes.removed_sources:
                metrics.remove_source(name)
        for name in (*changes.added_sources, *changes.changed_sources):
            daemon.supervisor.start(name, new.sources[name])
        if daemon.host is not None:
            daemon.host.traffic.apply()
            await follow_keys(daemon.host)
        describe_generation(daemon)


def describe_generation(daemon: "Daemon") -> None:
    """Show in the metrics that a configuration is in effect."""
    metrics = daemon.meters.metrics
    metrics.config_last_reload_successful.set(1)
    metrics.config_last_reload_success_timestamp_seconds.set_to_current_time()
    metrics.config_generation.set(daemon.generation)
    for each in unheeded(daemon.config):
        _LOG.warning("config-not-heeded", what=each)


def load_checked(path: str) -> Config:
    """Read the configuration and check it against this host. Blocking. Raises ConfigInvalid."""
    config = load(path)
    check_host(config)
    return config
