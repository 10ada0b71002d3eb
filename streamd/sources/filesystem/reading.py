"""Reading entries: small files whole, coherent with their stat; of all others the metadata."""

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from streamd.effects import Clock
from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.sources.filesystem import bulk, native, sqlite
from streamd.sources.filesystem.answering import Answering
from streamd.sources.filesystem.arena import ArenaPool
from streamd.sources.filesystem.attributes import read_xattrs
from streamd.sources.filesystem.cloning import Cloner
from streamd.sources.filesystem.coherence import RECENT_US, TRIES, is_coherent, pause, settle
from streamd.sources.filesystem.content import Chunking, extents, is_sparse, read_fully
from streamd.sources.filesystem.identifying import generation_of, identify, identify_open
from streamd.sources.filesystem.listing import host_stat
from streamd.sources.filesystem.opening import open_directory
from streamd.sources.filesystem.postgres import RUNNING, is_running
from streamd.sources.filesystem.scope import TreeScope, split
from streamd.sources.filesystem.sqlite import SqliteCopier, SqliteFailed
from streamd.sources.port import Outcome, Piece, ReadBatch, ReadRequest, ReadResult, Tail

SLACK: Final = 64 * 1024  # room for files that grew since they were examined
OVER: Final = 1024 * 1024  # by that much a batch is larger than it should be: by its last file
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OK: Final = Outcome.OK
_REGULAR: Final = int(EntryType.REGULAR)
_DIRECTORY: Final = int(EntryType.DIRECTORY)
_SYMLINK: Final = int(EntryType.SYMLINK)

_VANISHED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
_CHANGED: Final = frozenset({errno.ELOOP, errno.ENXIO})
_BROKEN: Final = frozenset(
    {
        errno.EIO,
        errno.EUCLEAN,
        errno.EBADMSG,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
    }
)
_Done = list[ReadResult | None]  # of one directory; None: not read yet
_access_time_kept = {"possible": True}


def outcome_of(error: OSError) -> Outcome:
    """Return what an error while reading means for the entry."""
    if error.errno in _VANISHED:
        return Outcome.VANISHED
    if error.errno in _CHANGED:
        return Outcome.TYPE_CHANGED
    return Outcome.FAILED if error.errno in _BROKEN else Outcome.UNREADABLE


def failure(request: ReadRequest, error: OSError) -> ReadResult:
    """Return the result of an entry that could not be read."""
    return ReadResult(outcome_of(error), request.expected, errno=error.errno or errno.EIO)


def open_file(name: bytes, dir_fd: int, *, flags: int = _OPEN_FLAGS) -> int:
    """Open for reading without leaving a trace in the access time, where that is allowed."""
    if _access_time_kept["possible"]:
        try:
            return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
        except PermissionError:
            fd = os.open(name, flags, dir_fd=dir_fd)
            _access_time_kept["possible"] = False  # files of others: do not try for each again
            return fd
    return os.open(name, flags, dir_fd=dir_fd)


def is_expected(fd: int, status: os.stat_result, request: ReadRequest) -> bool:
    """Say whether an open file is still the one that was examined, not another under its name."""
    return _is_file_of(request, status, generation_of(fd) if request.generation else 0)


def _is_file_of(request: ReadRequest, status: os.stat_result, generation: int) -> bool:
    expected = request.expected
    if status.st_ino != expected.ino or host_stat(status).type != expected.type:
        return False
    return 0 in {generation, request.generation} or generation == request.generation


def joined_stat(dir_fd: int, name: bytes, status: HostStat) -> HostStat:
    """Return the stat of a file together with its -wal, as `examine` shows it."""
    wal = sqlite.wal_of(dir_fd, name)
    return status if wal is None else sqlite.joined(status, wal.st_size, wal.st_ctime_ns)


def side_result(fd: int, status: os.stat_result, births: native.BirthClock) -> ReadResult:
    """Return the result of a -wal or -shm, which is stored as an empty file."""
    return ReadResult(
        Outcome.OK,
        host_stat(status),
        xattrs=read_xattrs(fd),
        btime_ns=births.of(fd),
        content_size=0,
        is_derived=True,
    )


def confirmed(request: ReadRequest, result: ReadResult) -> ReadResult:
    """Return the result if the path leads to what was read after it was read, as it did before.

    A directory on the way to it may have moved meanwhile: then this was never true of this path.
    """
    try:
        now = os.lstat(request.path)
    except OSError as error:
        if error.errno in _VANISHED:
            return failure(request, error)
        return result  # too long a path for one call: walked component by component it was right
    if (now.st_ino, now.st_dev) == (result.stat.ino, result.stat.dev):
        return result
    return ReadResult(Outcome.TYPE_CHANGED, request.expected, retries=result.retries)


