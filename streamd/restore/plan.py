"""What a restore will do: the wanted part of a state, laid out below the target.

What is named becomes the target: the contents of a directory go into it, a file lands in it under
its own name. Several things, or a source of several paths, go to TARGET/<absolute path>. Names come
from a vault and are not trusted: whatever could leave the target is refused here, item by item.
"""

import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.errors import NotFound
from streamd.model.entry import ContentRun, Dirent, EntryType, FileVersion
from streamd.model.ids import ROOT_FID
from streamd.vault.tree_state import TreeEntry, TreeState

NAME_MAX: Final = 255
TEMPORARY_PREFIX: Final = b".streamd-restore-"
_BATCH: Final = 500
_NODES: Final = frozenset({int(EntryType.CHARACTER), int(EntryType.BLOCK)})
_NO_NAMES: Final = frozenset({b"", b".", b".."})


class OnConflict(StrEnum):
    """What to do where something else stands already. Directories are always merged."""

    FAIL = "fail"  # refuse all before the first byte
    SKIP = "skip"  # leave what is there
    OVERWRITE = "overwrite"
    KEEP_BOTH = "keep-both"  # the restored one gets another name
    NEWER = "newer"  # overwrite what is older than the restored one


class Refused(msgspec.Struct, frozen=True):
    """One path of the source that is not restored, and why."""

    path: bytes
    reason: str
    is_damage: bool = False  # the vault is at fault, not the target


class PlannedDirectory(msgspec.Struct, eq=False):
    """A directory below the target; `version` is None where only the place is needed."""

    parent: int  # index into `RestorePlan.directories`; the target itself is its own
    name: bytes
    source_path: bytes
    version: FileVersion | None = None


class PlannedLink(NamedTuple):
    """A further name of a file."""

    directory: int
    name: bytes
    replaces: bool = False


class PlannedFile(msgspec.Struct, eq=False):
    """Anything but a directory. `links` are its further names."""

    directory: int
    name: bytes
    fid: int
    version: FileVersion
    links: list[PlannedLink] = field(default_factory=list)
    runs: Sequence[ContentRun] = ()  # the whole content, chunk lists resolved
    replaces: bool = False  # something may stand there, and may be overwritten
    present: frozenset[int] | None = None  # numbers of the runs that a killed restore left


