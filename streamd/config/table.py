"""Tables of the configuration: what each key holds is said once, and everything else follows.

A `Table` declares its keys with `setting(kind, …)`. A kind reads one value, noting whatever is
wrong with it together with its place, and writes it back as the file would spell it. Values that
code hands in are checked in the same way, except that numbers need no unit.

This is less than a library for it can do, and loads in a fraction of the time: every command does.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, Self

import msgspec

from streamd.config.locate import KeyPath

_REQUIRED: Final = object()
_BAD: Final = object()  # what a kind returns for a value of which it has noted a problem


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with the key at `key`, and the nearest name that would be right."""

    key: KeyPath
    message: str
    hint: str | None = None


def nearest(word: str, known: object) -> str | None:
    """Return the one of `known` that somebody who wrote `word` most likely meant."""
    from difflib import get_close_matches

    assert isinstance(known, list | tuple | dict)
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def dotted(key: KeyPath) -> str:
    """Return for example `sources.web.paths[0]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in key]
    return "".join(parts).removeprefix(".")


def _quoted(part: str) -> str:
    return part if part.replace("-", "_").isidentifier() else f'"{part}"'


class Reading:
    """What was found wrong so far, and whether the values come from a file."""

    def __init__(self, *, is_file: bool) -> None:
        self.problems: list[Problem] = []
        self.is_file = is_file

    def bad(self, key: KeyPath, message: str, hint: str | None = None) -> object:
        """Note a problem; return what stands for the value."""
        self.problems.append(Problem(key, message, hint))
        return _BAD

    def passes(self, key: KeyPath, value: Any, *checks: Callable[[Any], Any]) -> Any:
        """Return `value` as the checks, which raise ValueError, have made it."""
        try:
            for check in checks:
                value = check(value)
        except ValueError as error:
            return self.bad(key, str(error))
        return value


# -- kinds -----------------------------------------------------------------------------------------


class Kind:
    """How one value is read and written."""

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        """Return what the attribute holds, or note a problem."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """Return what stands in the file."""
        return value

    def table(self) -> "type[Table] | None":
        """Return the kind of table inside, if there is one."""
        return None


class Text(Kind):
    """A text that passes `checks`, each of which returns it or raises ValueError."""

    def __init__(self, *checks: Callable[[str], str]) -> None:
        self._checks = checks

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if not isinstance(value, str):
            return reading.bad(key, "must be a text in quotes")
        return reading.passes(key, value, *self._checks)


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if value in self._words:
            return value
        word = str(value)
        hint = nearest(word, self._words)
        return reading.bad(key, f'"{word}" is none of {", ".join(self._words)}', hint)


class Flag(Kind):
    """True or false."""

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        return value if isinstance(value, bool) else reading.bad(key, "must be true or false")


class Whole(Kind):
    """A whole number, 0 or more."""

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return reading.bad(key, "must be a whole number")
        return value if value >= 0 else reading.bad(key, "must be at least 0")


class Unit(Kind):
    """What is written with a unit and held as a number: `parse` raises ValueError."""

    def __init__(
        self,
        parse: Callable[[str], Any],
        write: Callable[[Any], str],
        example: str,
        *,
        least: int = 0,
    ) -> None:
        self._parse = parse
        self._write = write
        self._example = example
        self._least = least

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if isinstance(value, str):
            value = reading.passes(key, value, self._parse)
        elif reading.is_file or not isinstance(value, int | float | tuple):
            return reading.bad(key, f"write a text with a unit, for example {self._example}")
        if isinstance(value, int) and value < self._least:
            return reading.bad(key, f"must be at least {self._write(self._least)}")
        return value

    def write(self, value: Any) -> Any:
        return self._write(value)


class Many(Kind):
    """A list; held as a tuple."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if not isinstance(value, list | tuple):
            return reading.bad(key, "must be a list in brackets")
        found = [self._kind.read(each, (*key, at), reading) for at, each in enumerate(value)]
        return tuple(each for each in found if each is not _BAD)

    def write(self, value: Any) -> Any:
        return [self._kind.write(each) for each in value]

    def table(self) -> "type[Table] | None":
        return self._kind.table()


class Inner(Kind):
    """A table in the table."""

    def __init__(self, table: "type[Table]") -> None:
        self._table = table

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if isinstance(value, self._table):
            return value
        if not isinstance(value, Mapping):
            return reading.bad(key, f"is a table: write [{dotted(key)}]")
        return self._table.read(value, key, reading)

    def write(self, value: Any) -> Any:
        return value.written()

    def table(self) -> "type[Table]":
        return self._table


