"""Prove the vault: what is listed, what it says, and at the highest level every byte of it.

    list       names, sizes and density of the journals: one listing, nothing is read
    structure  every root and segment is authenticated, every replay compared with the next
               checkpoint, and everything that any kept state needs is in some readable index
    full       every object is read, every pack compared with its name, every chunk with its id

Damage is reported twice: as objects, and as the paths and versions that cannot be had any more.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import pairwise
from typing import Final

from streamd.effects import Clock
from streamd.errors import NotFound, VaultDamaged
from streamd.format import envelope, layout, pack
from streamd.format.checkpoint import CheckpointRoot, JournalMark
from streamd.format.keys import Role
from streamd.format.segment import Segment
from streamd.maintenance.live import LiveSet
from streamd.model.entry import FileVersion
from streamd.model.ids import SourceId, WriterId
from streamd.model.record import SOURCE_KEY, Op, Record, parse_version_key
from streamd.storage.port import BlobInfo
from streamd.vault.chunk_reader import Holder, ReadJob
from streamd.vault.journal_reader import Damage, JournalReader, follows
from streamd.vault.parallel import OBJECT_FAULTS, in_thread, in_waves
from streamd.vault.state_reader import CheckpointRow, StateReader
from streamd.vault.tree_state import TreeState, decode_version
from streamd.vault.vault import Vault

AFFECTED_MAX: Final = 10_000  # rows of the report; the count goes on
_INSTANTS_MAX: Final = 200  # states looked through for affected paths, for each source
_PACK_WIDTH: Final = 4  # whole packs in memory at a time
_BATCH: Final = 500
_SIZE_MIN: Final = envelope.HEADER_AT


class Level(StrEnum):
    """How deep to look; each level contains those before it."""

    LIST = "list"
    STRUCTURE = "structure"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Affected:
    """A version that cannot be had whole, at a path that it has in a kept state."""

    source: str
    path: bytes
    at_us: int  # an instant at which this is the version
    mtime_ns: int


@dataclass(slots=True)
class VerifyReport:
    """What was looked at, and what is wrong."""

    level: Level
    object_count: int = 0
    object_bytes: int = 0
    read_bytes: int = 0
    segment_count: int = 0
    checkpoint_count: int = 0
    pack_count: int = 0
    chunk_count: int = 0  # needed by some kept state
    missing_count: int = 0  # of these, nowhere to be had
    strangers: list[str] = field(default_factory=list)  # objects whose names mean nothing here
    damage: list[Damage] = field(default_factory=list)
    affected: list[Affected] = field(default_factory=list)
    affected_count: int = 0
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged. Strangers do no harm."""
        return not self.damage and not self.missing_count


