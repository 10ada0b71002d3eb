"""From the configuration of a source to the source: which kind it is, and what it is given."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from streamd.config.model import Config, SourceConfig
from streamd.daemon.compare_worker import Task
from streamd.daemon.meters import Meters
from streamd.effects import Clock
from streamd.format.chunker import Cutter
from streamd.format.keys import DomainKeys
from streamd.sources.filesystem.content import Chunking, PartCutter
from streamd.sources.filesystem.mountwatch import MountWatch
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import SMALL_FILE_MAX, FilesystemSource
from streamd.sources.filesystem.sqlite import SqliteCopier
from streamd.sources.port import Piece, Source

if TYPE_CHECKING:
    from streamd.daemon.hooks import Hooks
    from streamd.sources.command.source import CommandSource

CLONE_NAME: Final = b".streamd"  # a directory of this name in a source's path holds clones


def part_cutter(cutter: Cutter, keys: DomainKeys) -> PartCutter:
    """Return what cuts and names many parts in one call."""
    return partial(cutter.chunks, keys.id_key, piece=Piece)


def own_paths(config: Config) -> tuple[bytes, ...]:
    """Return streamd's own directories: they are never protected."""
    paths = [config.daemon.state, config.vault.directory]
    if config.local is not None and config.vault.directory is None:
        paths.append(config.local.path)
    return tuple(os.fsencode(path) for path in paths if path)


class SourceFactory:
    """Makes sources for one process."""

    def __init__(
        self, config: Config, keys: DomainKeys, clock: Clock, meters: Meters, mounts: MountWatch
    ) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._meters = meters
        self._mounts = mounts
        self._copier = SqliteCopier(config.daemon.state)

    def make(
        self, name: str, source: SourceConfig, *, now: bool = False
    ) -> tuple[Source, Executor | None]:
        """Return a configured source, and a thread of its own if its reading has to wait.

        `now`: a command is due although it ran not long ago.
        """
        if source.kind == "command":
            thread = ThreadPoolExecutor(1, thread_name_prefix=f"command:{name}")
            return self._command(name, source, now=now), thread
        return self._files(name, source), None

    def _command(self, name: str, source: SourceConfig, *, now: bool) -> "CommandSource":
        from streamd.sources.command.source import CommandSource

        keys, cutter = self._keys, Cutter(self._keys.chunker_seed)
        return CommandSource(
            name,
            os.fsencode(source.file_name),
            source.command,
            every_seconds=source.every_seconds,
            timeout_seconds=source.timeout_seconds,
            size_min=source.min_size_bytes,
            chunking=Chunking(
                cutter, keys.chunk_id, SMALL_FILE_MAX, part_cutter=part_cutter(cutter, keys)
            ),
            clock=self._clock,
            ran=self._meters.command_ran,
            now=now,
        )

    def _files(self, name: str, source: SourceConfig) -> FilesystemSource:
        cutter = Cutter(self._keys.chunker_seed)
        clones = tuple(root.rstrip(b"/") + b"/" + CLONE_NAME for root in source.path_bytes)
        return FilesystemSource(
            name,
            source.path_bytes,
            rules=ExcludeRules(source.exclude),
            cutter=cutter,
            hasher=self._keys.chunk_id,
            part_hasher=self._keys.chunk_ids,
            part_cutter=part_cutter(cutter, self._keys),
            clock=self._clock,
            one_file_system=source.one_file_system,
            exclude_if_present=tuple(os.fsencode(tag) for tag in source.exclude_if_present),
            max_file_size=source.max_file_size_bytes,
            ignore_paths=own_paths(self._config),
            mount_watch=self._mounts,
            clone_directories=(os.fsencode(self._config.daemon.state), *clones),
            sqlite_copier=self._copier if source.sqlite == "backup" else None,
        )

    def hooks(self, name: str, source: SourceConfig) -> "Hooks | None":
        """Return the programs to run around each capture of a source, if there are any."""
        if not (source.before_capture or source.after_capture):
            return None
        from streamd.daemon.hooks import Hooks

        return Hooks(name, source, self._clock, self._meters)

    def describe(
        self, source: SourceConfig, catalog: str, number: int
    ) -> Callable[[Sequence[bytes], bool], Task] | None:
        """Return what makes tasks for the processes that compare a source; None: they cannot.

        It sees the source as `make` makes it; `number` is its number in the catalog.
        """
        if source.kind != "filesystem":
            return None
        return lambda scopes, is_gentle: Task(
            catalog=catalog,
            source=number,
            roots=source.path_bytes,
            exclude=source.exclude,
            tags=tuple(os.fsencode(tag) for tag in source.exclude_if_present),
            ignored=own_paths(self._config),
            one_file_system=source.one_file_system,
            max_file_size=source.max_file_size_bytes,
            scopes=tuple(scopes),
            part=0,
            parts=1,
            joins_wals=source.sqlite == "backup",
            is_gentle=is_gentle,
        )
