"""Which rule of the configuration decides about a path, and where that rule stands.

Looks at the file system of this host, by the code that the daemon looks with. Needs neither the
daemon nor the vault.
"""

import json
import os
from collections.abc import Iterator
from typing import Final

import msgspec

from streamd.config.locate import KeyPath, Place
from streamd.config.model import Config, SourceConfig
from streamd.config.rules import contains
from streamd.daemon.sources import own_paths
from streamd.effects import SystemClock
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.policy.classes import EXCLUDED, TOO_LARGE
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.listing import Examiner, host_stat
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope, below, join, split

_LINES_MAX: Final = 10_000  # of a list that is searched for one element


class Verdict(msgspec.Struct, frozen=True):
    """What is decided about a path: included, excluded, too-large, other-file-system, own, outside.

    `rule` is the line of configuration in words, `place` where it stands; empty for outside.
    """

    decision: str
    source: str = ""
    rule: str = ""
    place: str = ""
    stat: HostStat | None = None  # of what stands there, if something does


class Decider:
    """Decides about paths of one source of kind filesystem."""

    def __init__(self, config: Config, name: str) -> None:
        self._config = config
        self.name = name
        self.source: SourceConfig = config.sources[name]
        self._own = own_paths(config)
        self._scope = TreeScope(
            self.source.path_bytes,
            rules=ExcludeRules(self.source.exclude),
            tags=tuple(os.fsencode(tag) for tag in self.source.exclude_if_present),
            ignored=self._own,
        )
        self._examiner = Examiner(
            self._scope,
            one_file_system=self.source.one_file_system,
            max_file_size=self.source.max_file_size_bytes,
            answering=Answering(SystemClock()),
        )

    def decide(self, path: bytes) -> Verdict:
        """Return what is decided about an absolute path below one of the source's paths."""
        root, stat = self._scope.root_of(path), _stat(path)
        if root is None:
            return Verdict("outside")
        if any(below(path, own) for own in self._own):
            return Verdict("own", self.name, "streamd's own directory", "", stat)
        against = self._excluding(root, path, stat)
        if against is not None:
            return self._by(*against, EXCLUDED, stat)
        size_max = self.source.max_file_size_bytes
        size = stat.size if stat is not None and stat.type == EntryType.REGULAR else 0
        if size_max is not None and size > size_max:
            return self._by("max_file_size", None, TOO_LARGE, stat)
        if self.source.one_file_system and self._is_foreign(root, path):
            return self._by("one_file_system", None, "other-file-system", stat)
        return self._by("paths", os.fsdecode(root), "included", stat)

    def _excluding(self, root: bytes, path: bytes, stat: HostStat | None) -> tuple[str, str] | None:
        """Return the key and its element that exclude the path."""
        is_directory = stat is not None and stat.type == EntryType.DIRECTORY
        relative = self._scope.relative(root, path)
        pattern = self._scope.rules.reason(relative, directory=is_directory)
        if pattern is not None:
            return "exclude", pattern
        tag = self._tag_above(root, path)
        return None if tag is None else ("exclude_if_present", tag)

    def _by(self, key: str, element: str | None, decision: str, stat: HostStat | None) -> Verdict:
        place = self._place(("sources", self.name, key), element)
        value = "" if element is None else f" = {json.dumps(element, ensure_ascii=False)}"
        return Verdict(decision, self.name, key + value, place, stat)

    def _place(self, key: KeyPath, element: str | None) -> str:
        place = self._config.places.find(key)
        if not place.file:
            return ""
        return str(place if element is None else _line_of(place, element))

    def _tag_above(self, root: bytes, path: bytes) -> str | None:
        """Return the tag that leaves the path out, if a directory above it carries one."""
        while path != root:
            path, name = split(path)
            if path == root:
                return None  # a source's own path is never left out
            for tag in sorted(self._scope.tags):
                if name != tag and os.path.lexists(join(path, tag)):
                    return os.fsdecode(tag)
        return None

    @staticmethod
    def _is_foreign(root: bytes, path: bytes) -> bool:
        """Say whether the path lies in a directory on another file system than the root."""
        top, holder = _stat(root), _stat(split(path)[0]) if path != root else None
        return top is not None and holder is not None and top.dev != holder.dev

    def left_out(self) -> Iterator[tuple[bytes, str]]:
        """Walk the source and yield (path, class) of all that is there and not protected."""
        pending = [root for root in reversed(self.source.path_bytes) if os.path.isdir(root)]
        while pending:
            directory = pending.pop()
            listing = self._examiner.examine(directory, None)
            for name in sorted(listing.left_out):
                yield join(directory, name), listing.left_out[name]
            pending += [
                join(directory, name)
                for name in sorted(listing.entries, reverse=True)
                if listing.entries[name].type == EntryType.DIRECTORY and name not in listing.closed
            ]


def source_at(config: Config, path: bytes) -> str | None:
    """Return the name of the source that a path belongs to; None if it belongs to none."""
    text = os.fsdecode(path)
    for name, source in config.sources.items():
        if source.kind == "filesystem" and any(contains(each, text) for each in source.paths):
            return name
    return None


def _stat(path: bytes) -> HostStat | None:
    try:
        return host_stat(os.lstat(path))
    except OSError:
        return None


def _line_of(place: Place, element: str) -> Place:
    """Return the line on which an element of the list at `place` stands."""
    wanted = (json.dumps(element, ensure_ascii=False), f"'{element}'", f'"{element}"')
    try:
        with open(place.file, encoding="utf-8") as file:
            lines = file.read().splitlines()[place.line - 1 :][:_LINES_MAX]
    except (OSError, UnicodeDecodeError):
        return place
    for number, line in enumerate(lines):
        if number and line.lstrip().startswith("["):  # the next table
            break
        if any(text in line for text in wanted):
            return Place(place.file, place.line + number)
    return place
