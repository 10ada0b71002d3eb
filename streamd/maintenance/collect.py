"""Collection: delete what nothing needs, safely beside the running capture pipeline.

    survey    every holder of frames: which of its frames are still needed (`live`)
    move      needed frames of what shall go are copied, as they are, into new packs
    condemn   publish the condemn list G; from here on no look-up finds a condemned chunk
    quiesce   wait until every batch that may have looked before is committed
    re-check  a chunk that such a batch refers to, and that only a condemned object holds, cancels
    finalise  publish the final list F, delete what it says, forget it

A crash before F leaves a condemn list that the next run cancels; a crash after it leaves deletions
that the next run finishes. Duplicates that an interrupted move left are found dead by the next.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.catalog.objects import ObjectState
from streamd.errors import VaultDamaged
from streamd.format.frame import FrameRow, Origin, SealedBatch, SealedFrame
from streamd.format.keys import Role
from streamd.maintenance.generations import Generations
from streamd.maintenance.heal import read_bad_frames
from streamd.maintenance.live import LiveSet
from streamd.maintenance.recheck import find_cancelled
from streamd.maintenance.site import Site
from streamd.maintenance.verify_report import FrameId
from streamd.model.ids import CHUNK_ID_SIZE
from streamd.policy.collect_plan import Action, PackUse, plan_collection
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader, Holder, ReadJob
from streamd.vault.journal_reader import Damage
from streamd.vault.parallel import in_thread

_PACK_BYTES: Final = {Role.DATA: 16 * 1024 * 1024, Role.META: 8 * 1024 * 1024}
_READ_BYTES: Final = 4 * 1024 * 1024  # frames that stand side by side are read together
_UNLINK_BATCH: Final = 2_000  # chunks taken out of the index in one transaction

Quiesce = Callable[[], Awaitable[None]]
Progress = Callable[[str, int, int], None]  # step, done, of how many (0: unknown)


class KnownObject(NamedTuple):
    """An object as the catalog knows it."""

    number: int
    state: int
    size: int  # bytes


class Doomed(msgspec.Struct, frozen=True, kw_only=True):
    """What expiry has decided to drop. `sizes` has the bytes of each name."""

    roots: tuple[BlobName, ...] = ()
    segments: tuple[BlobName, ...] = ()  # in journal order: a prefix of the journal
    epochs: tuple[BlobName, ...] = ()
    sizes: dict[BlobName, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to drop."""
        return not (self.roots or self.segments or self.epochs)


class Outcome(msgspec.Struct):
    """What a collection did."""

    deleted: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    reclaimed_bytes: int = 0
    moved_bytes: int = 0
    is_postponed: bool = False
    damage: list[Damage] = field(default_factory=list)
    unheld_count: int = 0  # needed chunks that no readable object holds


def known_objects(connection: sqlite3.Connection) -> dict[str, KnownObject]:
    """Return every object by name."""
    return {
        name: KnownObject(number, state, size)
        for name, number, state, size in connection.execute(
            "SELECT name, number, state, size FROM object"
        )
    }


def newest_number(connection: sqlite3.Connection) -> int:
    """Return the number of the newest object."""
    row = connection.execute("SELECT coalesce(max(number), 0) FROM object").fetchone()
    return int(row[0])


