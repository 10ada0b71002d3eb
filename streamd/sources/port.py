"""What the capture engine asks of anything that can be protected.

`watch` says *where to look again*; it is a hint and never the truth. `examine` and `read` look:
they are plain blocking functions, called in worker threads, so that a test can script a source in
a few lines and a simulation runs them inline. Paths are absolute bytes. The virtual root, the
empty path b"", is a directory whose entries are the source's configured paths (each name a whole
path).

Thread use: `examine` and `identify` are called by one thread at a time, `read` and `LargeRead.next`
by several.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import field

from streamd.model.host import HostStat, Identity
from streamd.model.names import PackedNames
from streamd.policy.classes import PROTECTED, TOO_LARGE, UNREADABLE
from streamd.policy.texture import Texture

VIRTUAL_ROOT = b""

# What is known of an entry: its name, a number, whether it is to be read again, and from KNOWN_STAT
# on the fields of HostStat.
KnownRow = tuple[Any, ...]
KNOWN_STAT: Final = 3


class Listing(msgspec.Struct):
    """What `examine` found in one directory.

    A name that was asked for and is in no mapping does not exist. `failed` has the errno of names
    that could not be examined: nothing may be concluded about those. `left_out` has the class of
    names that are there and not protected: "excluded" or "too-large".

    `names` is there instead of entries when a directory has too many for one answer: ask
    for some of them at a time.

    Where known rows were given, `rest` has those that are not what is there, and `entries` leaves
    the others out: there are `same_count`. None: nothing was left out.

    `identities` says of all entries which files they are, as `identify` does without births, where
    that was asked for and comes with the look. None: `identify` has to be asked.
    """

    entries: dict[bytes, HostStat] = field(default_factory=dict)
    failed: dict[bytes, int] = field(default_factory=dict)
    left_out: dict[bytes, str] = field(default_factory=dict)  # there, and not to be protected
    closed: set[bytes] = field(default_factory=set)  # directories not to descend into (other mount)
    own: HostStat | None = None  # of the directory itself; None for the virtual root
    names: PackedNames | None = None
    rest: dict[bytes, KnownRow] | None = None
    same_count: int = 0
    identities: dict[bytes, Identity] | None = None
    error: int = 0  # errno: the directory itself could not be listed; ENOENT/ENOTDIR: it is gone

    @property
    def too_large(self) -> set[bytes]:
        """Names that are left out by their size: what was captured of them stays."""
        return {name for name, kind in self.left_out.items() if kind == TOO_LARGE}

    def fresh_identities(self) -> dict[bytes, Identity] | None:
        """Return `identities` when asked first: later they, and what is known of them, are old."""
        taken, self.identities = self.identities, None
        return taken

    def count_into(self, seen: Counter[str]) -> None:
        """Count the names by class; `PROTECTED` are those that are to be."""
        seen[PROTECTED] += len(self.entries) + self.same_count
        seen[UNREADABLE] += len(self.failed)
        seen.update(self.left_out.values())


class WatchBatch(msgspec.Struct):
    """Events, reduced to places to look at. Empty batches only move `drained_us`.

    `paths` maps an absolute path to whether everything below it must be looked at too. `inodes` are
    (dev, ino) pairs whose names the watcher does not know: all names of them need a look.
    `gap` is not empty when events were lost: everything below `scope` needs a rescan, and the time
    since the previous batch is a coverage gap. `drained_us` is a wall clock instant: every
    operation that finished before it is in this batch or an earlier one; 0: nothing new is known.

    In the first batch: `resumed` when everything since an earlier process watched is in the batches
    that follow. In the first and the last one: `trees` says what is watched where, and has to be
    the same for that to hold.
    """

    paths: dict[bytes, bool] = field(default_factory=dict)
    inodes: set[tuple[int, int]] = field(default_factory=set)
    gap: str = ""
    scope: bytes = b""
    drained_us: int = 0
    event_count: int = 0
    resumed: bool = False
    trees: bytes = b""


class Watch(NamedTuple):
    """How one part of a source is watched, and in words why not better; empty: it is the best."""

    mode: str
    why: str = ""


class Outcome(StrEnum):
    """How reading one entry ended; also a metric label and the reason in `streamd problems`."""

    OK = "ok"
    FUZZY = "fuzzy"  # it changed while it was read, every time we tried
    VANISHED = "vanished"
    UNREADABLE = "unreadable"  # EACCES, EPERM, …; `errno` says which
    FAILED = "io-error"  # EIO and its kind
    TYPE_CHANGED = "type-changed"  # not what `expected` says any more: examine it again
    COMMAND_FAILED = "command-failed"  # a program whose output is the content
    SQLITE_FAILED = "sqlite-failed"  # a database that could not be copied by SQLite's backup


class Tail(NamedTuple):
    """The last runs of a file, chunks or holes (id, size), as captured; they begin at `start`."""

    start: int
    runs: tuple[tuple[bytes | None, int], ...]


class ReadRequest(NamedTuple):
    """One entry to read. `expected` is what `examine` saw.

    `tail` is how its end was cut the last time: what is still the same there is cut so again.
    `cuts` is how all of it was (`policy.following`): it may spare work, and changes no cut.
    """

    path: bytes
    expected: HostStat
    tail: Tail | None = None
    generation: int = 0  # as `identify` said; 0: not known
    cuts: bytes = b""


class Piece(NamedTuple):
    """One run of content: a chunk at `offset` in the result's arena, or a hole (`id` None)."""

    id: bytes | None
    offset: int
    size: int


