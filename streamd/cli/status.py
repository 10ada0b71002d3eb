"""`streamd status`: what is protected and what is not, on one screen, worst first."""

from collections import Counter
from typing import Final

import msgspec

from streamd.cli import render
from streamd.cli.context import emit, load_config, run_async
from streamd.config.units import format_rate
from streamd.daemon import control
from streamd.daemon.status import (
    DaemonStatus,
    DestinationStatus,
    SourceStatus,
    overall_state,
    verdict,
    worst_first,
)
from streamd.errors import ExitCode

WATCHES_SHOWN: Final = 5  # of each source; `--json` has more
_HEADERS = ("source", "state", "lag", "rpo", "watched by", "waiting", "problems", "entries")


def command() -> ExitCode:
    """Show what is protected and what is not, worst first.

    Ends with 0 when everything is protected, 3 when something lags or is incomplete, 6 when the
    daemon does not run. Example: streamd status
    """
    config = load_config()
    answer = run_async(control.request(config.daemon.socket, "status"))
    status = msgspec.convert(answer, DaemonStatus)
    emit(status, screen)
    return verdict(status)


def screen(status: DaemonStatus) -> str:
    """Return the screen as text."""
    ordered = worst_first(status.sources)
    rows = [_row(source) for source in ordered]
    blocks = [_headline(status)]
    if rows:
        blocks.append(render.table(_HEADERS, rows, right="-----rrr"))
    blocks.append("\n".join([*_notes(status, ordered), *_facts(status)]))
    return "\n\n".join(blocks)


def _headline(status: DaemonStatus) -> str:
    count = len(status.sources)
    if not count:
        return "INCOMPLETE: no source is configured, nothing is protected"
    bad = sum(1 for source in status.sources if overall_state([source]) != "protected")
    if verdict(status) is ExitCode.OK:
        return f"protected: all {count} sources" if count > 1 else "protected: the only source"
    worst = status.state if status.state != "protected" else overall_state(status.sources)
    return f"{worst.upper()}: {bad} of {count} sources {'needs' if bad == 1 else 'need'} a look"


def _row(source: SourceStatus) -> tuple[str, ...]:
    return (
        source.name,
        source.state,
        ", ".join(_lag(each) for each in source.destinations) or "unknown",
        render.duration(source.rpo_seconds),
        _watchers(source.watch_modes),
        render.count(source.unprotected_changes),
        render.count(source.problems),
        render.count(source.entries),
    )


def _lag(at: DestinationStatus) -> str:
    known = "nothing yet" if at.lag_seconds is None else render.duration(at.lag_seconds)
    return f"{at.destination} {known}"


def _watchers(modes: dict[str, str]) -> str:
    """Return for example `fanotify`, or `fanotify 2, polling 1` where mounts differ."""
    kinds = Counter(modes.values())
    if len(kinds) <= 1:
        return next(iter(kinds), "nothing")
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())


def _notes(status: DaemonStatus, ordered: list[SourceStatus]) -> list[str]:
    """Return what is wrong in words, and what to do next."""
    notes = [
        f"{source.name}: SUSPECT: {render.count(each.files)} files {each.reason} since"
        f" {render.ago(each.before_us, status.now_us)}; nothing of it is thinned"
        f" (streamd points {source.name}, then streamd retention release {source.name})"
        for source in ordered
        if (each := source.incident) is not None
    ]
    notes += [f"{source.name}: {source.message}" for source in ordered if source.message]
    notes += [
        f"{source.name}: {watch.path} is watched by {watch.mode} ({watch.why})"
        for source in ordered
        for watch in source.watches[:WATCHES_SHOWN]
        if watch.why
    ]
    if status.config_error:
        notes.append(
            f"the last reload was refused, the old configuration runs on: {status.config_error}"
        )
    notes += [f"WARNING: {each}" for each in status.config_unheeded]
    if status.spool_full_since_us:
        since = render.ago(status.spool_full_since_us, status.now_us)
        notes.append(
            f"the local copy is full since {since}: capture waits for room or for the container"
        )
    if count := sum(source.problems for source in ordered):
        notes.append(f"{render.count(count)} entries are not protected: streamd problems")
    if count := sum(source.fuzzy for source in ordered):
        notes.append(f"{render.count(count)} files changed while they were read (fuzzy)")
    return [*notes, ""] if notes else []


def _classes(source: SourceStatus) -> str:
    """Return how many entries are in each class; those of which there is none are left out."""
    some = [f"{render.count(count)} {name}" for name, count in source.classes.items() if count]
    return f"files      {source.name}: {', '.join(some) or 'nothing there'}"


def _traffic(status: DaemonStatus) -> str:
    """Return for example `at most 5MiB/s (window)`, or `paused, 2 h to go`."""
    limit = status.upload_limit_bytes_per_second or 0
    text = f"at most {format_rate(limit)} ({status.upload_limit_reason})" if limit else "paused"
    until = status.upload_limit_until_us
    left = render.duration((until - status.now_us) / 1_000_000) if until else ""
    return f"{text}, {left} to go" if left else text


def _facts(status: DaemonStatus) -> list[str]:
    used, limit = render.size(status.memory_used_bytes), render.size(status.memory_limit_bytes)
    up = render.duration((status.now_us - status.started_us) / 1_000_000)
    lines = [_classes(source) for source in worst_first(status.sources) if source.classes]
    lines.append(f"vault      {status.vault_url}")
    if status.is_remote:
        waiting = f"{render.count(status.spool_objects)} objects, {render.size(status.spool_bytes)}"
        lines.append(
            f"to upload  {waiting}" + (f" ({state})" if (state := status.upload_state) else "")
        )
        if status.upload_limit_reason != "none":
            lines.append(f"traffic    {_traffic(status)}")
    if status.role != "full":
        lines.append("role       write-only: reading commands and retention need --kit")
    retention = status.retention_last_us
    return [
        *lines,
        f"memory     {used} of {limit}",
        f"retention  {render.ago(retention, status.now_us) if retention else 'not run yet'}",
        f"daemon     streamd {status.version}, process {status.pid}, up {up}",
    ]
