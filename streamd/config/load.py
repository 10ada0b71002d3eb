"""Read the configuration: the file, then conf.d/*.toml beside it, as one Config or one error.

All or nothing, and all problems at once: whoever corrects a configuration sees everything that
is wrong with it in one run, each with file, line and the nearest name that would be right. Nothing
here looks at the rest of the machine; see `config.host`.
"""

import glob
import os
import re
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streamd.config.locate import KeyPath, Place, Places, locate
from streamd.config.model import Config
from streamd.config.rules import Problem, check, nearest
from streamd.errors import ConfigInvalid

_LINE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)")
_ROUNDS_MAX: Final = 20  # each round takes at least one wrong key away; see `_validated`


@dataclass(slots=True)
class _Gathered:
    """What the files say, merged; where; and what was wrong so far, in the order found."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load(path: str) -> Config:
    """Return the configuration in `path` and its conf.d.

    Raises ConfigInvalid with every problem found, in the order of the files.
    """
    files = [path, *sorted(glob.glob(os.path.join(os.path.dirname(path), "conf.d", "*.toml")))]
    gathered = _Gathered()
    for file in files:
        _read(file, gathered)
    if gathered.problems:
        raise _invalid(path, gathered.problems)
    config, problems = _validated(gathered.data)
    known = [problem.key for problem in problems]  # a key taken away is not missing
    problems += [
        found
        for found in check(config)
        if not any(key[: len(found.key)] == found.key for key in known)
    ]
    places = Places(gathered.places, path)
    if problems:
        raise _invalid(path, report(problems, places, files))
    return config.placed(places)


def report(
    problems: Iterable[Problem], places: Places, files: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return one line for each problem: `file:line: key: message; did you mean "…"?`."""
    order = {file: number for number, file in enumerate(files)}
    found: dict[str, Place] = {}
    for problem in problems:
        place = places.find(problem.key)
        hint = f'; did you mean "{problem.hint}"?' if problem.hint else ""
        found[f"{place}: {_dotted(problem.key)}: {problem.message}{hint}"] = place
    return tuple(sorted(found, key=lambda line: (order.get(found[line].file, 0), found[line].line)))


def _invalid(path: str, problems: Iterable[str]) -> ConfigInvalid:
    listed = tuple(problems)
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    return ConfigInvalid(f"{count} in the configuration {path}", problems=listed)