class Collector:
    """One collection. `since` is the newest object's number from before the marking began."""

    def __init__(
        self,
        site: Site,
        live: LiveSet,
        chunks: ChunkReader,
        generations: Generations,
        *,
        since: int,
        known: dict[str, KnownObject],
    ) -> None:
        self._site = site
        self._live = live
        self._chunks = chunks
        self._generations = generations
        self._since = since
        self._known = known
        self._dropped: list[Holder] = []  # inline frames of segments that go
        self._packs: list[Holder] = []  # packs that go
        self._moves: list[tuple[Holder, list[FrameRow]]] = []
        self._written: list[int] = []
        self._bad: set[FrameId] = set()  # frames that a verification found damaged
        self.outcome = Outcome()

    def await_too(self, numbers: Iterable[int]) -> None:
        """Nothing is condemned before these objects are in the vault of record, too."""
        self._written.extend(numbers)

    async def run(
        self,
        doomed: Doomed,
        quiesce: Quiesce,
        is_durable: Callable[[Sequence[int]], Awaitable[bool]],
        progress: Progress,
    ) -> Outcome:
        """Collect. `is_durable` waits for objects to arrive in the vault of record."""
        progress("survey", 0, 0)
        await self._survey(set(doomed.segments))
        await self._move(progress)
        outcome = self.outcome
        outcome.damage += self._chunks.damage
        names = [*doomed.roots, *doomed.segments, *doomed.epochs]
        names += [holder.name for holder in self._packs]
        if not names:
            return outcome
        if not await is_durable(self._written):
            outcome.is_postponed = True
            return outcome
        await self._generations.condemn(names)
        await self._unlink(progress)
        await quiesce()
        outcome.cancelled = await self._recheck(doomed, names)
        cancelled = set(outcome.cancelled)
        delete = [name for name in names if name not in cancelled]
        await self._generations.finalise(delete, outcome.cancelled)
        progress("delete", 0, len(delete))
        sizes = {**doomed.sizes, **{holder.name: holder.size_bytes for holder in self._packs}}
        if not await self._generations.carry_out(is_durable):
            outcome.is_postponed = True
            return outcome
        outcome.deleted = [str(name) for name in delete]
        outcome.reclaimed_bytes = sum(sizes.get(name, 0) for name in delete)
        progress("delete", len(delete), len(delete))
        return outcome

    # -- survey ----------------------------------------------------------------------------------

    async def _survey(self, dropped: set[BlobName]) -> None:
        """Find out what each pack is needed for; what stays anyway answers first."""
        candidates: list[Holder] = []
        damaged: list[Holder] = []
        self._bad = await self._site.catalog.read(read_bad_frames)
        spoiled = {frame.name for frame in self._bad}
        async for holder in self._chunks.holders():
            if holder.name in spoiled and holder.name not in dropped:
                damaged.append(holder)
            elif holder.name in dropped:
                self._dropped.append(holder)
            elif self._may_go(holder):
                candidates.append(holder)
            else:
                await in_thread(partial(self._claim, holder))
        for holder in candidates:
            rows = await in_thread(partial(self._claim, holder))
            self._decide(holder, rows)
        for holder in damaged:  # what others have is not needed from these; the rest may be mended
            rows = await in_thread(partial(self._claim, holder))
            rows += await in_thread(partial(self._claim, holder, bad=True))
            if self._may_go(holder):
                self._decide(holder, rows)
        for holder in self._dropped:
            rows = await in_thread(partial(self._claim, holder))
            if rows:
                self._moves.append((holder, rows))
        self.outcome.unheld_count = self._live.count_unheld()

    def _may_go(self, holder: Holder) -> bool:
        """Whether this is a pack from before the run that is not on its way any more.

        A pack that the catalog does not know is an orphan; the re-check looks again.
        """
        known = self._known.get(holder.name)
        if known is None:
            return _is_pack(holder)
        return _is_pack(holder) and known.number <= self._since and known.state == ObjectState.VAULT

    def _number(self, holder: Holder) -> int:
        known = self._known.get(holder.name)
        return 0 if known is None else known.number

    def _claim(self, holder: Holder, *, bad: bool = False) -> list[FrameRow]:
        """Return the frames of a holder that are needed from here: the good ones, or the `bad`."""
        table, number = holder.frames.table, self._number(holder)
        return [
            row
            for row in table.frames
            if (FrameId(holder.name, holder.role, row.first_chunk) in self._bad) is bad
            and self._live.claim(table.ids_of(row), number)
        ]

    def _decide(self, holder: Holder, rows: list[FrameRow]) -> None:
        frames = holder.frames.table.frames
        use = PackUse(
            holder.name,
            holder.size_bytes,
            sum(row.stored_size for row in frames),
            tuple(row.stored_size for row in rows),
        )
        (decision,) = plan_collection([use]).decisions
        if decision.action is Action.KEEP:
            return
        self._packs.append(holder)
        if decision.action is Action.REPACK:
            self._moves.append((holder, rows))

    # -- move ------------------------------------------------------------------------------------

    async def _move(self, progress: Progress) -> None:
        for role in (Role.META, Role.DATA):
            moves = [move for move in self._moves if move[0].role is role]
            pack = _Pack(self._site, self._live, role)
            for done, (holder, rows) in enumerate(moves):
                progress(f"move {role.name.lower()}", done, len(moves))
                for job in _jobs(holder, rows):
                    frames = await self._read(job)
                    if frames is None:
                        self._spare(holder)
                        break
                    for row, frame in zip(job.rows, frames, strict=True):
                        self.outcome.moved_bytes += len(frame.data)
                        pack.add(holder.frames.origins[row.origin], frame)
                    if pack.is_full:
                        self._written.append(await pack.flush())
            if not pack.is_empty:
                self._written.append(await pack.flush())

    async def _read(self, job: ReadJob) -> list[SealedFrame] | None:
        """Return frames as they are stored, each of them proved; None if one is damaged."""
        data = await self._chunks.read(job)
        opened = await in_thread(lambda: list(self._chunks.open_frames(job, data)))
        for _, plain in opened:
            if isinstance(plain, VaultDamaged):
                self.outcome.damage.append(Damage(job.holder.name, str(plain)))
                return None
        return [_sealed(job, row, data) for row in job.rows]

    def _spare(self, holder: Holder) -> None:
        """A damaged pack stays as it is, for it may be mended; a damaged segment ends the run."""
        if not _is_pack(holder):
            raise VaultDamaged(f"{holder.name} is damaged: nothing was deleted", name=holder.name)
        self._packs.remove(holder)

    # -- condemn ---------------------------------------------------------------------------------

    async def _unlink(self, progress: Progress) -> None:
        """Take the chunks of what goes out of the index, or show where they are now."""
        gone = [*self._packs, *self._dropped]
        for done, holder in enumerate(gone):
            progress("condemn", done, len(gone))
            ids = holder.frames.table.id_list()
            for start in range(0, len(ids), _UNLINK_BATCH):
                part = ids[start : start + _UNLINK_BATCH]
                held = self._live.holders_of(part)
                number = self._number(holder)
                places = {chunk: held.get(chunk, 0) for chunk in part}
                self._live.doom([chunk for chunk in part if chunk not in held], holder.name)
                if number:
                    await self._site.catalog.write(_relink, number, places)

    async def _recheck(self, doomed: Doomed, names: Sequence[BlobName]) -> list[str]:
        """Return the names that must stay after all."""
        cancelled = await find_cancelled(self._site, self._live, self._since)
        orphans = [holder.name for holder in self._packs if holder.name not in self._known]
        known = await self._site.catalog.read(known_objects) if orphans else {}
        cancelled |= {name for name in orphans if name in known}
        if cancelled & set(doomed.segments):
            return list(names)  # only a prefix of the journal may go: nothing does this time
        return [name for name in names if name in cancelled]