class ReadResult(msgspec.Struct, gc=False):
    """What was read of one entry; `stat` is the one that belongs to the content."""

    outcome: Outcome
    stat: HostStat
    pieces: Sequence[Piece] = ()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    btime_ns: int = 0
    errno: int = 0
    retries: int = 0
    content_size: int = -1  # of the content, where it is not `stat.size`
    is_derived: bool = False  # made from the file by its application's own means, see `sqlite`
    tail_count: int = 0  # pieces at the end that were cut as `ReadRequest.tail` says
    notice: str = ""  # captured, and yet a problem; the reason in `streamd problems`
    detail: str = ""  # what to say about it in the log
    is_ordinary: bool = False  # a regular file of data only, and all else as above says
    texture: Texture = Texture.PLAIN  # of the content; filled in by the pipeline
    cuts: bytes = b""  # of a large file: how it is cut now, see `ReadRequest.cuts`


class ReadBatch(msgspec.Struct):
    """Results in the order of the requests, their chunks side by side in one arena."""

    arena: memoryview
    results: list[ReadResult]
    read_bytes: int
    read_seconds: float = 0.0
    hash_seconds: float = 0.0


class LargeRead(Protocol):
    """One large file, read in pieces in order. Used by one thread at a time."""

    def next(self) -> tuple[memoryview, list[Piece]] | None:
        """Return an arena of at most `batch_bytes_max` and its pieces; None at the end."""

    def finish(self) -> ReadResult:
        """Say how it went (without pieces); the stat is the final one. Then it is closed."""

    def close(self) -> None:
        """Give up early; harmless after `finish`."""


class Source(Protocol):
    """One protected thing, see the module's text."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The configured paths."""

    @property
    def watch_modes(self) -> Mapping[bytes, str]:
        """For each root, how it is watched: fanotify, inotify or polling."""

    @property
    def watches(self) -> "Mapping[bytes, Watch]":
        """How each part that is watched for itself is: the roots, mounts and polled directories."""

    def watch(self) -> AsyncIterator[WatchBatch]:
        """Start watching; the first batch comes at once and says that the marks are in place.

        Every operation that ends after that first batch is reported. Cancelling stops it; it may
        also end by itself, with a last batch, when watching ends for the whole process.
        """

    def hurry(self) -> bool:
        """Have the next batch of events come at once; False: it could not be complete anyway."""

    def examine(
        self, directory: bytes, names: Sequence[bytes] | None, *, identities: bool = False
    ) -> Listing:
        """Look at `names` in `directory`, or at all of it when None. Blocking.

        With `identities` a source may say which files they are, too, if that costs little.
        """

    def identify(
        self, directory: bytes, names: Sequence[bytes], *, births: bool = False
    ) -> dict[bytes, Identity]:
        """Say which files are behind names; those that are not there (any more) are missing.

        Their times of birth are sure to be looked up only if `births`. Blocking.
        """

    def read(self, requests: Sequence[ReadRequest]) -> ReadBatch:
        """Read, chunk and hash entries of any type, regular files in one go each. Blocking."""

    def open_large(self, request: ReadRequest) -> LargeRead:
        """Start to read a regular file too large for `read`. Blocking; never raises OSError."""
