"""Fetch chunks and write files: read, decrypt, decompress, check and write, a range at a time.

Work is ordered by where the chunks are stored, not by file. A few workers each take a range of
frames; a small file is written straight from its frame, a large one grows under its temporary name
until its last chunk has come. Memory is bounded by workers times range. A frame that turns out to
be damaged is looked for elsewhere in another round.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streamd.errors import BlobNotFound, DiskFull, VaultDamaged
from streamd.format.crypto import Buffer
from streamd.format.frame import FrameRow
from streamd.format.keys import Role
from streamd.model.entry import EntryType
from streamd.restore.plan import PlannedFile, Refused, RestorePlan
from streamd.restore.target import Notes, Target
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader, Holder, Place, ReadJob, spans
from streamd.vault.parallel import OBJECT_FAULTS, first_error

LOCAL_WORKERS: Final = 3  # more threads than processors wait for each other
REMOTE_WORKERS: Final = 8  # ranges of at most 4 MiB in flight
_PLAIN_BATCH: Final = 256
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_NEW, _BEGUN, _DONE, _FAILED = range(4)


class Progress(NamedTuple):
    """How far a restore is."""

    files: int
    file_total: int
    content_bytes: int
    content_total: int


@dataclass(slots=True)
class FetchResult:
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
        self._state = bytearray(len(files))
        self._pending = [0] * len(files)
        self._wants: dict[bytes, list[tuple[int, int]]] = {}
        self._plain: list[int] = []  # without content of their own
        self._total = 0
        for number, file in enumerate(files):
            self._want(number, file)

    def _want(self, number: int, file: PlannedFile) -> None:
        if file.version.type != EntryType.REGULAR:
            self._plain.append(number)
            return
        at = 0
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

    async def locate(self) -> int:
        """Find all chunks; return the bytes that will be read. Files that lack one are refused."""
        missing = await self._chunks.locate(self._wants, Role.DATA)
        self._refuse_all(missing)
        jobs = self._chunks.jobs(chunk for chunk in self._wants if chunk not in missing)
        return sum(job.size for job in jobs)

    async def run(
        self,
        new_target: Callable[[], Target],
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Notes:
        """Write everything. Raises DiskFull, KeyRejected, and what the store raises."""
        targets = [
            new_target() for _ in range(LOCAL_WORKERS if self._path_of else REMOTE_WORKERS)
        ]
        try:
            await self._each(targets, self._plain_batches(), self._run_plain, progress)
            wanted = set(self._wants)
            while wanted:
                missing = await self._chunks.locate(wanted, Role.DATA)
                self._refuse_all(missing)
                faulty: set[bytes] = set()
                jobs = iter(self._jobs(wanted - missing))

                async def work(target: Target, job: _Job, faulty: set[bytes] = faulty) -> _Done:
                    return await self._run_job(target, job, faulty)

                await self._each(targets, jobs, work, progress)
                wanted = faulty
            self._abandon(targets[0])
        finally:
            for target in targets:
                target.close()
        return _merged(targets)

    async def _each[T](self, targets: Sequence[Target], jobs: Iterator[T], work, progress) -> None:
        raise NotImplementedError
