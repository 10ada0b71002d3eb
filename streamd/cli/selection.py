"""What a command means by SOURCE[:PATH] and by T, found in the vault that the configuration names.

The vault alone is asked: neither the daemon nor the protected files need to be there.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import msgspec

from streamd.cli import context, render, unlocked
from streamd.cli.declare import option
from streamd.cli.times import LATEST_US, format_time, parse_time
from streamd.config.model import Config
from streamd.config.zone import zone_of
from streamd.effects import SystemClock
from streamd.errors import ExitCode, NotFound, UsageInvalid
from streamd.model.entry import SourceInfo
from streamd.vault.state_reader import SourceSummary, StateReader
from streamd.vault.tree_state import TreeEntry, TreeState

AtOption = Annotated[
    str,
    option(
        "--at",
        metavar="T",
        help='When: now, latest, -2h, "2026-11-20 14:03", RFC 3339, or a point\'s name.',
    ),
]
LATEST: Final = "latest"
_SLASH: Final = b"/"


class Selection(msgspec.Struct, frozen=True):
    """A source of the vault, and an absolute host path in it; b"" is all of the source."""

    source: SourceSummary
    path: bytes

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.info.name


def split(text: str) -> tuple[str, bytes]:
    """Return (source, path) of SOURCE[:PATH]; the path is empty when none is named.

    Raises UsageInvalid.
    """
    name, _, path = text.partition(":")
    if not name or "\0" in text:
        raise UsageInvalid(f'"{text}" names no source: write SOURCE or SOURCE:PATH')
    return name, os.fsencode(path)


def absolute(path: bytes, info: SourceInfo) -> bytes:
    """Return `path` as an absolute host path without `.`, `//` and a last slash.

    A relative one is below the source's only path. Raises UsageInvalid.
    """
    if not path:
        return b""
    if not path.startswith(_SLASH):
        if len(info.paths) != 1:
            known = ", ".join(render.name(each) for each in info.paths)
            raise UsageInvalid(
                f'"{render.name(path)}" is relative, and "{info.name}" has several paths: {known}'
            )
        path = info.paths[0] + _SLASH + path
    parts = [part for part in path.split(_SLASH) if part not in {b"", b"."}]
    if b".." in parts:
        raise UsageInvalid(f'"{render.name(path)}" has .. in it')
    return _SLASH + _SLASH.join(parts)


async def select(reader: StateReader, text: str) -> Selection:
    """Return what SOURCE[:PATH] names. Raises NotFound, UsageInvalid; the path is not looked up."""
    name, path = split(text)
    source = await reader.find_source(name)
    return Selection(source, absolute(path, source.info))


@asynccontextmanager
async def open_reader(config: Config) -> AsyncIterator[StateReader]:
    """Lend a reader of the configured vault."""
    async with unlocked.open_vault(config) as vault:
        yield StateReader(vault)


async def instant(reader: StateReader, source: str, text: str, config: Config) -> int:
    """Return T in microseconds: a time, or the time of the named point `text` of the source.

    Raises UsageInvalid.
    """
    try:
        return parse_time(text, now_us=SystemClock().now_us(), zone=zone_of(config.timezone))
    except UsageInvalid as error:
        named = [
            mark.point_us if mark.kind else at_us
            for at_us, mark in await reader.marks(source)
            if mark.label == text
        ]
        if not named:
            raise UsageInvalid(f"{error}, or the name of a recovery point") from error
        return named[-1]


def look_up(state: TreeState, selection: Selection, config: Config) -> TreeEntry:
    """Return the entry that is selected. Raises NotFound."""
    entry = state.resolve(selection.path)
    if entry is None:
        when = in_words(state.at_us if state.asked_us == LATEST_US else state.asked_us, config)
        raise NotFound(f"there was no {render.name(selection.path)} in {selection.name} at {when}")
    return entry


def in_words(at_us: int, config: Config) -> str:
    """Return an instant in the configured time zone, which is named."""
    return format_time(at_us, zone=zone_of(config.timezone))


def conclude(state: TreeState, config: Config) -> ExitCode:
    """Say on standard error what is to be known about a state, and return the exit code."""
    if state.asked_us != LATEST_US or state.note:
        context.note(
            f"as of {in_words(state.at_us, config)}" + (f" ({n})" if (n := state.note) else "")
        )
    for damage in state.damage:
        context.note(f"damaged: {damage.name}: {damage.what}")
    return ExitCode.INTEGRITY if state.damage else ExitCode.OK
