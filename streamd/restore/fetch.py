"""Fetch chunks and write files: read, decrypt, decompress, check and write, a range at a time.

Work is ordered by where the chunks are stored, not by file. A few workers each take a range of
frames; a small file is written straight from its frame, a large one grows under its temporary name
until its last chunk has come. Memory is bounded by workers times range. A frame that turns out to
be damaged is looked for elsewhere in another round.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import field

from streamd.errors import BlobNotFound, VaultDamaged
from streamd.format.crypto import Buffer
from streamd.format.frame import FrameRow
from streamd.format.keys import Role
from streamd.model.entry import EntryType
from streamd.restore.plan import PlannedFile, Refused, RestorePlan
from streamd.restore.target import Notes, Target, stop_if_full
from streamd.restore.turns import Piece, Turns
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader, Holder, Place, ReadJob, spans
from streamd.vault.parallel import OBJECT_FAULTS, first_error, in_thread

LOCAL_WORKERS: Final = 2  # small files: more only wait for each other in the kernel
REMOTE_WORKERS: Final = 8  # ranges of at most 4 MiB in flight
_PLAIN_BATCH: Final = 256
_LOST: Final = "its content is damaged or missing in the vault"
_NEW, _BEGUN, _DONE, _FAILED = range(4)
T = TypeVar("T")


class Progress(NamedTuple):
    """How far a restore is."""

    files: int
    file_total: int
    content_bytes: int
    content_total: int


class FetchResult(msgspec.Struct):
    """What became of the files."""

    refused: list[Refused] = field(default_factory=list)
    file_count: int = 0
    written_bytes: int = 0
    read_bytes: int = 0


class _Job(NamedTuple):
    read: ReadJob
    wanted: dict[int, set[bytes]]  # frame (by its first chunk) -> chunks to take from it


class _Done(NamedTuple):
    """What a worker thread did."""

    faults: list[tuple[FrameRow, str]]
    files: int
    written_bytes: int


class Fetch:
    """Writes `files`; one use."""

    def __init__(
        self,
        chunks: ChunkReader,
        plan: RestorePlan,
        files: Sequence[PlannedFile],
        *,
        path_of: Callable[[BlobName], str] | None = None,
    ) -> None:
        self.result = FetchResult()
        self._chunks = chunks
        self._plan = plan
        self._files = files
        self._path_of = path_of
        self._lock = threading.Lock()
        self._turns = Turns()
        self._state = bytearray(len(files))
        self._pending = [0] * len(files)
        self._wants: dict[bytes, list[tuple[int, int]]] = {}
        self._missing: set[bytes] = set()
        self._plain: list[int] = []  # without content of their own
        self._total = 0
        for number, file in enumerate(files):
            self._want(number, file)

    def _want(self, number: int, file: PlannedFile) -> None:
        if file.version.type != EntryType.REGULAR:
            self._plain.append(number)
            return
        at = 0
        if len(file.runs) == 1 and file.present is None and (only := file.runs[0]).id is not None:
            self._wants.setdefault(only.id, []).append((number, 0))
            self._pending[number] = 1
            self._total += only.size
            return
        for index, run in enumerate(file.runs):
            if run.id is not None and (file.present is None or index not in file.present):
                self._wants.setdefault(run.id, []).append((number, at))
                self._pending[number] += 1
                self._total += run.size
            at += run.size
        if file.present is not None:
            self._state[number] = _BEGUN
        if not self._pending[number]:
            self._plain.append(number)

    async def locate(self) -> None:
        """Find all chunks. Files that lack one are refused."""
        self._missing = await self._chunks.locate(self._wants, Role.DATA)
        self._refuse_all(self._missing)

    @property
    def to_read(self) -> int:
        """Bytes of objects that will be read for what was located."""
        jobs = self._chunks.jobs(chunk for chunk in self._wants if chunk not in self._missing)
        return sum(job.size for job in jobs)

    async def run(
        self,
        new_target: Callable[[], Target],
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> list[Notes]:
        """Write everything. Raises DiskFull, KeyRejected, and what the store raises."""
        count = LOCAL_WORKERS if self._path_of else REMOTE_WORKERS
        targets = [new_target() for _ in range(count)]
        try:
            await _share(targets, self._plain_batches(), self._run_plain)
            wanted = set(self._wants)
            while wanted:
                missing = await self._chunks.locate(wanted, Role.DATA)
                self._refuse_all(missing)
                faulty: set[bytes] = set()
                run_job = partial(self._run_job, faulty, progress)
                await _share(targets, iter(self._jobs(wanted - missing)), run_job)
                wanted = faulty
            self._drop_unfinished(targets[0])
        finally:
            for target in targets:
                target.close()
        return [target.notes for target in targets]

    # -- on the loop -----------------------------------------------------------------------------

    def _jobs(self, wanted: Iterable[bytes]) -> list[_Job]:
        together: dict[int, set[bytes]] = {}  # by place: all chunks of a frame share one, mostly
        place_of = self._chunks.place_of
        for chunk in wanted:
            place = id(place_of(chunk))
            some = together.get(place)
            if some is None:
                together[place] = {chunk}
            else:
                some.add(chunk)
        frames: dict[tuple[str, int], set[bytes]] = {}
        for some in together.values():
            holder, row = place_of(next(iter(some)))
            frames.setdefault((holder.name, row.first_chunk), set()).update(some)
        return [
            _Job(
                read,
                {
                    row.first_chunk: frames[read.holder.name, row.first_chunk]
                    for row in read.rows
                    if (read.holder.name, row.first_chunk) in frames
                },
            )
            for read in self._chunks.jobs(next(iter(some)) for some in together.values())
        ]

    async def _run_job(
        self,
        faulty: set[bytes],
        progress: Callable[[Progress], None],
        target: Target,
        job: _Job,
    ) -> None:
        try:
            data = None if self._path_of else await self._chunks.read(job.read)
            done = await in_thread(partial(self._write_frames, target, job, data))
        except OBJECT_FAULTS as error:
            done = _Done([(row, str(error)) for row in job.read.rows], 0, 0)
        for row, what in done.faults:
            faulty |= job.wanted[row.first_chunk]
            self._chunks.give_up(Place(job.read.holder, row), what)
        self.result.read_bytes += job.read.size
        self._count(done)
        progress(self.progress())

    async def _run_plain(self, target: Target, batch: Sequence[int]) -> None:
        self._count(await in_thread(partial(self._write_plain, target, batch)))

    def _count(self, done: _Done) -> None:
        self.result.file_count += done.files
        self.result.written_bytes += done.written_bytes

    def progress(self) -> Progress:
        """Return how far it is."""
        result = self.result
        return Progress(result.file_count, len(self._files), result.written_bytes, self._total)

    def _plain_batches(self) -> Iterator[list[int]]:
        for start in range(0, len(self._plain), _PLAIN_BATCH):
            yield self._plain[start : start + _PLAIN_BATCH]

    def _refuse_all(self, missing: Iterable[bytes]) -> None:
        for chunk in missing:
            for number, _ in self._wants.get(chunk, ()):
                self._refuse(number, _LOST, is_damage=True)

    # -- in worker threads -----------------------------------------------------------------------

    def _write_plain(self, target: Target, batch: Sequence[int]) -> _Done:
        count = 0
        for number in batch:
            file = self._files[number]
            try:
                if file.version.type != EntryType.REGULAR:
                    target.write_node(file)
                elif file.present is not None:
                    target.finish(file)
                else:
                    target.write_file(file, ())
            except OSError as error:
                self._failed(number, error)
                continue
            self._state[number] = _DONE
            count += 1
        return _Done([], count, 0)

    def _write_frames(self, target: Target, job: _Job, data: Buffer | None) -> _Done:
        if data is None:
            data = self._read_local(job.read)
        faults, files, size = [], 0, 0
        for row, plain in self._chunks.open_frames(job.read, data):
            if isinstance(plain, VaultDamaged):
                faults.append((row, str(plain)))
                continue
            wanted = job.wanted[row.first_chunk]
            found = self._pieces(job.read.holder, row, plain, wanted)
            size += sum(len(piece) for pieces in found.values() for _, piece in pieces)
            files += self._write_ordinary(target, found)
            for number, pieces in found.items():
                files += self._write_pieces(target, number, pieces, len(plain))
        return _Done(faults, files, size)

    def _read_local(self, job: ReadJob) -> bytes:
        assert self._path_of is not None
        name = job.holder.name
        try:
            handle = os.open(self._path_of(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = os.pread(handle, job.size, job.offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise BlobNotFound(f"{name}: {error.strerror}", name=name) from error
        if len(data) != job.size:
            raise VaultDamaged("the object is cut off")
        return data

    def _pieces(
        self, holder: Holder, row: FrameRow, plain: Buffer, wanted: set[bytes]
    ) -> dict[int, list[Piece]]:
        """Return what a frame gives to which file: number -> [(offset in the file, bytes)]."""
        view, found = memoryview(plain), dict[int, list[Piece]]()
        for chunk, at, size in spans(holder, row):
            if chunk not in wanted:
                continue
            wanted.discard(chunk)  # a frame may hold it twice; once is enough
            piece = view[at : at + size]
            for number, offset in self._wants[chunk]:
                found.setdefault(number, []).append((offset, piece))
        return found

    def _write_ordinary(self, target: Target, found: dict[int, list[Piece]]) -> int:
        """Write the small whole files among `found`, a directory at a time, and take them out."""
        together: dict[int, list[int]] = {}
        for number, pieces in found.items():
            file = self._files[number]
            is_whole = len(pieces) == self._pending[number] == 1
            if (
                is_whole
                and self._state[number] == _NEW
                and len(pieces[0][1]) == file.version.size
                and target.is_ordinary(file)
            ):
                together.setdefault(file.directory, []).append(number)
        count = 0
        for directory, numbers in together.items():
            some = [(self._files[number], found[number][0][1]) for number in numbers]
            try:
                written = target.write_ordinary(directory, some)
            except (OSError, OverflowError):
                continue  # its directory cannot be opened, or nonsense: each file says so
            for number, is_done in zip(numbers, written, strict=True):
                if is_done:
                    self._state[number] = _DONE
                    del found[number]
                    count += 1
        return count

    def _write_pieces(
        self, target: Target, number: int, pieces: list[Piece], held_bytes: int
    ) -> int:
        """Write pieces of a file; return 1 if it is complete now.

        `held_bytes` is what the pieces keep in memory: the frame that they are of.
        """
        file = self._files[number]
        if self._state[number] == _FAILED:
            return 0
        pieces.sort(key=_offset)
        try:
            # in this order: another thread says that it has begun before it counts what it wrote
            if self._pending[number] == len(pieces) and self._state[number] == _NEW:
                target.write_file(file, pieces)
                self._state[number] = _DONE
                return 1
            return self._write_in_turn(target, number, pieces, held_bytes)
        except OSError as error:
            self._failed(number, error)
            return 0

    def _write_in_turn(
        self, target: Target, number: int, pieces: list[Piece], held_bytes: int
    ) -> int:
        """Write pieces of a file that comes in parts, and what others leave here meanwhile.

        Returns 1 if it is complete now. OSError; then nothing is left for anybody to write.
        """
        if not self._turns.take(number, pieces, held_bytes):
            return 0  # whoever is at the file writes these too
        file, is_last = self._files[number], False
        try:
            if self._state[number] == _NEW:
                target.begin(file)
                self._state[number] = _BEGUN
            while pieces:
                target.write_part(file, pieces)
                self._pending[number] -= len(pieces)
                is_last = self._pending[number] == 0
                pieces = self._turns.next(number)
        except BaseException:
            self._turns.let_go(number)
            raise
        if is_last:
            target.finish(file)
            self._state[number] = _DONE
        return int(is_last)

    def _failed(self, number: int, error: OSError) -> None:
        stop_if_full(error)
        self._refuse(number, str(error.strerror))

    def _refuse(self, number: int, reason: str, *, is_damage: bool = False) -> None:
        with self._lock:
            if self._state[number] == _FAILED:
                return
            self._state[number] = _FAILED
        file = self._files[number]
        path = self._plan.source_path(file.directory, file.name)
        self.result.refused.append(Refused(path, reason, is_damage))

    def _drop_unfinished(self, target: Target) -> None:
        for number, state in enumerate(self._state):
            if state in {_BEGUN, _FAILED}:
                target.abandon(self._files[number])

    def finished(self) -> Iterator[PlannedFile]:
        """Yield the files that are complete."""
        for file, state in zip(self._files, self._state, strict=True):
            if state == _DONE:
                yield file


def _offset(piece: Piece) -> int:
    return piece[0]


async def _share(
    targets: Sequence[Target],
    jobs: Iterator[T],
    work: Callable[[Target, T], Awaitable[None]],
) -> None:
    """Let one worker for each target take jobs until there are none."""

    async def worker(target: Target) -> None:
        for job in jobs:  # taken between awaits: nobody else can take the same
            await work(target, job)

    try:
        async with asyncio.TaskGroup() as group:
            for number, target in enumerate(targets):
                group.create_task(worker(target), name=f"restore:{number}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
