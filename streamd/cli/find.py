"""`streamd find`: paths by pattern, at one instant or in all of time."""

import fnmatch
import os
import re
from collections.abc import AsyncIterator
from typing import Annotated, Final, NamedTuple

import msgspec

from streamd.cli import render
from streamd.cli.context import emit, load_config, note, run_async
from streamd.cli.declare import argument, option
from streamd.cli.entries import AsOf, EntryLine, line_of, type_name
from streamd.cli.replay import Kept, steps
from streamd.cli.selection import LATEST, AtOption, conclude, in_words, instant, open_reader
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.daemon.status import path_texts
from streamd.errors import ExitCode, UsageInvalid
from streamd.format import wire
from streamd.format.checkpoint import Row
from streamd.model.entry import Dirent, EntryType
from streamd.model.ids import ROOT_FID
from streamd.model.record import Op, parse_dirent_key
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import join

_DIRENT: Final = msgspec.msgpack.Decoder(Dirent)
_DEPTH_MAX: Final = 4096  # a hostile journal may contain cycles
_SLASH: Final = b"/"


class Report(AsOf, frozen=True, kw_only=True):
    """What `--json` prints for one instant."""

    source: str
    entries: tuple[EntryLine, ...]


class SpanLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A path, and when it was there: from `first` until `gone`, or still if that is empty."""

    path: str
    path_b64: str = ""
    type: str
    first: str
    gone: str = ""


class AllReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--all-versions --json` prints."""

    source: str
    entries: tuple[SpanLine, ...]


def command(
    source: Annotated[str, argument(metavar="SOURCE", help="The source.")],
    pattern: Annotated[str, argument(metavar="PATTERN", help="Such as '*.conf'.")],
    at: AtOption = LATEST,
    all_versions: Annotated[
        bool, option("--all-versions", help="Paths that ever were, and when.")
    ] = False,
) -> ExitCode:
    """Find paths by pattern.

    A PATTERN without a slash is matched with the last part of a path, one with a slash with the
    whole; * matches slashes too. Ends with 9 when nothing is found.
    Example: streamd find etc '*.conf' --all-versions
    """
    if all_versions and at != LATEST:
        raise UsageInvalid("--at and --all-versions exclude each other")
    config = load_config()
    if all_versions:
        return run_async(_find_always(config, source, Pattern(pattern)))
    return run_async(_find_at(config, source, Pattern(pattern), at))


class Pattern:
    """Matches names, or whole paths if it has a slash in it."""

    def __init__(self, text: str) -> None:
        text = text.rstrip("/") or "/"
        self._is_path = "/" in text
        whole = text if not self._is_path or text.startswith(("/", "*")) else f"*/{text}"
        self._match = re.compile(fnmatch.translate(whole)).match
        # a quick test of the last part alone, which a bracket may have in it only partly
        last = "*" if self._is_path and "[" in text else text.rpartition("/")[2]
        self._may_end = re.compile(fnmatch.translate(f"*{last}")).match

    def matches(self, path: bytes) -> bool:
        """Return whether the path is wanted."""
        shown = path if self._is_path else path.rstrip(_SLASH).rpartition(_SLASH)[2]
        return self._match(os.fsdecode(shown)) is not None

    def may_match(self, name: bytes) -> bool:
        """Return whether some path that ends with this name may be wanted."""
        return self._may_end(os.fsdecode(name)) is not None


async def _find_at(config: Config, source: str, pattern: Pattern, at: str) -> ExitCode:
    async with open_reader(config) as reader:
        await reader.find_source(source)
        at_us = await instant(reader, source, at, config)
        with await reader.state_at(source, at_us) as state:
            found = [entry for entry in state.walk() if entry.path and pattern.matches(entry.path)]
            found.sort(key=lambda entry: entry.path)
            report = Report(
                source=source,
                at=format_rfc3339(state.at_us),
                is_exact=state.is_exact,
                note=state.note,
                entries=tuple(line_of(entry) for entry in found),
            )
            code = conclude(state, config)
    emit(report, lambda _: "\n".join(render.name(entry.path) for entry in found))
    return code if found or code else ExitCode.NOT_FOUND


# -- in all of time ------------------------------------------------------------------------------


class Span(NamedTuple):
    """A path that was there from `first_us` until `gone_us`, 0 if it still is."""

    path: bytes
    first_us: int
    gone_us: int
    type: int