def _dotted(key: KeyPath) -> str:
    """Return for example `sources.web.paths[0]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in key]
    return "".join(parts).removeprefix(".")


def _quoted(part: str) -> str:
    return part if part.replace("-", "_").isidentifier() else f'"{part}"'


# -- files -------------------------------------------------------------------------------------


def _read(file: str, gathered: _Gathered) -> None:
    """Merge `file` into what is gathered, noting what cannot be."""
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
        data = tomllib.loads(text)
    except OSError as error:
        gathered.problems.append(f"{file}:1: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        gathered.problems.append(f"{file}:1: byte {error.start} is not UTF-8")
    except tomllib.TOMLDecodeError as error:
        gathered.problems.append(_syntax_problem(file, str(error)))
    else:
        places = {key: Place(file, line) for key, line in locate(text).items()}
        _merge((), gathered.data, data, places, gathered)


def _syntax_problem(file: str, message: str) -> str:
    match = _LINE.search(message)
    line = match.group(1) if match and match.group(1) else "1"
    where = "" if match is None or match.group(1) else " at the end of the file"
    return f"{file}:{line}: {_sentence(_LINE.sub('', message))}{where}"


def _merge(
    prefix: KeyPath,
    into: dict[str, Any],
    new: dict[str, Any],
    places: dict[KeyPath, Place],
    gathered: _Gathered,
) -> None:
    """Add the keys of `new` to `into`: tables merge, arrays of tables are joined."""
    for name, value in new.items():
        key = (*prefix, name)
        old = into.get(name)
        if name not in into:
            into[name] = value
            _take_places(key, places, gathered.places)
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(key, old, value, places, gathered)
        elif isinstance(old, list) and _is_tables(old) and _is_tables(value):
            for number, table in enumerate(value):
                _take_places((*key, number), places, gathered.places, (*key, len(old)))
                old.append(table)
        else:
            here, there = places.get(key), gathered.places.get(key)
            gathered.problems.append(f"{here}: {_dotted(key)}: is set already at {there}")


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _take_places(
    key: KeyPath,
    source: dict[KeyPath, Place],
    target: dict[KeyPath, Place],
    renamed: KeyPath | None = None,
) -> None:
    """Copy the places of `key` and all below it, under the name it has after merging."""
    for found, place in source.items():
        if found[: len(key)] == key:
            target[(*(renamed or key), *found[len(key) :])] = place


# -- validation --------------------------------------------------------------------------------


def _validated(data: dict[str, Any]) -> tuple[Config, list[Problem]]:
    """Return the configuration without its wrong keys, and what is wrong with those.

    The rules between keys can then be checked in the same run. Only the first round's problems
    count: later ones are consequences of what was taken away.
    """
    problems: list[Problem] | None = None
    for _ in range(_ROUNDS_MAX):
        try:
            config = Config.model_validate(data, context={}, by_alias=True, by_name=False)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
            if problems is None:
                problems = [_problem(d) for d in details if not _is_consequence(d, details)]
            for detail in reversed(details):
                _take_away(data, _key_of(detail))
        else:
            return config, problems or []
    return Config(), problems or []


def _is_consequence(detail: ErrorDetails, others: list[ErrorDetails]) -> bool:
    """Return whether a list is only too short because its elements are wrong."""
    key = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(key)] == key and other is not detail for other in others
    )


def _key_of(detail: ErrorDetails) -> KeyPath:
    """Return the key at fault; for a missing key, the table that lacks it."""
    key = tuple(part for part in detail["loc"] if part != "[key]")
    return key[:-1] if detail["type"] == "missing" else key


def _take_away(data: Any, key: KeyPath) -> None:
    for part in key[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(data, list) and isinstance(key[-1], int) and key[-1] < len(data):
        del data[key[-1]]
    elif isinstance(data, dict):
        data.pop(key[-1], None)


def _problem(detail: ErrorDetails) -> Problem:
    """Return pydantic's complaint in our words."""
    key = tuple(part for part in detail["loc"] if part != "[key]")
    hint: str | None = None
    match detail["type"]:
        case "extra_forbidden":
            message, hint = "unknown key", nearest(str(key[-1]), _known_keys(key[:-1]))
        case "missing":
            message = "is required"
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            word = str(detail["input"])
            message, hint = f'"{word}" is none of {", ".join(allowed)}', nearest(word, allowed)
        case "value_error":
            message = str(detail["ctx"]["error"])
        case "too_short":
            message = "must not be empty"
        case "greater_than_equal":
            message = f"must be at least {detail['ctx']['ge']}"
        case "model_type" | "dict_type":
            message = f"is a table: write [{_dotted(key)}]"
        case _:
            message = _sentence(detail["msg"])
    return Problem(key, message, hint)


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:]


def _known_keys(table: KeyPath) -> list[str]:
    """Return the keys that the table at `table` may have."""
    model: Any = Config
    for part in table:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            model = _element(model)  # the name of a source, or the number of a window
            continue
        by_key = {f.validation_alias or name: f for name, f in model.model_fields.items()}
        model = _unwrapped(by_key[str(part)].annotation)
    assert issubclass(model, BaseModel), "only a table has unknown keys"
    return [str(f.validation_alias or name) for name, f in model.model_fields.items()]


def _unwrapped(annotation: Any) -> Any:
    """Return the type inside `X | None`."""
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    optional = type(None) in typing.get_args(annotation)
    return arguments[0] if optional and len(arguments) == 1 else annotation


def _element(annotation: Any) -> Any:
    """Return V of `dict[K, V]` and T of `tuple[T, ...]`."""
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return arguments[-1]
