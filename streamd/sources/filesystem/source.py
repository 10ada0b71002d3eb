"""A set of file trees as a source: the parts of this folder behind the one port."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from streamd.effects import Clock
from streamd.model.host import Identity
from streamd.sources.filesystem.arena import ArenaPool
from streamd.sources.filesystem.cloning import Cloner
from streamd.sources.filesystem.content import (
    Chunking,
    Cutter,
    Hasher,
    PartCutter,
    PartHasher,
)
from streamd.sources.filesystem.large import LargeFile
from streamd.sources.filesystem.listing import Examiner
from streamd.sources.filesystem.modes import POLL_SECONDS, POLLING, WATCH_MODES
from streamd.sources.filesystem.mountwatch import MountWatch
from streamd.sources.filesystem.native import prepare_leases
from streamd.sources.filesystem.reading import OVER, BatchReader
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.scope import TreeScope
from streamd.sources.filesystem.sqlite import SqliteCopier, examine_joined
from streamd.sources.port import (
    KnownRow,
    LargeRead,
    Listing,
    ReadBatch,
    ReadRequest,
    Watch,
    WatchBatch,
)

if TYPE_CHECKING:
    from streamd.sources.filesystem.watching import WatchSession

SMALL_FILE_MAX: Final = 64 * 1024
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024


class FilesystemSource:
    """Implements `sources.port.Source` for configured paths of this host.

    `hasher` maps content to its 32-byte keyed chunk id, `part_hasher` does it for many parts;
    `part_cutter` is both `cutter` and `hasher`, for many parts.
    `exclude_if_present` are names that make the directory they are in excluded, but for that name.
    Regular files larger than `max_file_size` are left out. `ignore_paths` are streamd's own
    directories. All sources of a process share one `mount_watch`; `watch_modes` are tried in order
    for each root. `clone_directories` are streamd's own places for clones; without `sqlite_copier`
    databases are files like others.
    """

    def __init__(
        self,
        name: str,
        roots: tuple[bytes, ...],
        *,
        rules: ExcludeRules,
        cutter: Cutter,
        hasher: Hasher,
        part_hasher: PartHasher | None = None,
        part_cutter: PartCutter | None = None,
        clock: Clock,
        one_file_system: bool = False,
        exclude_if_present: tuple[bytes, ...] = (),
        max_file_size: int | None = None,
        small_file_max: int = SMALL_FILE_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        ignore_paths: tuple[bytes, ...] = (),
        mount_watch: MountWatch | None = None,
        watch_modes: tuple[str, ...] = WATCH_MODES,
        poll_seconds: float = POLL_SECONDS,
        clone_directories: tuple[bytes, ...] = (),
        sqlite_copier: SqliteCopier | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._scope = TreeScope(roots, rules=rules, tags=exclude_if_present, ignored=ignore_paths)
        self._mount_watch = mount_watch or MountWatch(clock)
        self._answering = self._mount_watch.answering
        self._examiner = Examiner(
            self._scope,
            one_file_system=one_file_system,
            max_file_size=max_file_size,
            answering=self._answering,
        )
        self._chunking = Chunking(cutter, hasher, small_file_max, part_hasher, part_cutter)
        self._pool = ArenaPool(batch_bytes_max + OVER)
        self._batch_bytes_max = batch_bytes_max
        self._one_file_system = one_file_system
        self._allowed_modes = watch_modes
        self._poll_seconds = poll_seconds
        self._cloner = Cloner(clock, clone_directories)
        self._copier = sqlite_copier
        self._modes: dict[bytes, str] = {}
        self._watches: dict[bytes, Watch] = {}
        self._session: "WatchSession | None" = None
        prepare_leases()

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._name

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The configured paths."""
        return self._scope.roots

    @property
    def watch_modes(self) -> Mapping[bytes, str]:
        """For each root, how it is watched: fanotify, inotify or polling."""
        return self._modes

    @property
    def watches(self) -> Mapping[bytes, Watch]:
        """How the roots, the mounts below them and what is polled are watched."""
        return self._watches

    def watch(self) -> AsyncGenerator[WatchBatch, None]:
        """Start watching, see the port. Used by one task at a time."""
        from streamd.sources.filesystem.watching import WatchSession  # where something watches

        self._session = session = WatchSession(
            self._scope,
            self._clock,
            self._mount_watch,
            self._modes,
            self._watches,
            one_file_system=self._one_file_system,
            allowed=self._allowed_modes,
            poll_seconds=self._poll_seconds,
        )
        return session.run()

    def hurry(self) -> bool:
        """Have the next batch of events come at once; False: it could not be complete anyway."""
        if self._session is None or POLLING in self._modes.values():
            return False
        self._session.hurry()
        return True

    def excluding_pattern(self, path: bytes, *, directory: bool) -> str | None:
        """Return the exclude pattern that leaves `path` out, None when no pattern does."""
        return self._scope.excluding_pattern(path, directory=directory)

    def examine(
        self, directory: bytes, names: Sequence[bytes] | None, *, identities: bool = False
    ) -> Listing:
        """Look at `names` in `directory`, or at all of it when None. Blocking."""
        if self._copier is None:
            return self._examiner.examine(directory, names, identities=identities)
        examine = partial(self._examiner.examine, identities=identities)
        return examine_joined(examine, directory, names)

    def examine_known(self, directory: bytes, known: Callable[[], list[KnownRow]]) -> Listing:
        """Look at all of a directory of which `known` says what was there, sorted by name."""
        examine = partial(self._examiner.examine, known=known)
        if self._copier is None:
            return examine(directory, None)
        return examine_joined(examine, directory, None)

    def identify(
        self, directory: bytes, names: Sequence[bytes], *, births: bool = False
    ) -> dict[bytes, Identity]:
        """Say which files are behind names; those that are not there are missing. Blocking."""
        return self._examiner.identify(directory, names, births=births)

    def read(self, requests: Sequence[ReadRequest]) -> ReadBatch:
        """Read, chunk and hash entries of any type, regular files in one go each. Blocking."""
        return BatchReader(
            self._scope,
            self._chunking,
            self._clock,
            self._pool,
            requests,
            cloner=self._cloner,
            copier=self._copier,
            answering=self._answering,
        ).run()

    def open_large(self, request: ReadRequest) -> LargeRead:
        """Start to read a regular file too large for `read`. Blocking; never raises OSError."""
        return LargeFile(
            self._scope,
            self._chunking,
            self._clock,
            request,
            batch_bytes_max=self._batch_bytes_max,
            cloner=self._cloner,
            copier=self._copier,
            answering=self._answering,
        )
