"""`streamd problems`: every entry that is not protected as it should be, and why."""

import base64
import os
from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from streamd.cli import render
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.times import format_time
from streamd.config.zone import zone_of
from streamd.daemon import control
from streamd.daemon.status import ProblemLine, ProblemsReport
from streamd.errors import ExitCode, NotFound

LIMIT = 1_000  # what one answer of the daemon holds


def command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Only this source.", show_default=False)
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=LIMIT, help="List at most so many, oldest first.")
    ] = LIMIT,
) -> ExitCode:
    """List everything that is not protected, with the reason.

    Ends with 0 when there is nothing, 3 when there is something, 6 when the daemon does not run.
    Example: streamd problems web
    """
    config = load_config()
    if source and source not in config.sources:
        known = ", ".join(sorted(config.sources)) or "none"
        raise NotFound(f'there is no source "{source}" in the configuration; there is: {known}')
    asked = {"source": source, "limit": limit}
    answer = run_async(control.request(config.daemon.socket, "problems", asked))
    report = msgspec.convert(answer, ProblemsReport)
    zone = zone_of(config.timezone)
    emit(report, lambda found: _text(found, lambda at_us: format_time(at_us, zone=zone)))
    return ExitCode.INCOMPLETE if report.count else ExitCode.OK


def _text(report: ProblemsReport, when: Callable[[int], str]) -> str:
    if not report.problems:
        return "nothing: every entry that was found is protected"
    rows = [
        (line.source, line.reason, line.error, when(line.since_us), _path(line))
        for line in report.problems
    ]
    table = render.table(("source", "reason", "error", "since", "path"), rows)
    more = report.count - len(report.problems)
    return f"{table}\nand {render.count(more)} more" if more > 0 else table


def _path(line: ProblemLine) -> str:
    raw = base64.b64decode(line.path_b64) if line.path_b64 else os.fsencode(line.path)
    return render.name(raw)
