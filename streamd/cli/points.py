"""`streamd points`: which instants can be restored, and how long they stay."""

from typing import Annotated

import msgspec

from streamd.cli import render, unlocked
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument
from streamd.cli.times import format_rfc3339, format_time
from streamd.config.model import DEFAULT_POLICY, Config
from streamd.config.zone import zone_of
from streamd.daemon.rules import rule_of, rules_of
from streamd.effects import SystemClock
from streamd.errors import NotFound
from streamd.maintenance.points import (
    Point,
    PointReport,
    read_histories,
    report_on,
    timezone_name,
)
from streamd.model.record import Incident
from streamd.vault.state_reader import StateReader


class GapLine(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which changes may be missing or late."""

    start: str
    end: str
    reason: str
    scope: str


class PointLine(msgspec.Struct, frozen=True, kw_only=True):
    """One recovery point."""

    at: str
    at_us: int
    label: str
    keep: bool
    classes: tuple[str, ...]
    reasons: tuple[str, ...]
    checkpoint: bool
    expires: str  # empty: not foreseeable
    suspect: bool = False  # recorded since the source was damaged in mass


class IncidentLine(msgspec.Struct, frozen=True, kw_only=True):
    """Why a source is suspect: everything recorded after `before`, and nothing of it is thinned."""

    reason: str
    files: int
    before: str
    before_us: int


class SourceLine(msgspec.Struct, frozen=True, kw_only=True):
    """What can be restored of one source."""

    source: str
    window_start: str
    window_end: str
    gaps: tuple[GapLine, ...]
    points: tuple[PointLine, ...]
    overdue: int
    incident: IncidentLine | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Points that are only inside the window are not listed one by one."""

    sources: tuple[SourceLine, ...]


def command(
    source: Annotated[str | None, argument(help="Default: all sources.")] = None,
) -> None:
    """List what instants can be restored: the continuous window, its gaps, and the kept points.

    Example: streamd points web
    """
    config = load_config()
    report = run_async(_gather(config, source))
    emit(report, lambda found: _text(found, config))


async def _gather(config: Config, source: str | None) -> Report:
    now_us = SystemClock().now_us()
    rules = rules_of(config)
    default = rule_of(DEFAULT_POLICY)
    async with unlocked.open_vault(config) as vault:
        histories = await read_histories(vault, StateReader(vault))
    names = [each.name for each in histories]
    if source is not None and source not in names:
        known = ", ".join(name for name in names if name) or "none"
        raise NotFound(f'there is no source "{source}" in the vault; there is: {known}')
    lines = []
    for history in histories:
        if source is None or history.name == source:
            rule = rules.get(history.name, default)
            decisions = history.decide(rule, now_us=now_us, timezone=timezone_name(config.timezone))
            lines.append(source_line(report_on(history, decisions, rule, now_us), only_kept=True))
    return Report(sources=tuple(lines))


def source_line(report: PointReport, *, only_kept: bool) -> SourceLine:
    """Return a report as it is printed; with `only_kept`, just points that outlive the window."""
    return SourceLine(
        source=report.source,
        window_start=format_rfc3339(report.window_start_us),
        window_end=format_rfc3339(report.window_end_us),
        gaps=tuple(
            GapLine(
                start=format_rfc3339(gap.start_us),
                end=format_rfc3339(gap.end_us),
                reason=gap.reason,
                scope=render.name(gap.scope),
            )
            for gap in report.gaps
        ),
        points=tuple(
            _point_line(point)
            for point in report.points
            if not only_kept or point.is_kept_point or point.label
        ),
        overdue=report.overdue_count,
        incident=incident_line(report.incident),
    )


def incident_line(incident: Incident | None) -> IncidentLine | None:
    """Return an incident as it is printed."""
    if incident is None:
        return None
    return IncidentLine(
        reason=incident.reason,
        files=incident.file_count,
        before=format_rfc3339(incident.point_us),
        before_us=incident.point_us,
    )


def incident_text(source: str, line: IncidentLine, config: Config) -> str:
    """Return what people have to know of an incident."""
    return (
        f"  SUSPECT after {local_time(line.before, config)}: {render.count(line.files)} files"
        f" {line.reason}; nothing is thinned until: streamd retention release {source}"
    )


def _point_line(point: Point) -> PointLine:
    return PointLine(
        at=format_rfc3339(point.at_us),
        at_us=point.at_us,
        label=point.label,
        keep=point.keep,
        classes=point.classes,
        reasons=point.reasons,
        checkpoint=point.has_checkpoint,
        expires="" if point.expires_us is None else format_rfc3339(point.expires_us),
        suspect=point.is_suspect,
    )


def _text(report: Report, config: Config) -> str:
    return "\n\n".join(_source_text(line, config) for line in report.sources) or "no points yet"


def _source_text(line: SourceLine, config: Config) -> str:
    start, end = local_time(line.window_start, config), local_time(line.window_end, config)
    lines = [f"{line.source}: any instant from {start} to {end}"]
    lines += [
        f"  except {local_time(gap.start, config)} to {local_time(gap.end, config)}: {gap.reason}"
        + (f" below {gap.scope}" if gap.scope else "")
        for gap in line.gaps
    ]
    if line.incident is not None:
        lines.insert(1, incident_text(line.source, line.incident, config))
    kept = [point for point in line.points if point.keep]
    if kept:
        rows = [
            (
                local_time(point.at, config),
                point.label,
                " ".join([*point.classes, *(["SUSPECT"] if point.suspect else [])]),
                local_time(point.expires, config) if point.expires else "-",
            )
            for point in reversed(kept)
        ]
        lines.append(render.table(("point", "name", "kept as", "until about"), rows))
    if line.overdue:
        lines.append(f"{line.overdue} expired points wait for the next retention run")
    return "\n".join(lines)


def local_time(text: str, config: Config) -> str:
    """Return a time of the JSON report as people read it."""
    return format_time(parse_rfc3339(text), zone=zone_of(config.timezone))


def parse_rfc3339(text: str) -> int:
    """Return what `format_rfc3339` printed, in µs."""
    from datetime import UTC, datetime, timedelta

    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