class BatchReader:
    """Reads one batch of requests, in one thread, into one arena."""

    def __init__(
        self,
        scope: TreeScope,
        chunking: Chunking,
        clock: Clock,
        pool: ArenaPool,
        requests: Sequence[ReadRequest],
        *,
        cloner: Cloner,
        answering: Answering,
        copier: SqliteCopier | None = None,
    ) -> None:
        self._cloner = cloner
        self._answering = answering
        self._copier = copier
        self._scope = scope
        self._chunking = chunking
        self._clock = clock
        self._requests = requests
        stats = [request.expected for request in requests]
        self._reserved = sum([stat.size for stat in stats if stat.type == _REGULAR])
        self._arena = pool.take(self._reserved + SLACK)
        self._used = 0
        # read, without ids: where, how large; those that are one chunk each, and those to be cut
        self._unnamed: list[tuple[ReadResult, int, int]] = []
        self._uncut: list[tuple[ReadResult, int, int]] = []
        self._directory = b""
        self._directory_fd = -1
        self._births = native.BirthClock()
        self._now_us = clock.now_us()
        self._read_seconds = self._hash_seconds = 0.0

    def run(self) -> ReadBatch:
        """Return the results, in the order of the requests."""
        groups = [(at, list(group)) for at, group in groupby(self._requests, key=_directory_of)]
        try:
            results: list[ReadResult] = []
            for (directory, requests), done in zip(groups, self._read_local(groups), strict=True):
                if None in done:
                    self._read_rest(directory, requests, done)
                results += [each for each in done if each is not None]
            self._name()
        finally:
            if self._directory_fd >= 0:
                os.close(self._directory_fd)
        arena = self._arena[: self._used]
        return ReadBatch(arena, results, self._used, self._read_seconds, self._hash_seconds)

    def _read_local(self, groups: list[tuple[bytes, list[ReadRequest]]]) -> list[_Done]:
        """Read what is ordinary of all directories in one go, but where somebody may wait for ever.

        A mount that may hang wants a turn of its own, also one at a directory that is described.
        """
        done: list[_Done] = [[None] * len(requests) for _, requests in groups]
        local = [
            at
            for at, (directory, requests) in enumerate(groups)
            if not self._answering.may_hang_at(_touched(directory, requests))
        ]
        self._read_ordinary(
            [(groups[at][0], -1, groups[at][1]) for at in local], [done[at] for at in local]
        )
        return done

    def _read_rest(self, directory: bytes, requests: list[ReadRequest], done: _Done) -> None:
        """Read what is not done of a directory, singly; all of `done` is filled in then."""
        try:
            with self._answering.turn(directory):
                self._enter(directory)
                if not any(done):  # the way to it may have had a link, or it may hang
                    self._read_entered(directory, requests, done)
                for at, request in enumerate(requests):
                    if done[at] is None:
                        done[at] = self._read(request)
        except OSError as error:
            for at, request in enumerate(requests):
                done[at] = done[at] or failure(request, error)

    def _read_entered(self, directory: bytes, requests: list[ReadRequest], done: _Done) -> None:
        """Read what is ordinary of one open directory, but directories: they may be mounts."""
        places = [at for at, each in enumerate(requests) if each.expected.type != _DIRECTORY]
        found: _Done = [None] * len(places)
        group = (directory, self._directory_fd, [requests[at] for at in places])
        self._read_ordinary([group], [found])
        for at, result in zip(places, found, strict=True):
            done[at] = result

    def _read_ordinary(self, groups: list[bulk.Group], done: list[_Done]) -> None:
        """Read what is exactly as it was examined, where there is the compiled module."""
        if bulk.read_batch is None or not groups:
            return
        began = self._clock.monotonic()
        got = bulk.read_batch(
            _OPEN_FLAGS | os.O_NOATIME,
            groups,
            self._arena,
            self._used,
            (self._now_us - RECENT_US) * 1000,
            native.can_probe(),
            sqlite.SIDE_SUFFIXES if self._copier is not None else (),
        )
        self._read_seconds += self._clock.monotonic() - began
        unnamed, uncut, small_max = self._unnamed, self._uncut, self._chunking.small_file_max
        for (_, _, requests), reads, results in zip(groups, got, done, strict=True):
            for at, read in enumerate(reads):
                if read is None:
                    continue
                birth, what = read
                expected = requests[at].expected
                if expected.type != _REGULAR:
                    results[at] = ReadResult(_OK, expected, target=what, btime_ns=birth)
                    continue
                size = expected.size
                results[at] = result = ReadResult(_OK, expected, btime_ns=birth, is_ordinary=True)
                if size:
                    (unnamed if size <= small_max else uncut).append((result, what, size))
                self._used = what + size
                self._reserved -= size

    def _name(self) -> None:
        """Give ordinary files their chunks, all of the batch in one call for each kind."""
        began, unnamed, uncut = self._clock.monotonic(), self._unnamed, self._uncut
        starts, sizes = [each[1] for each in unnamed], [each[2] for each in unnamed]
        ids = self._chunking.ids(self._arena, starts, sizes)
        for (result, offset, size), chunk_id in zip(unnamed, ids, strict=True):
            result.pieces = (Piece(chunk_id, offset, size),)
        if uncut:
            starts, sizes = [each[1] for each in uncut], [each[2] for each in uncut]
            cut = self._chunking.cut_parts(self._arena, starts, sizes, final=True)
            for (result, _, _), pieces in zip(uncut, cut, strict=True):
                result.pieces = pieces
        self._hash_seconds += self._clock.monotonic() - began

    def _read(self, request: ReadRequest) -> ReadResult:
        name = split(request.path)[1]
        kind = request.expected.type
        try:
            if kind == _REGULAR:
                self._reserved -= request.expected.size
                result = self._read_file(request, name)
            elif kind == _DIRECTORY:
                with self._answering.turn(request.path):  # something may be mounted there
                    return confirmed(request, self._read_directory(request, name))
            else:
                result = self._read_other(request, name)
        except OSError as error:
            return failure(request, error)
        return confirmed(request, result)

    def _enter(self, directory: bytes) -> None:
        """Make `directory` the one that names are relative to; requests come side by side."""
        fd = open_directory(self._scope, directory)
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
        self._directory, self._directory_fd = directory, fd

    def _read_file(self, request: ReadRequest, name: bytes) -> ReadResult:
        began, start = self._clock.monotonic(), self._used
        fd = open_file(name, self._directory_fd)
        try:
            if self._copier is not None and sqlite.is_side_file(self._directory_fd, name):
                result, runs = self._read_side_file(request, fd), list[Piece]()
            else:
                result, runs = self._load(request, fd)
                if self._is_live_database(name, runs):
                    self._used = start
                    result, runs = self._load_copy(request, name, fd)
                elif self._copier is not None and result.stat != request.expected:
                    result.stat = joined_stat(self._directory_fd, name, result.stat)
        finally:
            os.close(fd)
        loaded = self._clock.monotonic()
        result.pieces, result.tail_count = self._chunk(runs, request.tail)
        self._read_seconds += loaded - began
        self._hash_seconds += self._clock.monotonic() - loaded
        return result

    def _load(self, request: ReadRequest, fd: int) -> tuple[ReadResult, list[Piece]]:
        """Read content and metadata of one open file until they fit together, or give up."""
        start = self._used
        attempt = 0
        while True:
            before, writer = settle(fd, self._now_us)
            room = len(self._arena) - start - self._reserved
            if not is_expected(fd, before, request) or before.st_size > room:
                return ReadResult(Outcome.TYPE_CHANGED, request.expected, retries=attempt), []
            clone = self._cloner.clone(fd, self._directory_fd) if attempt else None
            if clone is not None:
                runs, is_whole = self._read_clone(clone, room)
            else:
                runs, is_whole = self._read_runs(fd, before), False
            xattrs = read_xattrs(fd)
            after = os.fstat(fd)
            if is_whole:  # one state; what came after the first look shows in the next one's stat
                coherent, after = True, before
                break
            coherent = is_coherent(fd, before, after, self._now_us, writer=writer)
            if coherent or attempt + 1 == TRIES:
                break
            self._used = start
            pause(attempt)
            attempt += 1
            self._now_us = self._clock.now_us()
        status, size = host_stat(after), sum(run.size for run in runs)
        result = ReadResult(
            Outcome.OK if coherent else Outcome.FUZZY,
            status if coherent else status._replace(size=size),
            content_size=size,
            xattrs=xattrs,
            btime_ns=self._births.of(fd),
            retries=attempt,
        )
        return result, runs

    def _read_clone(self, clone: int, room: int) -> tuple[list[Piece], bool]:
        """Read a clone of the file; not whole if it has grown too large for the arena."""
        try:
            status = os.fstat(clone)
            if status.st_size > room:
                return [], False
            return self._read_runs(clone, status), True
        finally:
            os.close(clone)

    def _is_live_database(self, name: bytes, runs: list[Piece]) -> bool:
        """Say whether what was read is an SQLite database of which a part is in a -wal."""
        if self._copier is None or not runs or runs[0].id is None:
            return False
        start = runs[0].offset
        header = self._arena[start : start + min(runs[0].size, sqlite.HEADER_SIZE)]
        return sqlite.is_wal_database(header) and bool(sqlite.wal_of(self._directory_fd, name))

    def _load_copy(
        self, request: ReadRequest, name: bytes, fd: int
    ) -> tuple[ReadResult, list[Piece]]:
        """Read a consistent copy of a database instead of the file."""
        assert self._copier is not None
        before, xattrs = os.fstat(fd), read_xattrs(fd)
        stat = joined_stat(self._directory_fd, name, host_stat(before))
        try:
            copy = self._copier.copy(self._directory_fd, name, before, stat.size - before.st_size)
        except SqliteFailed as error:
            failed = ReadResult(Outcome.SQLITE_FAILED, request.expected, detail=str(error))
            return failed, []
        try:
            status = os.fstat(copy)
            if status.st_size > len(self._arena) - self._used - self._reserved:
                return ReadResult(Outcome.TYPE_CHANGED, request.expected), []
            runs = self._read_runs(copy, status)
        finally:
            os.close(copy)
        result = ReadResult(
            Outcome.OK,
            stat,
            xattrs=xattrs,
            btime_ns=self._births.of(fd),
            content_size=sum(run.size for run in runs),
            is_derived=True,
        )
        return result, runs

    def _read_side_file(self, request: ReadRequest, fd: int) -> ReadResult:
        """Describe the -wal or -shm of a database without its content: see `sqlite`."""
        status = os.fstat(fd)
        if not is_expected(fd, status, request):
            return ReadResult(Outcome.TYPE_CHANGED, request.expected)
        return side_result(fd, status, self._births)

    def _read_runs(self, fd: int, status: os.stat_result) -> list[Piece]:
        """Read all data into the arena; the pieces still lack their ids (empty) and cuts."""
        size = status.st_size
        if not is_sparse(status):
            return [self._read_run(fd, 0, size)] if size else []
        return [
            Piece(None, self._used, extent.size)
            if extent.hole
            else self._read_run(fd, extent.offset, extent.size)
            for extent in extents(fd, size)
        ]

    def _read_run(self, fd: int, offset: int, size: int) -> Piece:
        start = self._used
        count = read_fully(fd, self._arena[start : start + size], offset)
        self._used += count
        return Piece(b"", start, count)

    def _chunk(self, runs: list[Piece], tail: Tail | None) -> tuple[list[Piece], int]:
        """Return the chunks and holes of a file, and how many at the end follow `tail`."""
        file_size = sum(run.size for run in runs)
        pieces: list[Piece] = []
        for run in runs:
            if run.id is None:
                pieces.append(run)
            else:
                end = run.offset + run.size
                cut = self._chunking.pieces(self._arena, run.offset, end, file_size=file_size)
                if run is not runs[-1]:
                    pieces += cut
                    continue
                at = file_size - run.size
                ends, count = self._chunking.follow(self._arena, cut, at=at, tail=tail)
                return pieces + ends, count
        return pieces, 0

    def _read_directory(self, request: ReadRequest, name: bytes) -> ReadResult:
        fd = open_file(name, self._directory_fd, flags=_OPEN_FLAGS | os.O_DIRECTORY)
        try:
            xattrs = read_xattrs(fd)
            status, itself = os.fstat(fd), identify(fd, [b"."], births=True).get(b".")
            if itself is None:  # it may be read and not entered
                itself = identify_open(fd, births=True)
            if not _is_file_of(request, status, itself.generation):
                return ReadResult(Outcome.TYPE_CHANGED, request.expected)
            return ReadResult(
                Outcome.OK,
                host_stat(status),
                xattrs=xattrs,
                btime_ns=itself.birth_ns,
                notice=RUNNING if is_running(fd) else "",
            )
        finally:
            os.close(fd)

    def _read_other(self, request: ReadRequest, name: bytes) -> ReadResult:
        """Read a symbolic link, or what must not be opened: a pipe, a device, a socket."""
        fd = self._directory_fd
        is_link = request.expected.type == _SYMLINK
        try:
            target = os.readlink(name, dir_fd=fd) if is_link else b""
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return ReadResult(Outcome.TYPE_CHANGED, request.expected)
        xattrs = read_xattrs(b"/proc/self/fd/%d/%b" % (fd, name))
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        seen = identify(fd, [name], births=False).get(name)
        if seen is None or not _is_file_of(request, status, seen.generation):
            return ReadResult(Outcome.TYPE_CHANGED, request.expected)
        return ReadResult(
            Outcome.OK,
            host_stat(status),
            xattrs=xattrs,
            target=target,
            btime_ns=self._births.of(fd, name),
        )


def _directory_of(request: ReadRequest) -> bytes:
    return request.path.rpartition(b"/")[0] or b"/"


def _touched(directory: bytes, requests: list[ReadRequest]) -> Iterator[bytes]:
    """Yield where something may be mounted that reading these touches."""
    yield directory
    for request in requests:
        if request.expected.type == _DIRECTORY:
            yield request.path
