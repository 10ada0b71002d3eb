"""Where a key stands in a TOML file: tomllib parses, but forgets the lines.

A scan of table headers and keys, good enough to point a reader at the right line. It never
decides what the file means: a text that tomllib accepts always yields a map, and a key that the
scan misses is reported at the nearest table that it found.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import field

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_BARE = r'[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|\'[^\']*\''
_KEY = re.compile(rf"\s*((?:{_BARE})(?:\s*\.\s*(?:{_BARE}))*)\s*=(.*)$", re.DOTALL)
_PART = re.compile(_BARE)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#.*')
_FENCES: Final = ('"""', "'''")


class Place(msgspec.Struct, frozen=True):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Places(msgspec.Struct, frozen=True, eq=False):
    """Where each key stands. Two are always equal: a place is no part of the configuration."""

    by_key: dict[KeyPath, Place] = field(default_factory=dict)
    file: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Places)

    def __hash__(self) -> int:
        return 0

    def find(self, key: Iterable[str | int]) -> Place:
        """Return the place of `key`, or of the nearest table around it, or the first line."""
        path = tuple(key)
        for length in range(len(path), 0, -1):
            if place := self.by_key.get(path[:length]):
                return place
        return Place(self.file, 1)


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every table header and key of the TOML `text`."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement in _statements(text):
        if header := _HEADER.match(statement):
            table = _indexed(_parts(header.group(2)), counts)
            if header.group(1) == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif key := _KEY.match(statement):
            path = (*table, *_parts(key.group(1)))
            for length in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            _locate_inline(path, key.group(2).lstrip(), number, lines)
    return lines


def _indexed(parts: KeyPath, counts: dict[KeyPath, int]) -> KeyPath:
    """Return `parts` with the newest index behind each array of tables but the last."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if path in counts and position < len(parts) - 1:
            path = (*path, counts[path])
    return path


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _locate_inline(path: KeyPath, value: str, number: int, lines: dict[KeyPath, int]) -> None:
    """Note the keys of an inline table: they stand on the line of the table."""
    if not value.startswith("{"):
        return
    for match in re.finditer(rf"[{{,]\s*({_BARE})\s*=", value):
        lines.setdefault((*path, *_parts(match.group(1))), number)


def _statements(text: str) -> Iterable[tuple[int, str]]:
    """Yield (line, text) of every header or key with its whole value, however many lines it has."""
    start, gathered, depth, fence = 0, "", 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not gathered:
            start = number
        gathered += line + "\n"
        depth, fence = _after(line, depth, fence)
        if fence or depth > 0:
            continue
        if stripped := gathered.strip():
            yield start, stripped
        gathered, depth = "", 0


def _after(line: str, depth: int, fence: str) -> tuple[int, str]:
    """Return how many brackets and which multi-line string are open behind `line`."""
    rest = line
    while rest:
        if fence:
            _, closed, rest = rest.partition(fence)
            if not closed:
                return depth, fence
            fence = ""
        opened = (
            min((rest.find(mark), mark) for mark in (*_FENCES, "\0") if mark in rest)
            if any(mark in rest for mark in _FENCES)
            else None
        )
        before = rest if opened is None else rest[: opened[0]]
        plain = _STRING.sub("", before)
        depth += plain.count("[") + plain.count("{") - plain.count("]") - plain.count("}")
        if opened is None or "#" in _comment_tail(before):
            return depth, ""
        fence, rest = opened[1], rest[opened[0] + len(opened[1]) :]
    return depth, fence


def _comment_tail(text: str) -> str:
    """Return the comment that ends `text`, if it has one outside a string."""
    for match in _STRING.finditer(text):
        if match.group().startswith("#"):
            return match.group()
    return ""