class Named(Kind):
    """Tables by name, which `check` accepts or refuses with ValueError."""

    def __init__(self, check: Callable[[str], str], table: "type[Table]") -> None:
        self._check = check
        self._inner = Inner(table)

    def read(self, value: Any, key: KeyPath, reading: Reading) -> Any:
        if not isinstance(value, Mapping):
            return reading.bad(key, f"is a table: write [{dotted(key)}]")
        found = {}
        for name, each in value.items():
            at = (*key, name)
            known = reading.passes(at, name, self._check)
            table = self._inner.read(each, at, reading)
            if _BAD not in (known, table):
                found[name] = table
        return found

    def write(self, value: Any) -> Any:
        return {name: self._inner.write(each) for name, each in value.items()}

    def table(self) -> "type[Table]":
        return self._inner.table()


# -- tables ----------------------------------------------------------------------------------------


class Setting:
    """One key of a table: `name` is the attribute, `key` what the file calls it."""

    __slots__ = ("default", "description", "key", "kind", "name")

    def __init__(self, kind: Kind, default: Any, description: str, key: str) -> None:
        self.kind = kind
        self.default = default
        self.description = description
        self.key = key
        self.name = ""

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is _REQUIRED

    def written(self, value: Any) -> Any:
        """Return what stands in the file for `value`; None if nothing does."""
        return None if value is None else self.kind.write(value)


def setting(kind: Kind, default: Any = _REQUIRED, description: str = "", *, key: str = "") -> Any:
    """Declare a key; it is called as the attribute is, unless `key` says otherwise."""
    return Setting(kind, default, description, key)


class Table:
    """A table of the configuration: frozen, and an unknown key is an error."""

    settings: ClassVar[dict[str, Setting]] = {}  # by attribute, in the order of the reference
    given: frozenset[str]  # attributes that were not left to their default

    def __init_subclass__(cls) -> None:
        cls.settings = {}
        for name, declared in list(vars(cls).items()):
            if isinstance(declared, Setting):
                declared.name, declared.key = name, declared.key or name
                cls.settings[name] = declared
                delattr(cls, name)

    def __init__(self, **values: Any) -> None:
        """Take values by attribute. Raises ValueError for one that cannot be."""
        reading = Reading(is_file=False)
        keys = {
            self.settings[name].key if name in self.settings else name: value
            for name, value in values.items()
            if value is not None
        }
        self._take(keys, (), reading)
        for problem in reading.problems:
            raise ValueError(f"{dotted(problem.key)}: {problem.message}")

    @classmethod
    def read(cls, data: Mapping[str, Any], key: KeyPath, reading: Reading) -> Any:
        """Return the table that `data` (by key) says, without what is wrong with it."""
        table = cls.__new__(cls)
        return table if table._take(data, key, reading) else _BAD  # noqa: SLF001 - our own

    @classmethod
    def completed(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `data` with the defaults that depend on other keys."""
        return data

    def _take(self, data: Mapping[str, Any], key: KeyPath, reading: Reading) -> bool:
        """Set all attributes; say whether none is missing."""
        data = self.completed(data)
        values, given = self.__dict__, []
        by_key = {each.key: each for each in self.settings.values()}
        for name, value in data.items():
            declared = by_key.get(name)
            if declared is None:
                reading.bad((*key, name), "unknown key", nearest(name, list(by_key)))
                continue
            found = declared.kind.read(value, (*key, name), reading)
            if found is not _BAD:
                values[declared.name] = found
                given.append(declared.name)
        is_whole = True
        for name, declared in self.settings.items():
            if name in values:
                continue
            if declared.is_required:
                if declared.key not in data:
                    reading.bad((*key, declared.key), "is required")
                is_whole = False
            default = declared.default
            values[name] = default() if isinstance(default, type) else default
        values["given"] = frozenset(given)
        return is_whole

    def but(self, **changes: Any) -> Self:
        """Return the same table with other values for some attributes."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__, **changes)
        copy.__dict__["given"] = self.given | changes.keys()
        return copy

    def written(self) -> dict[str, Any]:
        """Return all values by key, as the file would spell them; without those that are None."""
        return {
            declared.key: declared.written(value)
            for declared, value in self._values()
            if value is not None
        }

    def _values(self) -> Iterator[tuple[Setting, Any]]:
        for name, declared in self.settings.items():
            yield declared, self.__dict__[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the configuration is frozen: {name}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(self.__dict__[name] == other.__dict__[name] for name in self.settings)

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self.settings))

    def __repr__(self) -> str:
        shown = ", ".join(f"{each.name}={value!r}" for each, value in self._values())
        return f"{type(self).__name__}({shown})"
