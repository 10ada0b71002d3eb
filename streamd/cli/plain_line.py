"""Reading a command line with nothing unusual in it, as nearly all are, without loading typer.

Known options by their full names, each once, its value beside it or after a `=`; arguments; values
that are what they are (`plain_values`). Whatever else there is, help and every mistake, is typer's:
then `read` returns None, and nothing has happened.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import UnionType
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

from streamd.cli.calling import call, take_common
from streamd.cli.declare import Declared
from streamd.cli.plain_values import OTHER, taken
from streamd.cli.table import COMMON_OPTIONS, UNLOCK_OPTIONS, Command, Group

_UNCHECKED: Final = frozenset({"help", "metavar", "show_default"})  # the facts that are only shown


class _Unusual(Exception):
    """This is for typer. Never leaves this module."""


class _Parameter(NamedTuple):
    """What one parameter of a command takes."""

    name: str
    kind: Any
    is_list: bool
    default: Any  # `inspect.Parameter.empty`: it has to be given


def read(
    arguments: Sequence[str], table: Mapping[str, Command | Group]
) -> Callable[[], object] | None:
    """Return what calls the command of a line; None when the line is not as plain as that."""
    words = list(arguments)
    try:
        common: dict[str, Any] = {}
        commands: Mapping[str, Command | Group] = table
        while True:
            _take_common(words, common)
            if not words or words[0] not in commands:
                return None
            entry = commands[words.pop(0)]
            if isinstance(entry, Command):
                break
            commands = entry.commands
        function = getattr(import_module(f"streamd.cli.{entry.module}"), entry.function)
        own = inspect.signature(function, eval_str=True).parameters
        values = _values(own.values(), words, reads=entry.reads)
    except _Unusual:
        return None

    def run() -> object:
        take_common(common.get("config"), bool(common.get("json")))
        try:
            return call(function, own, values, reads=entry.reads)
        except EOFError as error:  # as typer has it: somebody was asked, and left
            raise KeyboardInterrupt from error

    return run


def _take_common(words: list[str], found: dict[str, Any]) -> None:
    """Take the options that may stand before the name of a command."""
    options, _ = _declared(
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in COMMON_OPTIONS
    )
    while words and words[0].startswith("-"):
        name, value = _option(words, options)
        if name in found:
            raise _Unusual
        found[name] = value


def _values(
    own: "Sequence[inspect.Parameter] | Any", words: list[str], *, reads: bool
) -> dict[str, Any]:
    """Return a value for each parameter."""
    names = {each.name for each in own}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (*(UNLOCK_OPTIONS if reads else ()), *COMMON_OPTIONS)
        if name not in names
    ]
    options, positions = _declared((*own, *added))
    values: dict[str, Any] = {}
    plain: list[str] = []
    while words:
        if not words[0].startswith("-"):
            plain.append(words.pop(0))
            continue
        name, value = _option(words, options)
        if name in values:
            raise _Unusual
        values[name] = value
    _place(plain, positions, values)
    for each in (*options.values(), *positions):
        if each.name not in values:
            if each.default is inspect.Parameter.empty:
                raise _Unusual
            values[each.name] = each.default
    return values


def _place(plain: list[str], positions: Sequence[_Parameter], values: dict[str, Any]) -> None:
    """Give the arguments of a line to the parameters that take them."""
    for each in positions:
        if not plain:
            return
        if each.is_list:
            if each is not positions[-1]:
                raise _Unusual
            values[each.name] = _plain(each.kind, list(plain))
            plain.clear()
        else:
            values[each.name] = _plain(each.kind, plain.pop(0))
    if plain:
        raise _Unusual


def _option(words: list[str], options: Mapping[str, _Parameter]) -> tuple[str, Any]:
    """Take an option and its value from the beginning of a line."""
    word, is_joined, value = words.pop(0).partition("=")
    parameter = options.get(word)
    if parameter is None or parameter.is_list or (is_joined and not word.startswith("--")):
        raise _Unusual
    if parameter.kind is bool:
        if is_joined:
            raise _Unusual
        return parameter.name, True
    if not is_joined:
        if not words or words[0].startswith("-"):
            raise _Unusual
        value = words.pop(0)
    return parameter.name, _plain(parameter.kind, value)


def _plain(kind: Any, value: object) -> Any:
    found = taken(kind, value)
    if found is OTHER:
        raise _Unusual
    return found


def _declared(
    parameters: "Sequence[inspect.Parameter] | Any",
) -> tuple[dict[str, _Parameter], list[_Parameter]]:
    """Return what options there are, by each of their names, and what arguments."""
    options: dict[str, _Parameter] = {}
    positions: list[_Parameter] = []
    for each in parameters:
        if get_origin(each.annotation) is not Annotated:
            raise _Unusual
        kind, *notes = get_args(each.annotation)
        declared = notes[0]
        if len(notes) != 1 or not isinstance(declared, Declared):
            raise _Unusual
        if get_origin(kind) is UnionType:
            kind, *more = [one for one in get_args(kind) if one is not type(None)]
            if more:
                raise _Unusual
        if declared.facts.keys() - _UNCHECKED:
            kind = None  # which no value is plain for
        taker = _Parameter(each.name, kind, get_origin(kind) is list, each.default)
        if not declared.is_option:
            positions.append(taker)
            continue
        if kind is bool and not declared.names:
            raise _Unusual  # it has a --no- too
        for name in declared.names or (f"--{each.name.replace('_', '-')}",):
            options[name] = taker
    return options, positions