async def _find_always(config: Config, source: str, pattern: Pattern) -> ExitCode:
    damage: list[str] = []
    async with open_reader(config) as reader:
        await reader.find_source(source)
        found = sorted([span async for span in spans(reader, source, pattern, damage)])
    report = AllReport(source=source, entries=tuple(_span_line(span) for span in found))
    for each in damage:
        note(f"damaged: {each}")
    emit(report, lambda _: _text(found, config))
    code = ExitCode.INTEGRITY if damage else ExitCode.OK
    return code if found or code else ExitCode.NOT_FOUND


def _span_line(span: Span) -> SpanLine:
    path, path_b64 = path_texts(span.path)
    return SpanLine(
        path=path,
        path_b64=path_b64,
        type=type_name(span.type),
        first=format_rfc3339(span.first_us),
        gone=format_rfc3339(span.gone_us) if span.gone_us else "",
    )


def _text(found: list[Span], config: Config) -> str:
    rows = [
        (
            in_words(span.first_us, config),
            in_words(span.gone_us, config) if span.gone_us else "",
            render.name(span.path),
        )
        for span in found
    ]
    return render.table(("from", "until", "path"), rows) if rows else ""


async def spans(
    reader: StateReader, source: str, pattern: Pattern, damage: list[str]
) -> AsyncIterator[Span]:
    """Yield when each matching path was there; what was kept of thinned times counts as seen."""
    watch = _Watch(pattern)
    async for step in steps(reader, source, damage=damage):
        if isinstance(step, Kept):
            watch.forget()
            async for rows in reader.checkpoint_rows(step.root):
                watch.load(rows)
        else:
            for record in step.records:
                if record.op == Op.SET:
                    watch.set(record.key, record.value)
                elif record.op == Op.DEL:
                    watch.delete(record.key)
                elif record.op == Op.RESET:
                    watch.forget()
        for span in watch.settle(step.at_us):
            yield span
    for span in watch.rest():
        yield span


class _Watch:
    """Knows all directories, and the entries whose name may match, of the state so far."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._directories: dict[int, tuple[int, bytes]] = {}
        self._entries: dict[bytes, Dirent] = {}  # by key
        self._open: dict[bytes, tuple[bytes, int, int]] = {}  # key → path, since, type
        self._dirty: set[bytes] = set()
        self._has_moved = False  # a directory has another name: paths may have changed

    def forget(self) -> None:
        """Begin another state."""
        self._dirty.update(self._entries)
        self._entries.clear()
        self._directories.clear()
        self._has_moved = True

    def load(self, rows: list[Row]) -> None:
        """Add rows of a state."""
        for key, value in rows:
            self.set(key, value)

    def set(self, key: bytes, value: bytes) -> None:
        """Note an entry."""
        place = parse_dirent_key(key)
        if place is None:
            return
        dirent = wire.decode(_DIRENT, value, "a directory entry")
        if dirent.type == EntryType.DIRECTORY:
            self._has_moved = self._has_moved or dirent.fid in self._directories
            self._directories[dirent.fid] = place
        if self._pattern.may_match(place[1]):
            self._entries[key] = dirent
            self._dirty.add(key)

    def delete(self, key: bytes) -> None:
        """Forget an entry."""
        if self._entries.pop(key, None) is not None:
            self._dirty.add(key)

    def settle(self, at_us: int) -> list[Span]:
        """Close and open spans after the changes of one instant; return those that ended."""
        looked = set(self._open) | set(self._entries) if self._has_moved else self._dirty
        ended = []
        for key in looked:
            dirent = self._entries.get(key)
            path = self._path(key) if dirent is not None else b""
            wanted = path if path and self._pattern.matches(path) else b""
            known = self._open.get(key)
            if known is not None and known[0] != wanted:
                ended.append(Span(known[0], known[1], at_us, known[2]))
                del self._open[key]
            if wanted and key not in self._open:
                assert dirent is not None
                self._open[key] = (wanted, at_us, dirent.type)
        self._dirty = set()
        self._has_moved = False
        return ended

    def rest(self) -> list[Span]:
        """Return the spans that have not ended."""
        return [Span(path, since, 0, kind) for path, since, kind in self._open.values()]

    def _path(self, key: bytes) -> bytes:
        place = parse_dirent_key(key)
        assert place is not None
        parent, path = int(place[0]), place[1]
        for _ in range(_DEPTH_MAX):
            if parent == ROOT_FID:
                return path
            above = self._directories.get(parent)
            if above is None:
                return b""
            parent, path = above[0], join(above[1], path)
        return b""
