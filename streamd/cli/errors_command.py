"""`streamd errors`: every error, what the shell gets, and what to do about it."""

import re

import msgspec

from streamd import errors
from streamd.cli import render
from streamd.cli.context import emit


class ErrorLine(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of error."""

    code: str
    exit_code: int
    meaning: str
    remedy: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    errors: tuple[ErrorLine, ...]


def command() -> None:
    """List every error with its exit code and remedy.

    Example: streamd errors --json
    """
    emit(report(), _text)


def report() -> Report:
    """Return all errors in the order of their slugs."""
    lines = (_line(kind) for kind in kinds())
    return Report(errors=tuple(sorted(lines, key=lambda line: line.code)))


def kinds() -> list[type[errors.StreamdError]]:
    """Return every class of error that can reach an operator: those with a slug of their own."""
    found = [errors.StreamdError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return [kind for kind in found if "code" in vars(kind)]


def _line(kind: type[errors.StreamdError]) -> ErrorLine:
    remedy = re.sub(r"\{(\w+)\}", lambda match: f"<{match.group(1)}>", kind.remedy)
    meaning = (kind.__doc__ or "").split("\n", maxsplit=1)[0]
    return ErrorLine(code=kind.code, exit_code=kind.exit_code, meaning=meaning, remedy=remedy)


def _text(listed: Report) -> str:
    rows = [(line.code, str(line.exit_code), line.remedy) for line in listed.errors]
    return render.table(("error", "exit", "remedy"), rows, right="-r")