class RestorePlan(msgspec.Struct):
    """Directories, parents first, and files."""

    directories: list[PlannedDirectory] = field(default_factory=list)
    files: list[PlannedFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def source_path(self, directory: int, name: bytes) -> bytes:
        """Return where an entry came from."""
        parent = self.directories[directory].source_path
        return parent.rstrip(b"/") + b"/" + name if parent else name

    def target_path(self, directory: int, name: bytes = b"") -> bytes:
        """Return where an entry goes, relative to the target."""
        parts = [name] if name else []
        while directory:
            parts.append(self.directories[directory].name)
            directory = self.directories[directory].parent
        return b"/".join(reversed(parts))

    @property
    def content_bytes(self) -> int:
        """Bytes that the files will take at most: holes take none."""
        return sum(
            run.size for file in self.files for run in (file.runs or file.version.content) if run.id
        )

    @property
    def inode_count(self) -> int:
        """New files and directories at most."""
        return len(self.directories) + len(self.files)


def fault_of(name: bytes) -> str:
    """Return why `name` cannot be the name of an entry, or nothing."""
    if name in _NO_NAMES or b"/" in name or b"\0" in name:
        return "the name could lead out of the target"
    if len(name) > NAME_MAX:
        return "the name is too long"
    if name.startswith(TEMPORARY_PREFIX):
        return "the name is one of our own temporary names"
    return ""


class Planner:
    """Lays out selections from one or several states below one target."""

    def __init__(self, *, devices: bool = False) -> None:
        self.plan = RestorePlan([PlannedDirectory(0, b"", b"")])
        self._devices = devices
        self._places: dict[tuple[int, bytes], int] = {}  # directories that were asked for twice
        self._leaders: dict[int, PlannedFile] = {}  # first names of files that have several

    def add(self, state: TreeState, paths: Sequence[bytes], *, absolute: bool = False) -> None:
        """Plan `paths` of a state; the empty path is the whole source. Raises NotFound.

        With `absolute`, or when there are several, things go to their absolute path below the
        target; otherwise the one thing becomes the target.
        """
        tops: list[TreeEntry] = []
        self._leaders = {}  # fids are a source's own
        for path in paths:
            found = state.resolve(path)
            if found is None:
                name, when = os.fsdecode(path), "at that time"
                raise NotFound(f"{name!r} was not there {when}")
            tops.extend([found] if found.path else _roots(state))
        for top in tops:
            if absolute or len(tops) > 1:
                self._add_absolute(state, top)
            else:
                self._add_as_target(state, top)

    def _add_as_target(self, state: TreeState, top: TreeEntry) -> None:
        target = self.plan.directories[0]
        if top.dirent.type == EntryType.DIRECTORY:
            target.version, target.source_path = top.version, top.path
            self._add_below(state, 0, top.dirent.fid)
        else:
            target.source_path = os.path.dirname(top.path)
            self._add_file(0, os.path.basename(top.path), top.dirent, top.version)

    def _add_absolute(self, state: TreeState, top: TreeEntry) -> None:
        parts = [part for part in top.path.split(b"/") if part]
        if any(map(fault_of, parts)):
            self.plan.refused.append(Refused(top.path, "the path could lead out of the target"))
            return
        at, path = 0, b""
        is_directory = top.dirent.type == EntryType.DIRECTORY
        for part in parts if is_directory else parts[:-1]:
            path += b"/" + part
            at = self._directory(at, part, path)
        if is_directory:
            self.plan.directories[at].version = top.version
            self._add_below(state, at, top.dirent.fid)
        else:
            self._add_file(at, parts[-1], top.dirent, top.version)

    def _directory(self, parent: int, name: bytes, source_path: bytes) -> int:
        known = self._places.get((parent, name))
        if known is None:
            known = len(self.plan.directories)
            self._places[parent, name] = known
            self.plan.directories.append(PlannedDirectory(parent, name, source_path))
        return known

    def _add_below(self, state: TreeState, directory: int, fid: int) -> None:
        stack, entered, files = [(directory, fid)], {fid}, self.plan.files
        while stack:
            at, parent_fid = stack.pop()
            for batch in _batches(state, parent_fid):
                are_good = _are_good([name for name, _, _ in batch])
                for name, dirent, version in batch:
                    if are_good and version is not None and _is_ordinary(dirent, version):
                        runs = () if version.levels else version.content
                        files.append(PlannedFile(at, name, dirent.fid, version, runs=runs))
                        continue
                    if dirent.type != _DIRECTORY:
                        self._add_file(at, name, dirent, version)
                        continue
                    known = self._accepted(at, name, version)
                    if known is None:
                        continue
                    if dirent.fid in entered:
                        self._refuse(at, name, "a directory stands in the tree twice")
                        continue
                    entered.add(dirent.fid)
                    number = self._directory(at, name, self._path(at, name))
                    self.plan.directories[number].version = known
                    stack.append((number, dirent.fid))

    def _accepted(
        self, directory: int, name: bytes, version: FileVersion | None
    ) -> FileVersion | None:
        """Return the version of an entry that can be restored; otherwise refuse it."""
        fault = fault_of(name)
        if not fault and version is not None:
            return version
        self._refuse(directory, name, fault or "the vault has no version of it")
        return None

    def _path(self, directory: int, name: bytes) -> bytes:
        return self.plan.directories[directory].source_path.rstrip(b"/") + b"/" + name

    def _refuse(self, directory: int, name: bytes, reason: str) -> None:
        self.plan.refused.append(Refused(self._path(directory, name), reason))

    def _add_file(
        self, directory: int, name: bytes, dirent: Dirent, found: FileVersion | None
    ) -> None:
        version = self._accepted(directory, name, found)
        if version is None:
            return
        kind, fid = version.type, dirent.fid
        if kind in _NODES and not self._devices:
            self._refuse(directory, name, "a device node; say --devices to restore those")
        elif kind not in _RESTORABLE or kind != dirent.type:
            self._refuse(directory, name, "of an unknown type")
        elif version.nlink > 1 and fid in self._leaders:
            self._leaders[fid].links.append(PlannedLink(directory, name))
        else:
            planned = PlannedFile(directory, name, fid, version)
            if version.levels == 0:
                planned.runs = version.content
            if version.nlink > 1:
                self._leaders[fid] = planned
            self.plan.files.append(planned)


# plain numbers: asking an enum costs more than all the rest
_DIRECTORY: Final = int(EntryType.DIRECTORY)
_RESTORABLE: Final = frozenset(map(int, EntryType)) - {_DIRECTORY}
_ORDINARY: Final = _RESTORABLE - _NODES


def _are_good(names: Sequence[bytes]) -> bool:
    """Say whether nothing is wrong with any of these names; False: look at each (`fault_of`)."""
    together = b"\0".join(names)
    return (
        together.count(b"\0") == len(names) - 1
        and b"/" not in together
        and TEMPORARY_PREFIX not in together
        and max(map(len, names)) <= NAME_MAX
        and _NO_NAMES.isdisjoint(names)
    )


def _is_ordinary(dirent: Dirent, version: FileVersion) -> bool:
    """Say whether an entry is a file of one name that `_add_file` would take as it is."""
    return version.nlink <= 1 and version.type == dirent.type and version.type in _ORDINARY


def _roots(state: TreeState) -> list[TreeEntry]:
    return [
        TreeEntry(name, dirent, state.version(dirent.fid))
        for name, dirent in state.children(ROOT_FID)
    ]


def _batches(
    state: TreeState, fid: int
) -> Iterator[list[tuple[bytes, Dirent, FileVersion | None]]]:
    children = state.children(fid)
    for start in range(0, len(children), _BATCH):
        some = children[start : start + _BATCH]
        version_of = state.versions([dirent.fid for _, dirent in some]).get
        yield [(name, dirent, version_of(dirent.fid)) for name, dirent in some]


def other_name(name: bytes, at: str) -> bytes:
    """Return the name of the restored file where both are kept; `at` is the instant as text."""
    stem, dot, suffix = name.rpartition(b".")
    if not stem or len(suffix) > 16:  # noqa: PLR2004 - longer than any suffix that means anything
        stem, dot, suffix = name, b"", b""
    middle = b".restored-" + at.encode()
    return stem[: NAME_MAX - len(middle) - len(dot + suffix)] + middle + dot + suffix
