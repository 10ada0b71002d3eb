"""The tasks that run beside the capture for as long as the daemon does: one line for each.

They share its fate: one that raises ends the process. They are cancelled after the drain.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from streamd.daemon.commands import control_commands
from streamd.daemon.control import ControlServer
from streamd.daemon.following import keep_following
from streamd.daemon.freshness import Freshness
from streamd.daemon.handover import Handover, leave
from streamd.daemon.host import Host
from streamd.daemon.memory import keep_giving_back
from streamd.daemon.notify import Notifier, watchdog_interval_seconds
from streamd.daemon.spooling import record_full_times

if TYPE_CHECKING:
    from streamd.daemon.main import Daemon
    from streamd.daemon.running import Supervisor
    from streamd.daemon.upkeep import Upkeep

COVERAGE_SECONDS: Final = 20.0  # how often the coverage of each source is written down
Service = Callable[[], Coroutine[Any, Any, None]]


def services_of(
    daemon: "Daemon", host: Host, upkeep: "Upkeep", notifier: Notifier
) -> dict[str, Service]:
    """Return what is to run, by the name of its task."""
    supervisor = daemon.supervisor
    control = ControlServer(
        daemon.config.daemon.socket, control_commands(daemon, upkeep, host.traffic)
    )
    freshness = Freshness(
        catalog=host.catalog,
        pipeline=host.pipeline,
        adapting=host.adapting,
        meters=daemon.meters,
        active=supervisor.active,
    )
    services: dict[str, Service] = {
        "control": control.run,
        "state": freshness.run,
        "loop-lag": freshness.measure_lag,
        "memory": lambda: keep_giving_back(host.catalog.let_go),
        "watchdog": lambda: _watchdog(notifier),
        "reload": daemon.reloading.run,
        "coverage": lambda: _keep_coverage(host, supervisor),
        "upkeep": upkeep.run,
        "keys": lambda: keep_following(host),
    }
    if host.uploader is not None:
        services["upload"] = host.uploader.run
        services["traffic"] = host.traffic.run
        services["spool"] = lambda: record_full_times(host, supervisor)
    if host.stores.uplink is not None:
        services["uplink"] = host.stores.uplink.run
    return services


async def _watchdog(notifier: Notifier) -> None:
    """Tell systemd that the loop turns; silence gets us restarted."""
    interval = watchdog_interval_seconds()
    if interval is None:
        return
    while True:
        notifier.ping()
        await asyncio.sleep(interval)


async def _keep_coverage(host: Host, supervisor: "Supervisor") -> None:
    while True:
        await asyncio.sleep(COVERAGE_SECONDS)
        await write_coverage(host, supervisor)


async def write_coverage(host: Host, supervisor: "Supervisor") -> None:
    """Write down up to when each source was covered: a gap after a crash begins there."""
    covered = {
        name: running.protection.covered_us
        for name, running in supervisor.running.items()
        if running.protection is not None and running.protection.progress.scanned.is_set()
    }
    if covered:
        await host.catalog.write(host.journal.remember_coverage, covered)


async def leave_handover(host: Host, supervisor: "Supervisor") -> None:
    """Leave for the next daemon what it needs to go on where this one has ended."""
    left: dict[str, Handover] = {}
    for name, running in supervisor.running.items():
        found = await running.protection.handover() if running.protection is not None else None
        if found is not None:
            left[name] = found
    await host.catalog.write(leave, left)
