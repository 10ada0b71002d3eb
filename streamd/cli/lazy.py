"""The command line by typer: for help, for what is wrong, and for all that is not a `plain_line`.

Commands are imported when they are called: `streamd --help` imports none of them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn, get_args, get_origin

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from streamd.cli import context, plain_values
from streamd.cli.calling import call, take_common
from streamd.cli.declare import Declared
from streamd.cli.table import (
    COMMON_OPTIONS,
    UNLOCK_OPTIONS,
    Command,
    ConfigOption,
    Group,
    JsonOption,
)
from streamd.errors import ExitCode, UsageInvalid

HELP: Final = (
    "Protect files continuously, and bring any instant back.\n\n"
    "Example: streamd status; streamd restore web:/srv/www --at -2h --to /tmp/www"
)


def run(arguments: list[str], table: Mapping[str, Command | Group]) -> object:
    """Return what the command returns. Raises UsageInvalid, KeyboardInterrupt, what it raises."""
    plain_values.install()
    group = whole(table)
    try:
        if not arguments:
            group.main(["--help"], prog_name="streamd", standalone_mode=False)
            return ExitCode.USAGE
        return group.main(arguments, prog_name="streamd", standalone_mode=False)
    except TyperException as error:
        _refuse(error)
    except typer.Abort as error:
        raise KeyboardInterrupt from error


def whole(table: Mapping[str, Command | Group]) -> TyperGroup:
    """Return the whole command line."""
    return build_group("streamd", table, help=HELP, callback=_root_options)


def _refuse(error: TyperException) -> NoReturn:
    message = error.format_message().strip().removesuffix(".")
    raise UsageInvalid(message[:1].lower() + message[1:]) from error


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports one when it is asked for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands from the table alone."""
        del ctx
        assert isinstance(self.commands, _Commands)
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.commands.table.items()])


class _Commands(MutableMapping[str, Any]):
    """Commands by name; reading one imports it."""

    def __init__(self, table: Mapping[str, Command | Group]) -> None:
        self.table = table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Any:
        entry = self.table[name]
        if isinstance(entry, Group):
            return build_group(name, entry.commands, help=entry.help)
        module = import_module(f"streamd.cli.{entry.module}")
        return _built(name, getattr(module, entry.function), reads=entry.reads)

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError(f"commands are added to the table: {name}")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"commands are removed from the table: {name}")


def build_group(
    name: str,
    table: Mapping[str, Command | Group] | Mapping[str, Command],
    *,
    help: str,  # noqa: A002 - typer's word
    callback: Callable[..., None] | None = None,
) -> TyperGroup:
    """Return the group `name` of the commands in `table`."""
    app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, add_completion=False)
    app.callback(help=help)(_in_typers_words(callback or _common_options))
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    group.name = name
    group.commands = _Commands(dict(table))
    return group


def _common_options(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Take the options that every command has where they stand before its name."""
    take_common(config, json)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"streamd {version('streamd')}")
        raise typer.Exit(ExitCode.OK)


def _root_options(
    config: ConfigOption = None,
    json: JsonOption = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    del version  # printed already, being eager
    before = context.invocation()
    context.set_invocation(context.Invocation(config, json or before.json))


def _built(name: str, function: Callable[..., Any], *, reads: bool) -> Any:
    """Return `function` as a command called `name`, with the options that every command has."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name)(_with_common_options(function, reads=reads))
    return get_command(app)


def _with_common_options(function: Callable[..., Any], *, reads: bool) -> Callable[..., Any]:
    """Return `function` with -c/--config and --json, which go to the invocation.

    One that reads the vault gets the options to unlock it, too. A function that has parameters of
    these names itself gets their values too.
    """
    signature = inspect.signature(function, eval_str=True)
    own = signature.parameters
    offered = UNLOCK_OPTIONS if reads else ()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (*offered, *COMMON_OPTIONS)
        if name not in own
    ]

    def command(**values: Any) -> Any:
        return call(function, own, values, reads=reads)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
    return _in_typers_words(command, [*parameters, *added], function.__doc__)


def _in_typers_words(
    function: Callable[..., Any],
    parameters: list[inspect.Parameter] | None = None,
    doc: str | None = None,
) -> Callable[..., Any]:
    """Return a function that says in typer's words what it takes: `parameters`, or its own."""

    def said(**values: Any) -> Any:
        return function(**values)

    signature = inspect.signature(function, eval_str=True)
    if parameters is None:
        parameters = list(signature.parameters.values())
    parameters = [each.replace(annotation=_typers(each.annotation)) for each in parameters]
    said.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    said.__annotations__ = {each.name: each.annotation for each in parameters}
    said.__doc__ = doc or function.__doc__
    return said


def _typers(annotation: Any) -> Any:
    """Return an annotation with what is declared in it replaced by what typer takes."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *notes = get_args(annotation)
    taken = [_info(note) if isinstance(note, Declared) else note for note in notes]
    return Annotated[kind, *taken]


def _info(declared: Declared) -> Any:
    if declared.is_option:
        return typer.Option(*declared.names, **declared.facts)
    return typer.Argument(**declared.facts)
