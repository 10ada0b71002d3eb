"""Find chunks in the vault and read them: which object, which frame, which bytes.

Packs and segments say in their indexes which chunks they hold; those indexes are scanned until all
chunks that are needed have been found. A chunk may be in several objects: when a frame turns out to
be damaged, its chunks are looked for elsewhere. An unreadable object is noted in `damage` and
never stands in the way of what does not need it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from streamd.errors import KeyRejected, VaultDamaged
from streamd.format import chunklist, envelope, layout, pack
from streamd.format.crypto import Buffer
from streamd.format.envelope import HEADER_AT, Envelope, Kind
from streamd.format.frame import FrameOpener, FrameRow
from streamd.format.keys import Role
from streamd.format.pack import PACK_HEAD_GUESS, FrameHolder
from streamd.model.entry import ContentRun, EntryType, FileVersion
from streamd.model.ids import CHUNK_ID_SIZE
from streamd.storage.port import BlobInfo, BlobName
from streamd.vault.index_reader import IndexGeneration, newest_index
from streamd.vault.journal_reader import Damage
from streamd.vault.layers import from_either
from streamd.vault.parallel import OBJECT_FAULTS, in_thread, in_waves
from streamd.vault.vault import Vault

WIDTH: Final = 16  # indexes read at a time
READ_WIDTH: Final = 8  # ranges read at a time
GAP_MAX: Final = 256 * 1024  # reading on is cheaper than asking again
RANGE_MAX: Final = 4 * 1024 * 1024
SEGMENT_HEAD: Final = 256 * 1024  # segments up to here are read whole
INDEX_PAYS: Final = 64  # objects; with fewer, reading all their indexes costs no more
CACHED_CHUNKS_MAX: Final = 4_000_000  # ids kept in decoded indexes: 130 MiB or so
RUNS_MAX: Final = 1 << 25  # a content list longer than that is an attack
ZEROS: Final = bytes(1024 * 1024)
CONTENT_WINDOW: Final = 16 * 1024 * 1024


class Holder(msgspec.Struct, frozen=True, eq=False):
    """An object's frames of one role."""

    name: BlobName
    size_bytes: int
    role: Role
    frames: FrameHolder
    layer: int = 0  # how often the object was distrusted before this was read


class Place(NamedTuple):
    """Where a chunk is."""

    holder: Holder
    row: FrameRow


class ReadJob(msgspec.Struct, frozen=True):
    """Frames of one object that are read in one go."""

    holder: Holder
    rows: tuple[FrameRow, ...]

    @property
    def offset(self) -> int:
        """Where the range begins in the object."""
        return self.holder.frames.frames_at + self.rows[0].offset

    @property
    def size(self) -> int:
        """Bytes of the range, gaps included."""
        last = self.rows[-1]
        return last.offset + last.stored_size - self.rows[0].offset


