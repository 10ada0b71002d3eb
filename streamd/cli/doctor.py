"""`streamd doctor`: what on this host and of the vault is not as it should be, and the remedy."""

from collections import Counter
from typing import Final

import msgspec

from streamd.cli import render
from streamd.cli.context import emit, load_config, run_async
from streamd.daemon import doctor
from streamd.errors import ExitCode
from streamd.policy.diagnosis import Check

_MARKS: Final = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "unknown": "?"}
_ORDER: Final = ("fail", "warn", "unknown", "ok")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One check as `--json` prints it."""

    area: str  # host, vault
    check: str
    verdict: str  # ok, warn, fail, unknown
    detail: str
    remedy: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. `healthy`: no check failed."""

    healthy: bool
    checks: tuple[Line, ...]


def command() -> ExitCode:
    """Check this host and every right at the vault, one by one, each with its remedy.

    Ends with 0 when nothing fails (warnings included), with 3 when something does. Tries rights by
    using them on an object of its own below doctor/. Example: streamd doctor
    """
    checks = run_async(doctor.examine(load_config()))
    report = Report(
        healthy=all(check.verdict != "fail" for check in checks),
        checks=tuple(_line(check) for check in checks),
    )
    emit(report, _text)
    return ExitCode.OK if report.healthy else ExitCode.INCOMPLETE


def _line(check: Check) -> Line:
    return Line(
        area=check.area,
        check=check.name,
        verdict=check.verdict,
        detail=check.detail,
        remedy=check.remedy,
    )


def _text(report: Report) -> str:
    ordered = sorted(report.checks, key=lambda line: _ORDER.index(line.verdict))
    lines = [
        line
        for check in ordered
        for line in (
            f"{_MARKS[check.verdict]:<5} {check.area:<6} {check.check}: {_safe(check.detail)}",
            *([f"      remedy: {_safe(check.remedy)}"] if check.remedy else ()),
        )
    ]
    counts = Counter(check.verdict for check in report.checks)
    summary = ", ".join(f"{counts[verdict]} {_MARKS[verdict]}" for verdict in _ORDER)
    return "\n".join([*lines, "", summary])


def _safe(text: str) -> str:
    """Return what a service or a path said, fit for a terminal."""
    return render.name(text.encode())