class Verifier:
    """Looks at one vault, once."""

    def __init__(self, vault: Vault, level: Level, *, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock
        self._states = StateReader(vault)
        self._chunks = self._states.chunks
        self.report = VerifyReport(level)

    async def run(self) -> VerifyReport:
        """Verify. Raises KeyRejected beyond level list on a write-only host, and what the store
        raises when it cannot be reached; damage is in the report.
        """
        started = self._clock.monotonic()
        await self._verify_listing()
        if self.report.level is not Level.LIST:
            await self._verify_structure()
        self.report.damage = list(dict.fromkeys(self.report.damage))
        self.report.seconds = self._clock.monotonic() - started
        return self.report

    def _found(self, name: str, what: str) -> None:
        self.report.damage.append(Damage(name, what))

    # -- list ------------------------------------------------------------------------------------

    async def _verify_listing(self) -> None:
        domain = self._vault.keys.domain
        packs_at, has_checkpoint = layout.pack_prefix(domain), False
        async for info in self._vault.store.scan(layout.domain_prefix(domain)):
            self.report.object_count += 1
            self.report.object_bytes += info.size_bytes
            if not _is_known(info.name):
                self.report.strangers.append(info.name)
                continue
            has_checkpoint |= layout.parse_checkpoint_name(info.name) is not None
            what = _size_fault(info, is_pack=info.name.startswith(packs_at))
            if what:
                self._found(info.name, what)
        for journal in self._states.journals():
            await self._verify_density(journal, has_checkpoint=has_checkpoint)

    async def _verify_density(self, journal: JournalReader, *, has_checkpoint: bool) -> None:
        """Collection removes segments from the front only: whatever is left must be dense."""
        rows = await journal.list_segments()
        for last, row in pairwise(rows):
            if not follows(row.position, last.position):
                self._found(row.name, "segments between this one and the one before are missing")
        if rows and rows[0].position.seq and not has_checkpoint:
            self._found(rows[0].name, "the journal's beginning is gone, and there is no checkpoint")

    # -- structure -------------------------------------------------------------------------------

    async def _verify_structure(self) -> None:
        live = LiveSet()
        try:
            for journal in self._states.journals():
                await self._verify_journal(journal, live)
            roots = await self._verify_checkpoints(live)
            await self._verify_replays(roots)
            try:
                await live.mark_lists(self._chunks)
            except VaultDamaged as error:
                self._found("chunk lists", str(error))
            if self.report.level is Level.FULL:
                await self._read_everything()
            await self._verify_closure(live)
        finally:
            live.close()
        self.report.damage.extend(self._chunks.damage)

    async def _verify_journal(self, journal: JournalReader, live: LiveSet) -> None:
        async for segment in journal.journal(on_damage=self.report.damage.append):
            self.report.segment_count += 1
            try:
                records = await in_thread(partial(segment.records, self._vault.keys.secret_for))
                await live.mark_records(records)
            except VaultDamaged as error:
                self._found(journal.name_of(segment.position), str(error))

    async def _verify_checkpoints(
        self, live: LiveSet
    ) -> dict[SourceId, list[tuple[CheckpointRow, CheckpointRoot]]]:
        roots: dict[SourceId, list[tuple[CheckpointRow, CheckpointRoot]]] = {}
        for row in await self._states.checkpoints():
            self.report.checkpoint_count += 1
            try:
                root = await self._states.read_checkpoint(row.name)
                (await self._states.load_checkpoint(root, check=True)).close()
                await live.mark_checkpoint(root, self._chunks)
            except OBJECT_FAULTS as error:
                self._found(row.name, str(error))
                continue
            roots.setdefault(row.source, []).append((row, root))
        return roots

    async def _verify_replays(
        self, roots: dict[SourceId, list[tuple[CheckpointRow, CheckpointRoot]]]
    ) -> None:
        """Replay from each checkpoint to the next, where the journal between them is kept."""
        for chain in roots.values():
            for (_, first), (row, second) in pairwise(chain):
                with await self._states.load_checkpoint(first) as state:
                    if await self._replay(state, second) and state.state != second.state:
                        self._found(row.name, "is not what the journal before it leads to")

    async def _replay(self, state: TreeState, until: CheckpointRoot) -> bool:
        """Bring `state` up to the marks of a root; return whether the journal is there."""
        known = {mark.writer: mark for mark in state.marks}
        for mark in until.marks:
            start = known.get(mark.writer)
            if start is None:
                return False
            if (start.epoch, start.seq) < (mark.epoch, mark.seq) and not await self._replay_one(
                state, start, mark
            ):
                return False
        return True

    async def _replay_one(self, state: TreeState, start: JournalMark, end: JournalMark) -> bool:
        journal = JournalReader(self._vault, WriterId(end.writer))
        stopped: list[Damage] = []
        async for segment in journal.journal(start, on_damage=stopped.append):
            await in_thread(partial(self._apply, state, segment))
            if segment.position == (end.epoch, end.seq):
                return True
        return False

    def _apply(self, state: TreeState, segment: Segment) -> None:
        if state.source not in segment.sources:
            return
        number = segment.sources.index(state.source)
        records = segment.records(self._vault.keys.secret_for)
        try:
            state.apply(record for record in records if record.source_ix == number)
        except VaultDamaged as error:
            position = segment.position
            self._found(f"journal segment {position.epoch:x}/{position.seq:x}", str(error))

    # -- full ------------------------------------------------------------------------------------

    async def _read_everything(self) -> None:
        domain = self._vault.keys.domain
        packs = [
            info
            async for info in self._vault.store.scan(layout.pack_prefix(domain))
            if layout.parse_pack_name(info.name) is not None
        ]
        async for info, result in in_waves(packs, self._read_pack, width=_PACK_WIDTH):
            if isinstance(result, Exception):
                self._found(info.name, str(result))
        async for holder in self._chunks.holders():
            if layout.parse_pack_name(holder.name) is None:
                await self._read_inline(holder)

    async def _read_pack(self, info: BlobInfo) -> None:
        data = await self._vault.store.get(info.name)
        self.report.read_bytes += len(data)
        await in_thread(partial(pack.verify_pack_name, info.name, data))
        # The name is right, so the index is the one that was written: now what it promises.
        frames = pack.decode_pack_index(data, self._vault.keys.secret_for)
        role = Role(envelope.parse(data, envelope.Kind.PACK).header.r)
        await self._open_all(Holder(info.name, info.size_bytes, role, frames), data)

    async def _read_inline(self, holder: Holder) -> None:
        try:
            data = await self._vault.store.get(holder.name)
            self.report.read_bytes += len(data)
            await self._open_all(holder, data)
        except OBJECT_FAULTS as error:
            self._found(holder.name, str(error))

    async def _open_all(self, holder: Holder, data: bytes) -> None:
        rows = holder.frames.table.frames
        if not rows:
            return
        job = ReadJob(holder, tuple(rows))
        part = memoryview(data)[job.offset :]

        def check() -> list[str]:
            opened = self._chunks.open_frames(job, part)
            return [str(plain) for _, plain in opened if isinstance(plain, VaultDamaged)]

        for what in await in_thread(check):
            self._found(holder.name, what)

    # -- closure ---------------------------------------------------------------------------------

    async def _verify_closure(self, live: LiveSet) -> None:
        """Everything that some kept state needs must be in a readable object."""
        spoiled = {damage.name for damage in self.report.damage}
        number, packs = 0, set[str]()
        async for holder in self._chunks.holders():
            number += 1
            if layout.parse_pack_name(holder.name) is not None:
                packs.add(holder.name)
            if holder.name in spoiled and self.report.level is Level.FULL:
                await self._claim_good(live, holder, number)
            else:
                await in_thread(partial(live.claim, holder.frames.table.ids, number))
        self.report.pack_count = len(packs)
        missing = await in_thread(partial(self._missing, live))
        self.report.missing_count = len(missing)
        if missing:
            await self._name_affected(missing)

    async def _claim_good(self, live: LiveSet, holder: Holder, number: int) -> None:
        """Of a damaged object, claim the frames that open."""
        try:
            data = await self._vault.store.get(holder.name)
        except OBJECT_FAULTS:
            return
        rows = holder.frames.table.frames
        job = ReadJob(holder, tuple(rows))
        part = memoryview(data)[job.offset :] if rows else memoryview(b"")
        for row, plain in await in_thread(lambda: list(self._chunks.open_frames(job, part))):
            if not isinstance(plain, VaultDamaged):
                live.claim(holder.frames.table.ids_of(row), number)

    def _missing(self, live: LiveSet) -> set[bytes]:
        missing: set[bytes] = set()
        batch: list[bytes] = []
        for chunk in live.all_ids():
            self.report.chunk_count += 1
            batch.append(chunk)
            if len(batch) == _BATCH:
                missing.update(set(batch) - live.holders_of(batch).keys())
                batch = []
        missing.update(set(batch) - live.holders_of(batch).keys())
        return missing

    async def _name_affected(self, missing: set[bytes]) -> None:
        """Name the paths whose content lies in `missing`, in every kept state that has them."""
        seen: set[tuple[SourceId, bytes, int]] = set()
        for source, instants in (await self._instants(missing)).items():
            for at_us in sorted(instants)[-_INSTANTS_MAX:]:
                await self._look_through(source, at_us, missing, seen)

    async def _instants(self, missing: set[bytes]) -> dict[SourceId, set[int]]:
        """Return the instants at which an affected version may be found: source -> µs."""
        found: dict[SourceId, set[int]] = {}
        for row in await self._states.checkpoints():
            found.setdefault(row.source, set()).add(row.at_ms * 1000 + 999)
        for journal in self._states.journals():
            async for head, records in journal.records():
                for record in records:
                    version = _version_in(record)
                    if version is not None and await self._is_affected(version, missing):
                        source = head.sources[record.source_ix]
                        found.setdefault(source, set()).add(head.start_us + record.dt_us)
        return found

    async def _look_through(
        self,
        source: SourceId,
        at_us: int,
        missing: set[bytes],
        seen: set[tuple[SourceId, bytes, int]],
    ) -> None:
        try:
            state = await self._states.state_at(source, at_us)
        except (*OBJECT_FAULTS, NotFound):
            return
        with state:
            name = state.info().name if state.get(SOURCE_KEY) else "?"
            for entry in state.walk():
                version = entry.version
                if version is None or not version.content:
                    continue
                key = (source, entry.path, version.ctime_ns or version.mtime_ns)
                if key not in seen and await self._is_affected(version, missing):
                    seen.add(key)
                    self._affects(Affected(name, entry.path, at_us, version.mtime_ns))

    def _affects(self, affected: Affected) -> None:
        self.report.affected_count += 1
        if len(self.report.affected) < AFFECTED_MAX:
            self.report.affected.append(affected)

    async def _is_affected(self, version: FileVersion, missing: set[bytes]) -> bool:
        if any(run.id in missing for run in version.content):
            return True
        if not version.levels:
            return False
        try:
            return any(run.id in missing for run in await self._chunks.expand(version))
        except VaultDamaged:
            return True


def _is_known(name: str) -> bool:
    return any(
        parse(name) is not None
        for parse in (
            layout.parse_segment_name,
            layout.parse_epoch_name,
            layout.parse_pack_name,
            layout.parse_checkpoint_name,
            layout.parse_condemn_name,
        )
    )


def _size_fault(info: BlobInfo, *, is_pack: bool) -> str:
    """Say what is wrong with an object's size: padding leaves few sizes possible."""
    size = info.size_bytes
    if not _SIZE_MIN < size <= envelope.OBJECT_SIZE_MAX:
        return f"{size} bytes are no possible size"
    if layout.parse_epoch_name(info.name) is not None:
        return ""  # the only kind that is not padded
    padded = pack.padded_pack_size(size) if is_pack else envelope.padme(size)
    return "" if padded == size else "cut off: its size is none that padding leaves"


def _version_in(record: Record) -> FileVersion | None:
    if record.op != Op.SET or parse_version_key(record.key) is None:
        return None
    return decode_version(record.value)