class _Pack:
    """Frames on their way into a new pack."""

    def __init__(self, site: Site, live: LiveSet, role: Role) -> None:
        self._site = site
        self._live = live
        self._role = role
        self._batches: list[SealedBatch] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._size >= _PACK_BYTES[self._role]

    @property
    def is_empty(self) -> bool:
        return not self._batches

    def add(self, origin: Origin, frame: SealedFrame) -> None:
        """Add a frame of `origin`."""
        if self._batches and self._batches[-1].origin == origin:
            self._batches[-1].frames.append(frame)
        else:
            self._batches.append(SealedBatch(origin, [frame]))
        self._size += len(frame.data)

    async def flush(self) -> int:
        """Put the pack; its chunks are held by it from now on. Returns its object number."""
        batches, self._batches, self._size = self._batches, [], 0
        site = self._site
        encoded = await in_thread(partial(site.writer.encode_pack, batches, self._role))
        number = await site.publish_pack(encoded)
        ids = [chunk for batch in batches for frame in batch.frames for chunk in _ids(frame.ids)]
        await in_thread(partial(self._live.move, ids, number))
        return number


def _is_pack(holder: Holder) -> bool:
    return "/p/" in holder.name


def _ids(side_by_side: bytes) -> Iterator[bytes]:
    for at in range(0, len(side_by_side), CHUNK_ID_SIZE):
        yield side_by_side[at : at + CHUNK_ID_SIZE]


def _jobs(holder: Holder, rows: Iterable[FrameRow]) -> Iterator[ReadJob]:
    """Yield reads of frames that stand side by side."""
    group: list[FrameRow] = []
    for row in rows:
        if group:
            last = group[-1]
            end = last.offset + last.stored_size
            if row.offset != end or end - group[0].offset >= _READ_BYTES:
                yield ReadJob(holder, tuple(group))
                group = []
        group.append(row)
    if group:
        yield ReadJob(holder, tuple(group))


def _sealed(job: ReadJob, row: FrameRow, data: bytes) -> SealedFrame:
    table = job.holder.frames.table
    at = row.offset - job.rows[0].offset
    return SealedFrame(
        row.ordinal,
        row.codec,
        row.plain_size,
        table.ids_of(row),
        table.sizes_of(row),
        data[at : at + row.stored_size],
    )


def _relink(connection: sqlite3.Connection, number: int, places: dict[bytes, int]) -> None:
    """Chunks of object `number` are elsewhere, or (0) nowhere any more."""
    connection.executemany(
        "DELETE FROM chunk WHERE id = ? AND object = ?",
        [(chunk, number) for chunk, place in places.items() if place <= 0],
    )
    connection.executemany(
        "UPDATE chunk SET object = ? WHERE id = ? AND object = ?",
        [(place, chunk, number) for chunk, place in places.items() if place > 0],
    )
