"""`streamd capture`: one pass over the sources without the daemon, durable when it ends."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from streamd.cli import context, render
from streamd.cli.declare import argument, option
from streamd.cli.times import hold_seconds
from streamd.errors import ExitCode, NotFound


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was captured of one source."""

    source: str
    entries: int
    problems: int
    at_us: int
    state: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    sources: tuple[SourceReport, ...]
    seconds: float
    source_bytes: int
    stored_bytes: int
    complete: bool


def command(
    sources: Annotated[
        list[str] | None, argument(metavar="[SOURCE]...", help="Default: all sources.")
    ] = None,
    name: Annotated[
        str, option("--name", help="Name the recovery point, for example before-upgrade.")
    ] = "",
    hold: Annotated[
        str, option("--hold", help="Keep the named point at least that long, e.g. 365d.")
    ] = "",
) -> ExitCode:
    """Find every difference, make it durable in the vault, and exit; 3 if something was unreadable.

    Example: streamd capture web --name before-upgrade --hold 365d
    """
    from streamd.daemon.oneshot import capture

    config = context.load_config()
    unknown = sorted(set(sources or ()) - set(config.sources))
    if unknown:
        known = ", ".join(sorted(config.sources))
        raise NotFound(f"no source {unknown[0]!r} in the configuration; there are: {known}")
    chosen = {key: value for key, value in config.sources.items() if not sources or key in sources}
    held = hold_seconds(hold) if hold else 0
    result = context.run_async(
        capture(config, chosen, label=name, hold_seconds=held, progress=_progress())
    )
    report = Report(
        sources=tuple(
            SourceReport(
                source=one.name,
                entries=one.entries,
                problems=one.problems,
                at_us=one.at_us,
                state=one.state,
            )
            for one in result.sources
        ),
        seconds=result.seconds,
        source_bytes=result.source_bytes,
        stored_bytes=result.stored_bytes,
        complete=result.is_complete,
    )
    context.emit(report, _text)
    return ExitCode.OK if result.is_complete else ExitCode.INCOMPLETE


def _progress() -> Callable[[int, int], None] | None:
    import sys

    if context.is_json() or not sys.stderr.isatty():
        return None

    def show(entries: int, size: int) -> None:
        sys.stderr.write(f"\r{entries:,} entries looked at, {render.size(size)} read   ")
        sys.stderr.flush()

    return show


def _text(report: Report) -> str:
    lines = [
        f"{one.source}: {one.entries:,} entries looked at"
        + (f", {one.problems} not captured (see streamd problems)" if one.problems else "")
        + (f"; {one.state}" if one.state != "protected" else "")
        for one in report.sources
    ]
    lines.append(
        f"read {render.size(report.source_bytes)}, stored {render.size(report.stored_bytes)}"
        f" in {report.seconds:.1f} s"
    )
    return "\n".join(lines)
