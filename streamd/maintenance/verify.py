"""Prove the vault: what is listed, what it says, and at the highest level every byte of it.

    list       names, sizes, dense journals, and what the index remembers: one listing
    structure  every root, run and segment is authenticated, every replay compared with the next
               checkpoint, and everything that any kept state needs is in some readable index
    sample     a random part of the frames is read and hashed: enough to find a thousandth damaged
    full       every object is read, every pack compared with its name, every chunk with its id

Damage is reported twice: as objects, and as the paths and versions that cannot be had any more.
"""

from collections.abc import Collection, Mapping
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import Final

from streamd.effects import Clock
from streamd.errors import VaultDamaged
from streamd.format import layout
from streamd.format.checkpoint import CheckpointRoot, JournalMark
from streamd.format.layout import JournalPosition
from streamd.format.segment import Segment
from streamd.maintenance.affected import AffectedSearch
from streamd.maintenance.live import LiveSet
from streamd.maintenance.verify_content import ContentCheck
from streamd.maintenance.verify_listing import ListingCheck, is_known_name, prove
from streamd.maintenance.verify_report import FrameId, Level, VerifyReport
from streamd.model.ids import SourceId, WriterId
from streamd.policy.sampling import sample_size
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import Holder
from streamd.vault.history_reader import HistoryReader
from streamd.vault.index_reader import IndexGeneration, generations, read_manifest
from streamd.vault.journal_reader import Damage, JournalReader
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.state_reader import CheckpointRow, StateReader
from streamd.vault.tree_state import TreeState
from streamd.vault.vault import Vault

_BATCH: Final = 500
_Marks = dict[tuple[bytes, JournalPosition], bytes]


