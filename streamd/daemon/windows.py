"""What metrics and HTTP show of the sources of a daemon."""

import platform
from typing import TYPE_CHECKING

from streamd import __version__
from streamd.daemon.host import Host
from streamd.daemon.http import Protection as HttpProtection
from streamd.observe.metrics import Watermark

if TYPE_CHECKING:
    from streamd.daemon.meters import Meters
    from streamd.daemon.running import Supervisor

# Where changes become durable, in order; a directory vault is both at once.
DESTINATIONS: tuple[str, ...] = ("local", "vault")


def describe(meters: "Meters", host: Host, supervisor: "Supervisor") -> None:
    """Show in the metrics what does not change, and where the watermarks are to be had."""
    metrics = meters.metrics
    metrics.set_build(version=__version__, python=platform.python_version())
    metrics.set_repository(
        repository_id=host.vault.config.id,
        kind="directory" if host.stores.remote is None else "azure",
        format_version=str(host.vault.config.major),
    )
    metrics.set_watermarks(lambda: watermarks(supervisor))


def watermarks(supervisor: "Supervisor") -> list[Watermark]:
    """Return the watermark of each source at each destination. Called at scrapes, in any thread."""
    return [
        Watermark(
            name,
            destination,
            running.protection.watermarks.through_us(destination),
            running.protection.watermarks.lag_seconds(destination),
        )
        for name, running in list(supervisor.running.items())
        if running.protection is not None
        for destination in DESTINATIONS
    ]


def http_protections(supervisor: "Supervisor") -> tuple[HttpProtection, ...]:
    """Return what /protected judges by."""
    rows = []
    for name, running in supervisor.running.items():
        protection = running.protection
        for destination in DESTINATIONS:
            lag = 0.0 if protection is None else protection.watermarks.lag_seconds(destination)
            problem = running.failure
            if protection is None:
                problem = problem or "starting"
            elif protection.progress.state not in {"protected", "scanning"}:
                problem = problem or protection.progress.state
            elif not protection.progress.scanned.is_set():
                problem = problem or "first scan under way"
            rows.append(HttpProtection(name, destination, lag, running.config.rpo_seconds, problem))
    return tuple(rows)
