"""`streamd diff`: what changed in a source between two instants.

Both states are compared row by row in key order, so that what is equal costs next to nothing;
paths are made up only for what differs. A file that has the same number in both is the same file:
that is how a rename is told from a deletion and a creation.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import field

from streamd.cli import render
from streamd.cli.context import emit, load_config, note, run_async
from streamd.cli.declare import argument
from streamd.cli.entries import differences
from streamd.cli.selection import absolute, conclude, in_words, instant, open_reader
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.daemon.status import path_texts
from streamd.errors import ExitCode, NotFound
from streamd.format import wire
from streamd.format.checkpoint import Row
from streamd.model.entry import Dirent, EntryType
from streamd.model.ids import ROOT_FID
from streamd.model.record import parse_dirent_key, parse_version_key
from streamd.vault.tree_state import TreeState, join

_DIRENT: Final = msgspec.msgpack.Decoder(Dirent)
_SLASH: Final = b"/"
_DEPTH_MAX: Final = 4096  # a hostile journal may contain cycles
Key = tuple[int, bytes]


class ChangeLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `+` new, `-` gone, `M` modified, `T` another type, `R` renamed to `path`.

    Paths are lossy text where the field with `_b64` is there.
    """

    kind: str
    path: str
    path_b64: str = ""
    old_path: str = ""
    old_path_b64: str = ""
    what: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints; the instants are those that are really compared."""

    source: str
    from_at: str
    to_at: str
    changes: tuple[ChangeLine, ...]


class Change(msgspec.Struct, frozen=True, order=True):
    """One change, with paths as they are; `old_path` differs from `path` in a rename."""

    path: bytes
    kind: str
    old_path: bytes
    what: tuple[str, ...] = ()


def command(
    source: Annotated[str, argument(metavar="SOURCE", help="The source.")],
    t1: Annotated[str, argument(metavar="T1", help="From when.")],
    t2: Annotated[str, argument(metavar="T2", help="Until when.")],
    path: Annotated[
        str,
        argument(metavar="PATH", help="Only this, and what is below.", show_default=False),
    ] = "",
) -> ExitCode:
    """Show what changed between two instants.

    + new, - gone, M modified, T another type, R renamed. Example: streamd diff web -2h now css
    """
    return run_async(_diff(load_config(), source, (t1, t2), path))


async def _diff(config: Config, source: str, times: tuple[str, str], path: str) -> ExitCode:
    async with open_reader(config) as reader:
        summary = await reader.find_source(source)
        below = absolute(path.encode("utf-8", "surrogateescape"), summary.info)
        first_us, second_us = [await instant(reader, source, each, config) for each in times]
        with (
            await reader.state_at(source, first_us) as old,
            await reader.state_at(source, second_us) as new,
        ):
            if below and old.resolve(below) is None and new.resolve(below) is None:
                raise NotFound(f"{render.name(below)} was in {source} at neither of the two")
            found = compare(old, new, below)
            code = max(conclude(old, config), conclude(new, config))
            spans = f"{in_words(old.at_us, config)} to {in_words(new.at_us, config)}"
            note(f"{source}: from {spans}")
            report = Report(
                source=source,
                from_at=format_rfc3339(old.at_us),
                to_at=format_rfc3339(new.at_us),
                changes=tuple(_line(change) for change in found),
            )
    emit(report, lambda _: "\n".join(_text(change) for change in found))
    return code


def _line(change: Change) -> ChangeLine:
    path, path_b64 = path_texts(change.path)
    is_rename = change.old_path != change.path
    old_path, old_path_b64 = path_texts(change.old_path) if is_rename else ("", "")
    return ChangeLine(
        kind=change.kind,
        path=path,
        path_b64=path_b64,
        old_path=old_path,
        old_path_b64=old_path_b64,
        what=change.what,
    )


def _text(change: Change) -> str:
    old = f"{render.name(change.old_path)} -> " if change.old_path != change.path else ""
    what = f"  ({', '.join(change.what)})" if change.what else ""
    return f"{change.kind} {old}{render.name(change.path)}{what}"


# -- comparing -----------------------------------------------------------------------------------


class _Differences(msgspec.Struct):
    gone: dict[Key, Dirent] = field(default_factory=dict)  # what stood there before
    came: dict[Key, Dirent] = field(default_factory=dict)  # what stands there now
    versions: set[int] = field(default_factory=set)  # files whose version differs


def compare(old: TreeState, new: TreeState, below: bytes = b"") -> list[Change]:
    """Return the changes from `old` to `new` in the order of paths; only those below a path."""
    found = _differences(old, new)
    before, after = _Names(old, set()), _Names(new, found.versions)
    changes = [
        *_entries(old, new, found, before, after),
        *_modified(old, new, found, after),
    ]
    return sorted(
        change
        for change in changes
        if _is_below(change.path, below) or _is_below(change.old_path, below)
    )


def _differences(old: TreeState, new: TreeState) -> _Differences:
    found = _Differences()
    for key, before, after in _merged(old.rows(), new.rows()):
        if before == after:
            continue
        if (fid := parse_version_key(key)) is not None:
            if before is not None and after is not None:
                found.versions.add(fid)
        elif (place := parse_dirent_key(key)) is not None:
            if before is not None:
                found.gone[place] = _dirent(before)
            if after is not None:
                found.came[place] = _dirent(after)
    return found


def _merged(
    old: Iterator[Row], new: Iterator[Row]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Yield (key, old value, new value) of both in key order."""
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(old, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(new, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(old, None), next(new, None)


def _entries(
    old: TreeState, new: TreeState, found: _Differences, before: "_Names", after: "_Names"
) -> Iterator[Change]:
    """Yield what came, went, moved, or became another file under its name."""
    moved = _moves(found)
    left = set(moved.values())  # places whose file is somewhere else now
    for place, dirent in found.came.items():
        path, stood = after.path(place), found.gone.get(place)
        if place in moved:
            what = _what(old, new, dirent.fid, dirent.fid)
            yield Change(path, "R", before.path(moved[place]), what)
        elif stood is None or place in left:
            yield Change(path, "+", path)
        elif stood.type != dirent.type:
            yield Change(path, "T", path)
        elif what := _what(old, new, stood.fid, dirent.fid):
            yield Change(path, "M", path, what)
    for place in found.gone.keys() - found.came.keys() - left:
        path = before.path(place)
        yield Change(path, "-", path)


def _moves(found: _Differences) -> dict[Key, Key]:
    """Return where the files that have a new name in place of an old one were: {new: old}."""
    origins: dict[int, list[Key]] = {}
    for place, dirent in found.gone.items():
        if place not in found.came or found.came[place].fid != dirent.fid:
            origins.setdefault(dirent.fid, []).append(place)
    return {
        place: origins[dirent.fid].pop()
        for place, dirent in found.came.items()
        if origins.get(dirent.fid)
    }


def _modified(
    old: TreeState, new: TreeState, found: _Differences, after: "_Names"
) -> Iterator[Change]:
    """Yield files that kept their name and have another version, under each of their names."""
    for fid in found.versions:
        what = _what(old, new, fid, fid)
        for place in after.places.get(fid, ()) if what else ():
            if place not in found.came:
                path = after.path(place)
                yield Change(path, "T" if "type" in what else "M", path, what)


def _what(old: TreeState, new: TreeState, old_fid: int, new_fid: int) -> tuple[str, ...]:
    before, after = old.version(old_fid), new.version(new_fid)
    if before is None or after is None:
        return ("content",) if before is not after else ()
    return differences(before, after)


def _dirent(value: bytes) -> Dirent:
    return wire.decode(_DIRENT, value, "a directory entry")


def _is_below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top.rstrip(_SLASH) + _SLASH)


class _Names:
    """Paths of places in a state, and the places of some of its files."""

    def __init__(self, state: TreeState, fids: set[int]) -> None:
        self.places: dict[int, list[Key]] = {}
        self._directories: dict[int, Key] = {}
        for key, value in state.rows():
            place = parse_dirent_key(key)
            if place is None:
                continue
            dirent = _dirent(value)
            if dirent.type == EntryType.DIRECTORY:
                self._directories[dirent.fid] = place
            if dirent.fid in fids:
                self.places.setdefault(dirent.fid, []).append(place)

    def path(self, place: Key) -> bytes:
        """Return the path of an entry."""
        names = [place[1]]
        parent = place[0]
        while parent != ROOT_FID and len(names) < _DEPTH_MAX:
            above = self._directories.get(parent)
            if above is None:
                names.append(b"?")
                break
            parent, name = above
            names.append(name)
        path = b""
        for name in reversed(names):
            path = join(path, name)
        return path