class Verifier:
    """Looks at one vault, once."""

    def __init__(
        self,
        vault: Vault,
        level: Level,
        *,
        clock: Clock,
        known: Mapping[str, int] | None = None,
        stored: Collection[str] = (),
        bad: Collection[FrameId] = (),
        seed: int = 0,
        draws: int | None = None,
    ) -> None:
        """Prepare to look.

        `known` has the objects that this host remembers, if it does, `stored` those of them that
        are in the vault of record, and `bad` the frames that an earlier look found damaged; `seed`
        and `draws` say which frames, and how many of them, level sample reads.
        """
        self._vault = vault
        self._clock = clock
        self._states = StateReader(vault)
        self._chunks = self._states.chunks
        self._seed = seed
        self._draws = sample_size() if draws is None else draws
        self.report = VerifyReport(level, bad_frames=set(bad))
        self._bad_before = {frame.name for frame in bad}
        self._listing = ListingCheck(vault, self.report, known, stored)

    async def run(self) -> VerifyReport:
        """Verify. Raises KeyRejected beyond level list on a write-only host, and what the store
        raises when it cannot be reached; damage is in the report.
        """
        started = self._clock.monotonic()
        await self._listing.run(self._states.journals())
        if self.report.level is not Level.LIST:
            await self._verify_structure()
        self.report.seconds = self._clock.monotonic() - started
        return self.report

    # -- structure -------------------------------------------------------------------------------

    async def _verify_structure(self) -> None:
        with closing(LiveSet()) as live:
            hashes = await self._verify_history()
            for journal in self._states.journals():
                await self._verify_journal(journal, live, hashes)
            await self._verify_indexes()
            await self._verify_control()
            roots = await self._verify_checkpoints(live)
            await self._verify_replays(roots)
            await live.mark_lists(
                self._chunks, lambda error: self.report.found("chunk lists", str(error))
            )
            content = ContentCheck(self._vault, self._chunks, self.report)
            if self.report.level is Level.SAMPLE:
                self.report.seed = self._seed
                await content.sample(self._draws, self._seed, self._clock.now_us())
            elif self.report.level is Level.FULL:
                await content.everything()
            await self._verify_closure(live)
        for damage in self._chunks.damage:
            self.report.found(damage.name, damage.what)
        if not self.report.missing:
            self._excuse_old_damage()

    def _excuse_old_damage(self) -> None:
        """What was found damaged before, and is not needed any more, waits for collection."""
        old = [damage for damage in self.report.damage if damage.name in self._bad_before]
        if old:
            self.report.damage = [each for each in self.report.damage if each not in old]
            self.report.notes += [
                f"{damage.name}: {damage.what}; nothing needs it any more" for damage in old
            ]

    async def _verify_journal(self, journal: JournalReader, live: LiveSet, hashes: _Marks) -> None:
        def note(damage: Damage) -> None:
            self.report.found(damage.name, damage.what)

        async for segment in journal.journal(on_damage=note):
            self.report.segment_count += 1
            name = journal.name_of(segment.position)
            stated = hashes.get((journal.writer, segment.position), segment.hash)
            if stated != segment.hash:
                self.report.found(name, "a history run was made from another segment")
            try:
                records = await in_thread(partial(segment.records, self._vault.keys.secret_for))
                await live.mark_records(records)
            except VaultDamaged as error:
                self.report.found(name, str(error))

    async def _verify_history(self) -> _Marks:
        """Read every history run; return what the last segments they cover must be."""
        hashes: _Marks = {}
        reader = HistoryReader(self._vault)
        for name in await reader.names():
            self.report.run_count += 1
            try:
                root, _ = await reader.read_whole(name)
            except OBJECT_FAULTS as error:
                self.report.found(name, str(error))
                continue
            hashes[root.cover.writer, root.cover.last] = root.cover.hash
        return hashes

    async def _verify_indexes(self) -> None:
        """Read every index generation that is complete."""
        domain = self._vault.keys.domain
        for generation, names in (await generations(self._vault)).items():
            name = BlobName(layout.index_manifest_name(domain, generation))
            if name not in names:
                continue
            try:
                manifest = await read_manifest(self._vault, name)
            except OBJECT_FAULTS as error:
                self.report.found(name, str(error))
                continue
            index = IndexGeneration(self._vault, manifest, name)
            for row in manifest.shards:
                self.report.run_count += 1
                try:
                    await index.read(row)
                except OBJECT_FAULTS as error:
                    self.report.found(index.full_name(row), str(error))

    async def _verify_control(self) -> None:
        """Read the epoch records, the condemn lists and the final lists."""
        domain = layout.domain_prefix(self._vault.keys.domain)
        for letter in ("e", "g"):
            async for info in self._vault.store.scan(f"{domain}{letter}/"):
                if not is_known_name(info.name):
                    continue
                try:
                    data = await self._vault.store.get(info.name)
                    await in_thread(partial(prove, self._vault, info.name, data))
                except OBJECT_FAULTS as error:
                    self.report.found(info.name, str(error))

    async def _verify_checkpoints(
        self, live: LiveSet
    ) -> dict[SourceId, list[tuple[CheckpointRow, CheckpointRoot]]]:
        roots: dict[SourceId, list[tuple[CheckpointRow, CheckpointRoot]]] = {}
        for row in await self._states.checkpoints():
            self.report.checkpoint_count += 1
            try:
                root = await self._states.read_checkpoint(row.name)
                live.add(page.id for page in root.pages)
                (await self._states.load_checkpoint(root, check=True)).close()
                await live.mark_checkpoint(root, self._chunks)
            except OBJECT_FAULTS as error:
                self.report.found(row.name, str(error))
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
                        self.report.found(row.name, "is not what the journal before it leads to")

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
            self.report.found(f"journal segment {position.epoch:x}/{position.seq:x}", str(error))

    # -- closure ---------------------------------------------------------------------------------

    async def _verify_closure(self, live: LiveSet) -> None:
        """Everything that some kept state needs must be in a frame that can be read."""
        number, packs = 0, set[str]()
        async for holder in self._chunks.holders():
            number += 1
            if layout.parse_pack_name(holder.name) is not None:
                packs.add(holder.name)
            await in_thread(partial(self._claim, live, holder, number))
        self.report.pack_count = len(packs)
        missing = await in_thread(partial(self._missing, live))
        self.report.missing = missing
        self.report.missing_count = len(missing)
        if missing:
            await AffectedSearch(self._states, missing, self.report).run()

    def _claim(self, live: LiveSet, holder: Holder, number: int) -> None:
        """Say that the frames of a holder have their chunks, but for those that do not open."""
        table, bad = holder.frames.table, self.report.bad_frames
        if not any(frame.name == holder.name for frame in bad):
            live.claim(table.ids, number)
            return
        for row in table.frames:
            if FrameId(holder.name, holder.role, row.first_chunk) not in bad:
                live.claim(table.ids_of(row), number)

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
