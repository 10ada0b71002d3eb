"""The `streamd` command: parse, run, and turn whatever goes wrong into one line and an exit code.

Errors look like `streamd: <slug>: what failed; <remedy>` on standard error, or with --json like
`{"error": {"code": …, "message": …, "remedy": …}}` on standard output. A traceback is only shown
with STREAMD_DEBUG=1: it is for us, not for the operator.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from streamd.cli import context, plain_line
from streamd.cli.table import TABLE
from streamd.errors import ConfigInvalid, ExitCode, StreamdError

_OFFSET = re.compile(r"-\d+[wdhms][0-9wdhms]*")
_DEBUG_VARIABLE: Final = "STREAMD_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _protected(sys.argv[1:] if argv is None else argv)
    context.set_invocation(context.Invocation(json=_asks_for_json(arguments)))
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BaseException as error:  # the last line of defence
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        return _fail(_known(error))


def _run(arguments: list[str]) -> int:
    if command := plain_line.read(arguments, TABLE):
        result = command()
    else:
        from streamd.cli import lazy  # and typer

        result = lazy.run(arguments, TABLE)
    return int(result) if isinstance(result, int) else ExitCode.OK


def _protected(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with the T of the form -2h written now-2h: it is no option."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [
        f"now{argument}" if number < end and _OFFSET.fullmatch(argument) else argument
        for number, argument in enumerate(arguments)
    ]


def _asks_for_json(arguments: list[str]) -> bool:
    """Return whether --json is among the options, known before they are parsed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


# -- errors ------------------------------------------------------------------------------------


def _known(error: BaseException) -> StreamdError:
    """Return `error` as one of ours; what nobody foresaw becomes `internal`."""
    if isinstance(error, StreamdError):
        return error
    if isinstance(error, BaseExceptionGroup):
        ours = [leaf for leaf in _leaves(error) if isinstance(leaf, StreamdError)]
        if ours and len(ours) == len(_leaves(error)):
            return ours[0]
    if os.environ.get(_DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    return StreamdError(f"{type(error).__name__}: {error}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in `group`, groups in it resolved."""
    leaves: list[BaseException] = []
    for inner in group.exceptions:
        leaves.extend(_leaves(inner) if isinstance(inner, BaseExceptionGroup) else [inner])
    return leaves


def _fail(error: StreamdError) -> int:
    """Print `error` and return its exit code."""
    message = " ".join(str(error).split())
    problems = error.problems if isinstance(error, ConfigInvalid) else ()
    if context.is_json():
        body: dict[str, object] = {
            "code": error.code,
            "message": message,
            "remedy": advice(error),
        }
        if problems:
            body["problems"] = problems
        print(msgspec.json.encode({"error": body}).decode("utf-8"))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"streamd: {error.code}: {message}; {advice(error)}", file=sys.stderr)
    return error.exit_code


def advice(error: StreamdError) -> str:
    """Return the remedy; a fact that was not given is named instead of shown."""
    facts: defaultdict[str, object] = defaultdict(str)
    facts.update({name: f"<{name}>" for name in re.findall(r"\{(\w+)\}", error.remedy)})
    facts.update(error.facts)
    return error.remedy.format_map(facts)
