"""Read the configuration: the file, then conf.d/*.toml beside it, as one Config or one error.

All or nothing, and all problems at once: whoever corrects a configuration sees everything that
is wrong with it in one run, each with file, line and the nearest name that would be right. Nothing
here looks at the rest of the machine; see `config.host`.
"""

import glob
import os
import re
import tomllib
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import field

from streamd.config.locate import KeyPath, Place, Places, locate
from streamd.config.model import Config
from streamd.config.rules import check
from streamd.config.table import Problem, Reading, dotted
from streamd.errors import ConfigInvalid

_LINE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)")


class _Gathered(msgspec.Struct):
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
    reading = Reading(is_file=True)
    # without its wrong keys, so that the rules between keys can be checked in the same run
    config: Config = Config.read(gathered.data, (), reading)
    problems = reading.problems
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
        found[f"{place}: {dotted(problem.key)}: {problem.message}{hint}"] = place
    return tuple(sorted(found, key=lambda line: (order.get(found[line].file, 0), found[line].line)))


def _invalid(path: str, problems: Iterable[str]) -> ConfigInvalid:
    listed = tuple(problems)
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    return ConfigInvalid(f"{count} in the configuration {path}", problems=listed)


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
            gathered.problems.append(f"{here}: {dotted(key)}: is set already at {there}")


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


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:]