class ChunkReader:
    """Finds and reads chunks. One event loop; `open_frames` may run in any thread."""

    def __init__(self, vault: Vault) -> None:
        self.damage: list[Damage] = []
        self._vault = vault
        self._secret_for = vault.keys.secret_for
        self._opener = FrameOpener(self._secret_for, vault.keys.domain_keys, vault.identity)
        self._objects: list[BlobInfo] | None = None
        self._infos: dict[BlobName, BlobInfo] = {}
        self._index: IndexGeneration | None = None
        self._index_is_read = False
        self._cache: dict[BlobName, tuple[Holder, ...]] = {}
        self._cached_chunks = 0
        self._places: dict[bytes, Place] = {}
        self._bad: set[tuple[BlobName, Role, int]] = set()
        self._layers: Counter[BlobName] = Counter()  # how often an object was distrusted

    # -- indexes ---------------------------------------------------------------------------------

    async def holders(
        self, role: Role | None = None, *, without: Container[str] = ()
    ) -> AsyncIterator[Holder]:
        """Yield the frames of every pack and segment, packs first, the newest first.

        Objects whose names are in `without` are not read.
        """
        infos = [info for info in await self._listed() if info.name not in without]
        async for info, result in in_waves(infos, self._load, width=WIDTH):
            if isinstance(result, Exception):
                self._note(info.name, str(result))
                continue
            for holder in result:
                if role is None or holder.role is role:
                    yield holder

    async def holders_of(self, name: BlobName) -> tuple[Holder, ...]:
        """Return the frames of one object; none, and a note in `damage`, if it is unreadable."""
        await self._listed()
        info = self._infos.get(name)
        if info is None:
            return ()
        try:
            return await self._load(info)
        except OBJECT_FAULTS as error:
            self._note(name, str(error))
            return ()

    async def locate(self, ids: Iterable[bytes], role: Role) -> set[bytes]:
        """Find chunks; return those that are nowhere. Those known already cost nothing."""
        missing = {chunk for chunk in ids if chunk not in self._places}
        if not missing:
            return missing
        await self._locate_by_index(missing, role)
        if not missing:
            return missing
        async for holder in self.holders(role):
            self._find_in(holder, missing)
            if not missing:
                break
        return missing

    async def _locate_by_index(self, missing: set[bytes], role: Role) -> None:
        """Find chunks where the newest index generation has them, if there is one.

        It pays when there are many objects. What it does not know, or has wrong, stays missing.
        """
        index = await self.index() if len(await self._listed()) >= INDEX_PAYS else None
        places = {} if index is None else await index.find(missing)
        async for _, holders in in_waves(
            sorted({name for name in places.values() if name in self._infos}),
            self.holders_of,
            width=WIDTH,
        ):
            assert not isinstance(holders, Exception), "holders_of notes what is wrong"
            for holder in holders:
                if holder.role is role:
                    self._find_in(holder, missing)

    def place_of(self, chunk: bytes) -> Place:
        """Return where a located chunk is."""
        return self._places[chunk]

    def give_up(self, place: Place, what: str) -> None:
        """Note that a frame cannot be read: its chunks will be looked for elsewhere."""
        holder = place.holder
        if holder.layer < self._layers[holder.name]:
            return  # another layer is read by now
        if self._vault.distrust(holder.name):
            self._forget(holder.name)
            return
        self._note(holder.name, what)
        self._bad.add((holder.name, holder.role, place.row.first_chunk))
        self._drop_places(holder, place.row)

    def _forget(self, name: BlobName) -> None:
        """Another layer's object is read from now on: its index may say something else."""
        self._layers[name] += 1
        for holder in self._cache.pop(name, ()):
            self._cached_chunks -= holder.frames.table.chunk_count
            for row in holder.frames.table.frames:
                self._drop_places(holder, row)

    def _drop_places(self, holder: Holder, row: FrameRow) -> None:
        ids = holder.frames.table.ids_of(row)
        for start in range(0, len(ids), CHUNK_ID_SIZE):
            chunk = ids[start : start + CHUNK_ID_SIZE]
            known = self._places.get(chunk)
            if known is not None and known.holder.name == holder.name:
                del self._places[chunk]

    def _note(self, name: str, what: str) -> None:
        damage = Damage(name, what)
        if damage not in self.damage:
            self.damage.append(damage)

    def _find_in(self, holder: Holder, missing: set[bytes]) -> None:
        table, places = holder.frames.table, self._places
        ids = table.id_list()
        if missing.isdisjoint(ids):
            return
        for row in table.frames:
            if (holder.name, holder.role, row.first_chunk) in self._bad:
                continue
            here = missing.intersection(ids[row.first_chunk : row.first_chunk + row.chunk_count])
            if here:
                places.update(dict.fromkeys(here, Place(holder, row)))
                missing -= here

    async def _listed(self) -> list[BlobInfo]:
        """Return all packs and segments; listed once, as they were when first asked for."""
        if self._objects is None:
            self._objects = await self._list_objects()
            self._infos = {info.name: info for info in self._objects}
        return self._objects

    async def index(self) -> IndexGeneration | None:
        """Return the newest index generation, read once; None if there is none that is good."""
        if not self._index_is_read:
            # what is wrong with an index is for a verification to say: nothing depends on it
            self._index, self._index_is_read = await newest_index(self._vault, []), True
        return self._index

    async def _list_objects(self) -> list[BlobInfo]:
        domain, store = self._vault.keys.domain, self._vault.store
        packs = [
            info
            async for info in store.scan(layout.pack_prefix(domain))
            if layout.parse_pack_name(info.name) is not None
        ]
        segments = [
            info
            async for info in store.scan(f"{layout.domain_prefix(domain)}j/")
            if layout.parse_segment_name(info.name) is not None
        ]
        packs.sort(key=lambda info: -info.modified_us)
        return packs + segments[::-1]

    async def _load(self, info: BlobInfo) -> tuple[Holder, ...]:
        cached = self._cache.get(info.name)
        if cached is not None:
            return cached
        try:
            holders = await from_either(self._vault, info.name, partial(self._decoded, info.name))
        except KeyRejected as error:  # an index is under the key that every host has
            raise VaultDamaged("its index is under an unknown key") from error
        count = sum(holder.frames.table.chunk_count for holder in holders)
        if self._cached_chunks + count <= CACHED_CHUNKS_MAX:
            self._cache[info.name] = holders
            self._cached_chunks += count
        return holders

    async def _decoded(self, name: BlobName, *, is_again: bool) -> tuple[Holder, ...]:
        info = self._infos[name]
        if is_again or self._layers[name]:  # in another layer it may have another size
            async for now in self._vault.store.scan(name):
                info = now if now.name == name else info
        is_pack = layout.parse_pack_name(name) is not None
        return await (self._load_pack(info) if is_pack else self._load_segment(info))

    async def _beginning(self, info: BlobInfo, size: int) -> bytes:
        if info.size_bytes < HEADER_AT:
            raise VaultDamaged("the object is cut off")
        return await self._vault.store.get(info.name, offset=0, size=min(size, info.size_bytes))

    async def _load_pack(self, info: BlobInfo) -> tuple[Holder, ...]:
        data = await self._beginning(info, PACK_HEAD_GUESS)
        if (end := envelope.header_end(data)) > len(data):
            data = await self._beginning(info, end)
        if (end := pack.index_end(data)) > len(data):
            data = await self._beginning(info, end)
        frames = pack.decode_pack_index(data, self._secret_for)
        number = envelope.parse(data, Kind.PACK).header.r
        if number not in (Role.DATA, Role.META):
            raise VaultDamaged("the pack holds frames of no known role")
        return (Holder(info.name, info.size_bytes, Role(number), frames, self._layers[info.name]),)

    async def _load_segment(self, info: BlobInfo) -> tuple[Holder, ...]:
        data = await self._beginning(info, SEGMENT_HEAD)
        if (end := envelope.header_end(data)) > len(data):
            data = await self._beginning(info, end)
        parsed = envelope.parse(data, Kind.SEGMENT)
        ends = [
            section.offset + section.size
            for section in parsed.header.sec
            if section.tag in _INDEXES
        ]
        if ends and max(ends) > len(data):
            parsed = envelope.parse(await self._beginning(info, max(ends)), Kind.SEGMENT)
        return tuple(self._inline(info, parsed))

    def _inline(self, info: BlobInfo, parsed: Envelope) -> Iterator[Holder]:
        header = parsed.header
        for role, index, tag, rows in (
            (Role.DATA, "i", "c", header.og),
            (Role.META, "mi", "m", header.om),
        ):
            if parsed.section(index) is not None:
                frames = pack.holder_of(parsed, index, tag, rows, self._secret_for)
                layer = self._layers[info.name]
                yield Holder(info.name, info.size_bytes, role, frames, layer)

    # -- frames ----------------------------------------------------------------------------------

    def jobs(self, ids: Iterable[bytes]) -> list[ReadJob]:
        """Return what to read for located chunks, in the order in which it is stored."""
        frames: dict[tuple[BlobName, Role], tuple[Holder, dict[int, FrameRow]]] = {}
        places = self._places
        for chunk in ids:
            holder, row = places[chunk]
            key = holder.name, holder.role
            known = frames.get(key)
            if known is None:
                frames[key] = holder, {row.offset: row}
            else:
                known[1][row.offset] = row
        found: list[ReadJob] = []
        for _, (holder, rows) in sorted(frames.items()):
            found.extend(_coalesced(holder, [rows[offset] for offset in sorted(rows)]))
        return found

    async def read(self, job: ReadJob) -> bytes:
        """Return the bytes of a job's range. Raises what the store raises."""
        return await self._vault.store.get(job.holder.name, offset=job.offset, size=job.size)

    def open_frames(
        self, job: ReadJob, data: Buffer
    ) -> Iterator[tuple[FrameRow, Buffer | VaultDamaged]]:
        """Yield (frame, its plaintext or what is wrong with it). Blocking, for worker threads.

        Raises KeyRejected if this host may not read it.
        """
        frames, view = job.holder.frames, memoryview(data)
        start = job.rows[0].offset
        for row in job.rows:
            at = row.offset - start
            sealed = view[at : at + row.stored_size]
            try:
                yield row, self._opener.open(frames.table, row, frames.origins[row.origin], sealed)
            except VaultDamaged as error:
                yield row, error

    async def read_chunks(
        self, ids: Iterable[bytes], role: Role
    ) -> AsyncIterator[dict[bytes, memoryview]]:
        """Yield chunks by id, grouped by frame, in any order.

        Raises VaultDamaged at the end if some could not be had anywhere.
        """
        wanted = set(ids)
        missing: set[bytes] = set()
        while wanted:
            missing |= await self.locate(wanted, role)
            wanted -= missing
            failed: set[bytes] = set()
            async for job, result in in_waves(self.jobs(wanted), self._read_job, width=READ_WIDTH):
                opened = (
                    result if not isinstance(result, Exception) else dict.fromkeys(job.rows, result)
                )
                for row, plain in opened.items():
                    chunks = _spans(job.holder, row, wanted)
                    if isinstance(plain, Exception):
                        self.give_up(Place(job.holder, row), str(plain))
                        failed.update(chunk for chunk, _, _ in chunks)
                    else:
                        view = memoryview(plain)
                        yield {chunk: view[at : at + size] for chunk, at, size in chunks}
            wanted = failed
        if missing:
            raise VaultDamaged(f"{len(missing)} chunks of content are nowhere in the vault")

    async def _read_job(self, job: ReadJob) -> dict[FrameRow, Buffer | Exception]:
        data = await self.read(job)
        return await in_thread(lambda: dict(self.open_frames(job, data)))

    async def read_all(self, ids: Iterable[bytes], role: Role) -> dict[bytes, bytes]:
        """Return chunks by id; for sets that fit into memory. Raises VaultDamaged."""
        found: dict[bytes, bytes] = {}
        async for chunks in self.read_chunks(ids, role):
            for chunk, plain in chunks.items():
                found[chunk] = bytes(plain)
        return found

    # -- content ---------------------------------------------------------------------------------

    async def expand(self, version: FileVersion) -> list[ContentRun]:
        """Return all runs of a file's content. Raises VaultDamaged."""
        return (await self.expand_all([version]))[0]

    async def expand_all(self, versions: Sequence[FileVersion]) -> list[list[ContentRun]]:
        """Return the runs of many files; pages are read together. Raises VaultDamaged."""
        lists = [list(version.content) for version in versions]
        levels = [version.levels for version in versions]
        if any(not 0 <= level <= chunklist.LEVELS_MAX for level in levels):
            raise VaultDamaged("a chunk list has an impossible depth")
        for level in range(max(levels, default=0), 0, -1):
            deep = [index for index, depth in enumerate(levels) if depth >= level]
            ids = {run.id for index in deep for run in lists[index] if run.id is not None}
            pages = {
                page: chunklist.decode_page(data)
                for page, data in (await self.read_all(ids, Role.META)).items()
            }
            for index in deep:
                lists[index] = _replaced(lists[index], pages)
        for version, runs in zip(versions, lists, strict=True):
            check_runs(version, runs)
        return lists

    async def content(self, version: FileVersion) -> AsyncIterator[Buffer]:
        """Yield a file's content in order, holes as zeros. Raises VaultDamaged."""
        runs = await self.expand(version)
        window: list[ContentRun] = []
        size = 0
        for run in runs:
            window.append(run)
            size += run.size if run.id is not None else 0
            if size >= CONTENT_WINDOW:
                async for piece in self._window(window):
                    yield piece
                window, size = [], 0
        async for piece in self._window(window):
            yield piece

    async def _window(self, runs: Sequence[ContentRun]) -> AsyncIterator[Buffer]:
        chunks = await self.read_all({run.id for run in runs if run.id is not None}, Role.DATA)
        for run in runs:
            if run.id is not None:
                yield chunks[run.id]
                continue
            for start in range(0, run.size, len(ZEROS)):
                yield memoryview(ZEROS)[: min(len(ZEROS), run.size - start)]


