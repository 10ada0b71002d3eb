"""What is read without typer is what typer reads."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from streamd.cli import context, lazy, plain_line
from streamd.cli.declare import Declared
from streamd.cli.table import TABLE, Command, Group
from streamd.errors import UsageInvalid

PLAIN = [
    "capture",
    "capture web db --name before --hold 365d",
    "capture --name=before web",
    "--json -c /x capture",
    "-c /x capture --json web",
    "capture -c /x --json",
    "capture --config=/x",
    "retention run",
    "retention run web -c /x",
    "retention -c /x plan web --kit /kit --code-file /code",
    "--config /x retention --json run",
    "status",
    "status --json",
    "points web",
    "ls web:/srv --at now-2h",
    "restore web:/srv db --to /t --at latest --dry-run --on-conflict skip",
    "restore web --to=/t --verify",
    "diff web now-2h now",
    "diff web now-2h now /srv",
    "key revoke a b",
    "key host-role write-only",
    "config show",
    "config diff /old",
    "errors",
]
OTHERS = [
    "",
    "--help",
    "--version",
    "nothing-of-the-kind",
    "capture --help",
    "capture -h",
    "capture --nam x",
    "capture --name",
    "capture --name a --name b",
    "capture --name -x",
    "capture -- web",
    "capture -c=/x",
    "capture -c/x",
    "capture --json=yes",
    "--json --json capture",
    "retention",
    "retention walk",
    "restore",
    "restore web --on-conflict no-such",
    "ls",
    "ls a b c d",
    "diff web",
    "key host-role king",
    "explain",
    "status extra",
]


def way_of(run, monkeypatch, module) -> object:
    """Return what the function of a command would be given, and how it is called."""
    given: list[object] = []

    def call(function, own, values, *, reads):
        taken = {name: values[name] for name in own}
        common = {name: values[name] for name in values if name not in taken}
        given.append((function, taken, common, reads, context.invocation()))

    monkeypatch.setattr(module, "call", call)
    context.set_invocation(context.Invocation())
    try:
        result = run()
    except UsageInvalid as error:
        return str(error)
    finally:
        context.set_invocation(context.Invocation())
    return given or result


@pytest.mark.parametrize("line", PLAIN)
def test_a_plain_line_is_read_as_typer_reads_it(line, monkeypatch):
    run = plain_line.read(line.split(), TABLE)
    assert run is not None
    assert way_of(run, monkeypatch, plain_line) == way_of(
        lambda: lazy.run(line.split(), TABLE), monkeypatch, lazy
    )


@pytest.mark.parametrize("line", OTHERS)
def test_whatever_else_there_is_is_left_to_typer(line):
    assert plain_line.read(line.split(), TABLE) is None


def test_every_parameter_of_every_command_is_declared_without_typer():
    groups = [entry.commands for entry in TABLE.values() if isinstance(entry, Group)]
    alone = {name: entry for name, entry in TABLE.items() if isinstance(entry, Command)}
    for commands in (alone, *groups):
        for entry in commands.values():
            function = getattr(import_module(f"streamd.cli.{entry.module}"), entry.function)
            for each in inspect.signature(function, eval_str=True).parameters.values():
                notes = each.annotation.__metadata__
                assert [type(note) for note in notes] == [Declared], (entry, each.name)


def test_a_bound_on_a_value_is_left_to_typer():
    assert plain_line.read(["problems"], TABLE) is not None
    assert plain_line.read(["problems", "--limit", "3"], TABLE) is None


def test_an_ordinary_command_does_not_load_typer():
    code = (
        "import sys; from streamd.cli.main import main;"
        "main(['capture', '-c', '/no/such/file']); main(['errors', '--json']);"
        "sys.exit('typer' if 'typer' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
