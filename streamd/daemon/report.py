"""What the daemon answers on its control socket: status and problems, read from its parts."""

import base64
import os
from typing import TYPE_CHECKING

from streamd import __version__
from streamd.catalog import dirty, objects
from streamd.config.unheeded import unheeded
from streamd.daemon.following import role_of
from streamd.daemon.status import (
    DaemonStatus,
    DestinationStatus,
    IncidentStatus,
    ProblemLine,
    ProblemsReport,
    SourceState,
    SourceStatus,
    WatchFacts,
    incident_problem,
    overall_state,
    problem_line,
    waiting_problem,
    watch_lines,
)
from streamd.errors import NotFound, UsageInvalid
from streamd.model.record import Incident

if TYPE_CHECKING:
    from streamd.daemon.main import Daemon
    from streamd.daemon.running import Running


class DaemonReport:
    """Answers about one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def status(self, _: dict[str, object]) -> DaemonStatus:
        """Answer `status`."""
        daemon = self._daemon
        host = daemon.host
        assert host is not None
        sources = tuple(self._source(name, one) for name, one in daemon.running.items())
        traffic = host.traffic.report()
        spool_objects, spool_bytes = await host.catalog.read(objects.backlog)
        return DaemonStatus(
            version=__version__,
            pid=os.getpid(),
            started_us=daemon.started_us,
            now_us=daemon.clock.now_us(),
            vault_url=daemon.config.vault.url,
            is_remote=host.stores.remote is not None,
            sources=sources,
            state=overall_state(sources),
            spool_bytes=spool_bytes,
            spool_objects=spool_objects,
            upload_state=host.uploader.state if host.uploader is not None else "",
            memory_used_bytes=host.pipeline.budget.used_bytes,
            memory_limit_bytes=daemon.config.pipeline.memory_limit_bytes,
            config_generation=daemon.generation,
            config_error=daemon.config_error,
            config_unheeded=unheeded(daemon.config),
            spool_full_since_us=0 if host.spool is None else host.spool.full_since_us,
            upload_limit_bytes_per_second=traffic.bytes_per_second,
            upload_limit_reason=traffic.reason,
            upload_limit_until_us=traffic.until_us,
            role=role_of(host),
            retention_last_us=daemon.upkeep.last_success_us if daemon.upkeep is not None else 0,
        )

    def _source(self, name: str, running: "Running") -> SourceStatus:
        protection = running.protection
        paths = running.config.paths
        if protection is None:
            return SourceStatus(
                name=name,
                state="failed" if running.failure else "starting",
                paths=paths,
                rpo_seconds=running.config.rpo_seconds,
                destinations=(),
                watch_modes={},
                message=running.failure,
            )
        progress = protection.progress
        is_known = progress.is_watching and progress.scanned.is_set()
        destinations = tuple(
            DestinationStatus(
                destination=destination,
                protected_through_us=protection.watermarks.through_us(destination),
                lag_seconds=protection.watermarks.lag_seconds(destination) if is_known else None,
            )
            for destination in self._daemon.destinations()
        )
        modes = protection.stream.source.watch_modes
        return SourceStatus(
            name=name,
            state=self._state(running, destinations),
            paths=paths,
            rpo_seconds=running.config.rpo_seconds,
            destinations=destinations,
            watch_modes={os.fsdecode(path): mode for path, mode in modes.items()},
            watches=watch_lines(protection.stream.source.watches),
            unprotected_changes=progress.dirty_count,
            problems=progress.problem_count,
            fuzzy=progress.fuzzy_count,
            entries=progress.entry_count,
            last_change_us=progress.last_change_us,
            last_scan_us=progress.last_scan_us,
            message=running.failure or progress.message or protection.watermarks.waiting(),
            classes=protection.census.counts,
            reconcile_us=protection.census.reconcile.at_us,
            reconcile_entries=protection.census.reconcile.total,
            incident=_incident(progress.incident),
            events_wait_since_us=_waits_since_us(running),
        )

    @staticmethod
    def _state(running: "Running", destinations: tuple[DestinationStatus, ...]) -> SourceState:
        assert running.protection is not None
        progress = running.protection.progress
        if running.failure:
            return "failed"
        if progress.state == "source-missing":
            return "source-missing"
        if not progress.scanned.is_set():
            return "scanning" if progress.is_watching else "starting"
        lags = [each.lag_seconds or 0.0 for each in destinations]
        return "lagging" if max(lags, default=0.0) > running.config.rpo_seconds else "protected"

    async def explain(self, args: dict[str, object]) -> WatchFacts:
        """Answer `explain`: `source`, and `path` in base64. Raises UsageInvalid, NotFound."""
        name = str(args.get("source", ""))
        try:
            path = base64.b64decode(str(args.get("path", "")), validate=True)
        except ValueError as error:
            raise UsageInvalid("the path is not base64") from error
        running = self._daemon.running.get(name)
        if running is None or running.protection is None:
            raise NotFound(f'the daemon protects no source "{name}" now')
        protection = running.protection
        modes = protection.stream.source.watch_modes
        roots = [
            root for root in modes if path == root or path.startswith(root.rstrip(b"/") + b"/")
        ]
        return WatchFacts(
            mode=modes[max(roots, key=len)] if roots else "",
            state=self._source(name, running).state,
            last_event_us=protection.last_event_us(path),
            source_event_us=protection.progress.last_change_us,
            events_wait_since_us=_waits_since_us(running),
            events_wait=protection.watermarks.waiting(),
        )

    async def problems(self, args: dict[str, object]) -> ProblemsReport:
        """Answer `problems`, for all sources or the one in `args`."""
        daemon = self._daemon
        host = daemon.host
        assert host is not None
        wanted = args.get("source")
        lines: list[ProblemLine] = []
        count = 0
        for name, running in daemon.running.items():
            protection = running.protection
            if protection is None or (wanted and wanted != name):
                continue
            source = self._source(name, running)
            own = [line for line in (incident_problem(source), waiting_problem(source)) if line]
            lines += own
            count += len(own)
            number = protection.stream.number
            count += await host.catalog.read(dirty.problem_count, number)
            rows = await host.catalog.read(dirty.problems, number)
            lines += [problem_line(name, row) for row in rows]
        return ProblemsReport(problems=tuple(lines), count=count)


def _waits_since_us(running: "Running") -> int:
    protection = running.protection
    if running.failure or protection is None or not protection.watermarks.waiting():
        return 0
    return protection.watermarks.waits_since_us


def _incident(incident: Incident | None) -> IncidentStatus | None:
    if incident is None:
        return None
    return IncidentStatus(
        reason=incident.reason, files=incident.file_count, before_us=incident.point_us
    )