_INDEXES: Final = ("i", "mi")


def spans(holder: Holder, row: FrameRow) -> Iterator[tuple[bytes, int, int]]:
    """Yield (chunk id, offset in the plaintext, size) of a frame's chunks."""
    ids, at = holder.frames.table.ids_of(row), 0
    for number, size in enumerate(holder.frames.table.sizes_of(row)):
        start = number * CHUNK_ID_SIZE
        yield ids[start : start + CHUNK_ID_SIZE], at, size
        at += size


def _spans(holder: Holder, row: FrameRow, wanted: set[bytes]) -> list[tuple[bytes, int, int]]:
    return [span for span in spans(holder, row) if span[0] in wanted]


def check_runs(version: FileVersion, runs: Sequence[ContentRun]) -> None:
    """Raise VaultDamaged unless `runs` can be the content of `version`."""
    if version.type != EntryType.REGULAR:
        return
    total = 0
    for run in runs:
        if run.size <= 0 or (run.id is not None and len(run.id) != CHUNK_ID_SIZE):
            raise VaultDamaged("a content list has an impossible run")
        total += run.size
    if total != version.size:
        raise VaultDamaged("a content list is not as long as its file")


def _replaced(runs: Sequence[ContentRun], pages: dict[bytes, list[ContentRun]]) -> list[ContentRun]:
    below: list[ContentRun] = []
    for run in runs:
        page = pages.get(run.id or b"")
        if page is None or sum(each.size for each in page) != run.size:
            raise VaultDamaged("a chunk-list page is not what its parent says")
        below.extend(page)
        if len(below) > RUNS_MAX:
            raise VaultDamaged("a chunk list is absurdly long")
    return below


def _coalesced(holder: Holder, rows: Sequence[FrameRow]) -> Iterator[ReadJob]:
    job: list[FrameRow] = []
    for row in rows:
        if job:
            end = job[-1].offset + job[-1].stored_size
            too_long = row.offset + row.stored_size - job[0].offset > RANGE_MAX
            if row.offset - end > GAP_MAX or too_long:
                yield ReadJob(holder, tuple(job))
                job = []
        job.append(row)
    if job:
        yield ReadJob(holder, tuple(job))
