"""`streamd problems`: every entry that is not protected as it should be, and why."""

import base64
import os
from collections.abc import Callable
from typing import Annotated

import msgspec

from streamd.catalog.dirty import Problem
from streamd.cli import offline, render
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument, option
from streamd.cli.left_out import Decider
from streamd.cli.times import format_time
from streamd.config.model import Config
from streamd.config.zone import zone_of
from streamd.daemon import control
from streamd.daemon.status import ProblemLine, ProblemsReport, problem_line
from streamd.errors import DaemonUnreachable, ExitCode, NotFound
from streamd.policy.classes import EXCLUDED

LIMIT = 1_000  # what one answer of the daemon holds


def command(
    source: Annotated[
        str, argument(metavar="SOURCE", help="Only this source.", show_default=False)
    ] = "",
    limit: Annotated[
        int, option("--limit", min=1, help="List at most so many, oldest first.")
    ] = LIMIT,
    everything: Annotated[
        bool,
        option("--all", help="Also what waits, and what is left out, by which rule."),
    ] = False,
) -> ExitCode:
    """List everything that is not protected, with the reason.

    Ends with 0 when there is nothing, 3 when there is something. Works without the daemon too: it
    then says what was known when that ended. With --all the sources are walked, and what waits or
    is left out does not change the exit code. Example: streamd problems web
    """
    config = load_config()
    if source and source not in config.sources:
        known = ", ".join(sorted(config.sources)) or "none"
        raise NotFound(f'there is no source "{source}" in the configuration; there is: {known}')
    names = [source] if source else list(config.sources)
    report = _report(config, source, names, limit)
    code = ExitCode.INCOMPLETE if report.count else ExitCode.OK
    if everything:
        report = _with_all(config, names, report, limit)
    zone = zone_of(config.timezone)
    emit(report, lambda found: _text(found, lambda at_us: format_time(at_us, zone=zone)))
    return code


def _report(config: Config, source: str, names: list[str], limit: int) -> ProblemsReport:
    asked = {"source": source, "limit": min(limit, LIMIT)}
    try:
        answer = run_async(control.request(config.daemon.socket, "problems", asked))
        return msgspec.convert(answer, ProblemsReport)
    except DaemonUnreachable:
        lines: list[ProblemLine] = []
        count = 0
        with offline.open_catalog(config) as catalog:
            if catalog is None:
                raise
            for name in names:
                found, total = offline.problem_lines(catalog, name)
                lines, count = lines + found, count + total
        return ProblemsReport(problems=tuple(lines[:limit]), count=count)


def _with_all(
    config: Config, names: list[str], report: ProblemsReport, limit: int
) -> ProblemsReport:
    """Add what waits, and what the rules leave out now."""
    lines, known = list(report.problems), {(one.source, one.path) for one in report.problems}
    count = report.count
    with offline.open_catalog(config) as catalog:
        for name in names:
            if catalog is not None:
                pending = offline.pending_lines(catalog, name, limit)
                count += len(pending)
                lines += pending
            if config.sources[name].kind != "filesystem":
                continue
            decider = Decider(config, name)
            for path, kind in decider.left_out():
                verdict = decider.decide(path)
                rule = f"{verdict.rule} ({verdict.place})" if verdict.place else verdict.rule
                line = problem_line(name, Problem(path, kind, 0, 0, rule))
                if kind == EXCLUDED or (name, line.path) not in known:
                    count += 1
                    if len(lines) < limit:
                        lines.append(line)
    return ProblemsReport(problems=tuple(lines[:limit]), count=count)


def _text(report: ProblemsReport, when: Callable[[int], str]) -> str:
    if not report.problems:
        return "nothing: every entry that was found is protected"
    rows = [
        (
            line.source,
            line.reason,
            line.error,
            when(line.since_us) if line.since_us else "",
            _path(line) + _detail(line),
        )
        for line in report.problems
    ]
    lines = [render.table(("source", "reason", "error", "since", "path"), rows)]
    more = report.count - len(report.problems)
    if more > 0:
        lines.append(f"and {render.count(more)} more")
    remedies = {line.reason: line.remedy for line in report.problems if line.remedy}
    lines += [f"{reason}: {remedy}" for reason, remedy in remedies.items()]
    return "\n".join(lines)


def _detail(line: ProblemLine) -> str:
    return f"  ({' | '.join(line.detail.splitlines())})" if line.detail else ""


def _path(line: ProblemLine) -> str:
    raw = base64.b64decode(line.path_b64) if line.path_b64 else os.fsencode(line.path)
    return render.name(raw)
