"""`streamd ls`: a directory, or one entry, as it was."""

from collections.abc import Iterator
from typing import Annotated

from streamd.cli import render
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument, option
from streamd.cli.entries import AsOf, EntryLine, line_of, mode_text, owner_text
from streamd.cli.selection import (
    LATEST,
    AtOption,
    Selection,
    conclude,
    in_words,
    instant,
    look_up,
    open_reader,
    select,
)
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.errors import ExitCode
from streamd.model.entry import EntryType
from streamd.vault.tree_state import TreeEntry, TreeState, join


class Report(AsOf, frozen=True, kw_only=True):
    """What `--json` prints."""

    source: str
    entries: tuple[EntryLine, ...]


def command(
    what: Annotated[str, argument(metavar="SOURCE[:PATH]", help="What to list.")],
    at: AtOption = LATEST,
    long: Annotated[bool, option("-l", help="Show mode, owner, size and time.")] = False,
    recursive: Annotated[bool, option("-R", help="List everything below, too.")] = False,
) -> ExitCode:
    """List a directory as it was.

    A relative PATH is below the source's only path. Example: streamd ls web:css --at -2h -l
    """
    return run_async(_list(load_config(), what, at, long=long, recursive=recursive))


async def _list(config: Config, what: str, at: str, *, long: bool, recursive: bool) -> ExitCode:
    async with open_reader(config) as reader:
        chosen = await select(reader, what)
        at_us = await instant(reader, chosen.name, at, config)
        with await reader.state_at(chosen.name, at_us) as state:
            top = look_up(state, _opened(chosen), config)
            found = list(_entries(state, top, recursive=recursive))
            report = Report(
                source=chosen.name,
                at=format_rfc3339(state.at_us),
                is_exact=state.is_exact,
                note=state.note,
                entries=tuple(line_of(entry) for entry in found),
            )
            code = conclude(state, config)
            below = top.path if top.dirent.type == EntryType.DIRECTORY else b""
            emit(report, lambda _: _text(found, below, config, long=long))
            return code


def _opened(chosen: Selection) -> Selection:
    """A source with one path is shown as that path."""
    paths = chosen.source.info.paths
    return Selection(chosen.source, paths[0]) if not chosen.path and len(paths) == 1 else chosen


def _entries(state: TreeState, top: TreeEntry, *, recursive: bool) -> Iterator[TreeEntry]:
    if top.dirent.type != EntryType.DIRECTORY:
        yield top
    elif recursive:
        walk = state.walk(top)
        next(walk)
        yield from walk
    else:
        children = state.children(top.dirent.fid)
        versions = state.versions(dirent.fid for _, dirent in children)
        for name, dirent in children:
            yield TreeEntry(join(top.path, name), dirent, versions.get(dirent.fid))


def _text(found: list[TreeEntry], below: bytes, config: Config, *, long: bool) -> str:
    if not long:
        return "\n".join(_name(entry, below) for entry in found)
    rows = []
    for entry in found:
        name, version = _name(entry, below), entry.version
        if version is None:
            rows.append(("?", "", "", "", "", name))
            continue
        if entry.dirent.type == EntryType.SYMLINK:
            name += f" -> {render.name(version.target)}"
        when = in_words(version.mtime_ns // 1000, config)
        size = render.count(version.size)
        rows.append((mode_text(version), str(version.nlink), owner_text(version), size, when, name))
    return render.table(("mode", "links", "owner", "bytes", "modified", "name"), rows, right="-r-r")


def _name(entry: TreeEntry, below: bytes) -> str:
    """Return an entry's path from the directory that is listed."""
    prefix = below.rstrip(b"/") + b"/"
    shown = entry.path[len(prefix) :] if below and entry.path.startswith(prefix) else entry.path
    return render.name(shown) + ("/" if entry.dirent.type == EntryType.DIRECTORY else "")
