"""The capture pipeline, readable as a list: read → chunk → seal → pack → commit.

                 findings                 packs                 segments
    survey ──▶ [intake] ──▶ read+chunk+hash ──▶ dedupe+seal ──▶ [pack] ──▶ put
                  │        one thread hop, per batch  │                     │
                  └── budget of bytes in flight ──────┴────▶ [commit, in order] ──▶ put ──▶ ack

Batches flow, never chunks. A worker carries one batch through reading and sealing; several workers
overlap. Lane LIVE is served first everywhere, and batches of one source and lane are committed in
the order in which they were found. Nothing is acknowledged before it is durable in the local vault.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Final

from streamd.catalog import cuts
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import EVER
from streamd.effects import Clock
from streamd.format.frame import SealedBatch
from streamd.format.keys import Role
from streamd.format.pack import EncodedObject
from streamd.model.record import Gap, Mark
from streamd.pipeline import sampling, second_look
from streamd.pipeline.budget import Budget
from streamd.pipeline.carrying import Account, Carried, Carrier
from streamd.pipeline.channel import BULK, LIVE, Channel, Closed
from streamd.pipeline.commit import CommitResult, Entry, Journal
from streamd.pipeline.cut import Cut
from streamd.pipeline.dedup import DedupIndex, Lane
from streamd.pipeline.findings import BATCH_BYTES_MAX, Finding, Found
from streamd.pipeline.jobs import Job, Observer, Parked, Stream, add_links, begin, in_order, take
from streamd.pipeline.packer import Packer
from streamd.pipeline.seal import SealedContent, Sealer
from streamd.pipeline.tails import Tails
from streamd.policy.texture import Texture
from streamd.sources.port import Piece, ReadRequest, ReadResult
from streamd.storage.port import BlobName, BlobStore

WORKERS: Final = 4  # the first takes live changes only, so large files never hold those up
SLOW_MAX: Final = 2  # programs whose output is being captured, at one time
INTAKE_ITEMS_MAX: Final = 16
COMMIT_BATCHES_MAX: Final = 64
COMMIT_INTENTS_MAX: Final = 8192
INLINE_BATCH_MAX: Final = 1024 * 1024  # a live batch with more new data goes into a pack
SEALING_MAX: Final = 2  # pieces of one large file that are sealed at a time
LIVE_CUT_MAX: Final = 32  # findings of one live cut that are committed as a whole
ENTRY_COST: Final = 2560  # bytes of memory that one entry takes until it is committed, measured


class Pipeline:
    """Shared by all sources. `run` it in a TaskGroup; `submit` jobs; `drain` at the end."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        journal: Journal,
        store: BlobStore,
        sealer: Sealer,
        index: DedupIndex,
        packer: Callable[[Callable[[EncodedObject], Awaitable[int]]], Packer],
        budget: Budget,
        threads: Executor,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._store = store
        self._sealer = sealer
        self._index = index
        self._threads = threads
        self._clock = clock
        self._observer = observer
        self.budget = budget
        self._pieces_sealing = 0  # of large files, that are sealed or wait for it
        self.backlog_bytes = 0  # durable here, not yet in the vault of record; told from outside
        self.on_durable: Callable[[], None] = lambda: None  # something new is in the local vault
        self.packer = packer(self._publish_pack)
        self.intake: Channel[Job] = Channel(
            "read", items_max=INTAKE_ITEMS_MAX, bytes_max=INTAKE_ITEMS_MAX * BATCH_BYTES_MAX
        )
        self._sequences: dict[Lane, int] = {}
        self._next: dict[Lane, int] = {}  # whose turn it is to be committed
        self._committed: dict[Lane, int] = {}  # how many are
        self._tails = Tails()
        self._carrier = Carrier(sealer, self._tails, clock)
        self._parked: dict[Lane, dict[int, Parked]] = {}
        self._wake = asyncio.Event()
        budget.on_wait = self._wake.set  # a live cut that is not whole yet must not hold it
        self._workers: asyncio.TaskGroup | None = None
        self._slow_turns = asyncio.Semaphore(SLOW_MAX)
        self._draining = False
        self._open_jobs = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._generation_waiters: deque[tuple[dict[Lane, int], asyncio.Event]] = deque()

    @property
    def sealing_count(self) -> int:
        """Batches, and pieces of large files, that are sealed or wait for nothing else."""
        return self._carrier.sealing_count + self._pieces_sealing

    # -- intake ----------------------------------------------------------------------------------

    async def submit(
        self,
        stream: Stream,
        lane: int,
        finding: Finding,
        *,
        first_us: int,
        survey_done: int = 0,
        gaps: Iterable[Gap] = (),
        marks: Iterable[Mark] = (),
        cut: Cut | None = None,
    ) -> None:
        """Hand in a finding; waits while the pipeline is full."""
        key = (stream.number, lane)
        job = Job(stream, key, -1, finding, first_us, survey_done, list(gaps), list(marks), cut=cut)
        if cut is not None:
            cut.enter()
        await self.intake.send(job, finding.expected_bytes, min(lane, BULK))
        # Only what is inside gets a number: whoever is cancelled while waiting leaves no hole.
        job.sequence = self._sequences.get(key, 0)
        self._sequences[key] = job.sequence + 1
        self._open_jobs += 1
        self._idle.clear()

    def let_go(self, cut: Cut) -> None:
        """Commit what is there of a cut: its end will not come."""
        cut.is_held = False
        self._wake.set()

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()

    async def quiesce(self, source: int | None = None) -> None:
        """Wait until every finding handed in before this call, of `source` or all, is in."""
        goals = {
            lane: count
            for lane, count in self._sequences.items()
            if count and source in {None, lane[0]}
        }
        if all(self._committed.get(lane, 0) >= count for lane, count in goals.items()):
            return
        done = asyncio.Event()
        self._generation_waiters.append((goals, done))
        self._wake.set()
        await self.packer.flush()
        await done.wait()

    # -- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the stages until `drain`. Cancelling drops what is in flight: nothing is lost."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.packer.run(), name="pack")
            committing = group.create_task(self._commit_loop(), name="commit")
            async with asyncio.TaskGroup() as workers:
                self._workers = workers
                for number in range(WORKERS):
                    lanes = (LIVE,) if number == 0 else (LIVE, BULK)
                    workers.create_task(self._work(lanes), name=f"capture.{number}")
            await self.packer.flush()
            await self._idle.wait()
            self.packer.full.close()
            committing.cancel()

    async def drain(self) -> None:
        """Take no more findings and finish those inside."""
        self._draining = True
        self.intake.close()
        self._wake.set()
        await self.packer.flush()

    async def _work(self, lanes: tuple[int, ...]) -> None:
        while True:
            try:
                job = await self.intake.receive(lanes)
            except Closed:
                return
            if job.stream.slow is not None and job.finding.is_large and self._workers is not None:
                name = f"capture:{job.stream.identity.name}"
                self._workers.create_task(self._carry_slowly(job), name=name)
            else:
                await self._carry(job)

    async def _carry(self, job: Job) -> None:
        pieces_max = SEALING_MAX + 2 if job.finding.is_large else 2
        expected = min(job.finding.expected_bytes, pieces_max * BATCH_BYTES_MAX)
        cost = expected + ENTRY_COST * len(job.finding.found)
        await self.budget.take(cost, live=job.lane[1] == LIVE)
        job.held_bytes = cost
        parked = await (self._large(job) if job.finding.is_large else self._batch(job))
        self._park(parked)

    async def _carry_slowly(self, job: Job) -> None:
        """Wait for a program beside the workers: it may take hours, and they have work."""
        async with self._slow_turns:
            await self._carry(job)

    # -- read and seal ---------------------------------------------------------------------------

    async def _batch(self, job: Job) -> Parked:
        """Carry an ordinary batch through reading and sealing: one hop, where nothing moved."""
        parked, cut = Parked(job, begin(job), []), job.cut
        entries = [entry for entry in job.finding.found if entry.read]
        has_links = len(entries) < len(job.finding.found)
        if cut is not None:
            again = [(entry, cut.known(entry)) for entry in entries]
            entries = [entry for entry, known in again if known is None]
            parked.ready.intents += [known for _, known in again if known is not None]
            parked.ready.good_paths += [entry.path for entry, known in again if known is not None]
        if entries:
            read_at_ns = self._clock.now_us() * 1000
            carried = await self._carried(parked, self._carrier.carry, entries, read_at_ns)
            if carried.account is None:
                await self._settle(parked, entries, carried.results)
                await self._describe(parked, entries, carried.results, read_at_ns)
            else:
                await self._record(parked, carried.account)
        if len(entries) < len(parked.ready.intents):
            in_order(parked)
        if has_links:
            add_links(parked)
        return parked

    async def _settle(
        self, parked: Parked, entries: list[Found], results: list[ReadResult]
    ) -> None:
        """Look again at entries that changed in between, so that the cut is of one moment."""
        stream, new_fid = parked.job.stream, parked.job.stream.new_fid
        loop = asyncio.get_running_loop()
        for _ in range(second_look.ROUNDS_MAX):
            positions = second_look.unsettled(results)
            if not positions or new_fid is None:
                return
            seen = await loop.run_in_executor(
                self._threads, second_look.look, stream.source, entries, positions, new_fid
            )
            fresh: list[ReadResult] = []
            if seen.again:
                again = list(seen.again.values())
                fresh = (await self._carried(parked, self._carrier.read_and_seal, again)).results
            parked.ready.gone = [*parked.ready.gone, *seen.gone.values()]
            seen.take_into(entries, results, fresh)
            if not fresh:
                return

    async def _carried(
        self, parked: Parked, how: Callable[..., Carried], entries: list[Found], *more: int
    ) -> Carried:
        """Have a thread read and seal entries, and send on what is new; the content is let go."""
        job, loop = parked.job, asyncio.get_running_loop()
        carried = await loop.run_in_executor(
            self._threads, how, job.stream.source, entries, job.lane, job.sequence, *more
        )
        size = carried.read_bytes
        self._observer.step("read", carried.read_seconds, size, size)
        stored = await self._sealed(parked, carried.content, size, carried.seal_seconds)
        kept = min(stored, job.held_bytes) + ENTRY_COST * len(job.finding.found)
        job.held_bytes = self.budget.adjust(job.held_bytes, kept)
        return carried

    async def _large(self, job: Job) -> Parked:
        """Carry one large file, piece by piece: one is read while the ones before are sealed."""
        (entry,) = job.finding.found
        loop, threads = asyncio.get_running_loop(), job.stream.slow or self._threads
        parked = Parked(job, begin(job), [])
        read_at_ns = self._clock.now_us() * 1000
        key = self._sealer.key_of(job.stream.number, entry)
        known = await self._catalog.read(cuts.find, key) if key else b""
        tail = None if entry.is_fresh else self._tails.of(entry.fid)
        request = ReadRequest(entry.path, entry.stat, tail, entry.generation, known)
        large = await loop.run_in_executor(threads, job.stream.source.open_large, request)
        pieces: list[Piece] = []
        texture = Texture.PLAIN
        room = asyncio.Semaphore(SEALING_MAX)  # the memory of a large file: so many pieces and one
        try:
            async with asyncio.TaskGroup() as sealing:
                while True:
                    started = loop.time()
                    part = await loop.run_in_executor(threads, large.next)
                    if part is None:
                        break
                    arena, found = part
                    size = sum(piece.size for piece in found if piece.id is not None)
                    if found and not pieces:
                        texture = sampling.sampled(arena, found)
                    self._observer.step("read", loop.time() - started, size, size)
                    pieces.extend(found)
                    await room.acquire()
                    done = sealing.create_task(
                        self._seal(parked, arena, found, size), name=f"seal.{job.sequence}"
                    )
                    done.add_done_callback(lambda _: room.release())
                    del part, arena  # its memory is free when it is sealed
            result = await loop.run_in_executor(threads, large.finish)
        finally:
            large.close()
        result.pieces, result.texture = pieces, texture
        parked.ready.cuts = self._sealer.cuts_of(key, result)
        await self._describe(parked, [entry], [result], read_at_ns)
        return parked

    async def _seal(self, parked: Parked, arena: memoryview, pieces: list[Piece], size: int) -> int:
        """Seal the new chunks among `pieces` and send them on; returns the bytes they take."""
        job, loop = parked.job, asyncio.get_running_loop()
        started = loop.time()
        self._pieces_sealing += 1
        try:
            content = await loop.run_in_executor(
                self._threads, self._sealer.seal_pieces, arena, pieces, job.lane, job.sequence
            )
        finally:
            self._pieces_sealing -= 1
        return await self._sealed(parked, content, size, loop.time() - started)

    async def _sealed(
        self, parked: Parked, content: SealedContent, size: int, seconds: float
    ) -> int:
        """Send on what was sealed of `size` bytes that were read; returns the bytes it takes."""
        job, ready = parked.job, parked.ready
        stored = content.data.stored_size if content.data is not None else 0
        self._observer.step("seal", seconds, size, stored)
        new_count = len(content.new_ids)
        self._observer.chunks(new_count, content.chunk_count - new_count)
        self._observer.read(job.stream.identity.name, size, stored, content.duplicate_bytes)
        carried = sum(batch.stored_size for batch in ready.inline_data)
        is_inline = job.lane[1] != BULK and carried + stored <= INLINE_BATCH_MAX
        await self._send_on(parked, content, Role.DATA, ready.inline_data if is_inline else None)
        return stored

    async def _send_on(
        self,
        parked: Parked,
        content: SealedContent,
        role: Role,
        inline: list[SealedBatch] | None,
    ) -> None:
        """Put sealed frames into the segment to come (`inline`) or into a pack."""
        parked.ready.needs |= content.needs
        parked.ready.new_ids += content.new_ids
        if content.data is None:
            return
        if inline is not None:
            inline.append(content.data)
        else:
            durable = await self.packer.add(content.data, role)
            parked.packs.append((durable, content.new_ids))

    async def _describe(
        self, parked: Parked, entries: list[Found], results: list[ReadResult], read_at_ns: int
    ) -> None:
        """Turn results into what is to be recorded."""
        job, loop = parked.job, asyncio.get_running_loop()
        whole = (entries, results, job.lane, job.sequence, read_at_ns)
        account = await loop.run_in_executor(self._threads, self._carrier.account, *whole)
        await self._record(parked, account)

    async def _record(self, parked: Parked, account: Account) -> None:
        """Take what is to be recorded into the ready finding."""
        for outcome, count in account.outcomes.items():
            self._observer.files(parked.job.stream.identity.name, outcome, count)
        take(parked.ready, account.described)
        content = account.pages
        if content is not None:
            stored = content.data.stored_size if content.data is not None else 0
            inline = parked.ready.inline_meta if stored <= INLINE_BATCH_MAX else None
            await self._send_on(parked, content, Role.META, inline)

    # -- commit ----------------------------------------------------------------------------------

    def _park(self, parked: Parked) -> None:
        job = parked.job
        self._parked.setdefault(job.lane, {})[job.sequence] = parked
        if job.cut is not None:
            job.cut.park(parked)
        for durable, _ in parked.packs:
            durable.add_done_callback(lambda _: self._wake.set())
        self._wake.set()

    def _run_of(self, lane: Lane) -> list[Parked]:
        """Return the finished findings of a lane whose turn it is, in order.

        A live cut goes as a whole, into one instant of the journal: a directory that was renamed
        and a file in it that was changed are then never seen one without the other. Unless it is
        large, or somebody waits for memory or for everything to be committed.
        """
        waiting, number = self._parked[lane], self._next.get(lane, 0)
        run: list[Parked] = []
        while (parked := waiting.get(number)) is not None:
            if not all(durable.done() for durable, _ in parked.packs):
                break
            run.append(parked)
            number += 1
        hurried = self._draining or self.budget.is_waited_for_live
        count = sum(not parked.is_void for parked in waiting.values())
        if lane[1] == LIVE and not hurried and count < LIVE_CUT_MAX:
            while run and run[-1].is_held:
                run.pop()
        return run

    def _take_due(self) -> list[Parked]:
        """Return finished findings whose turn it is, live lanes first, within limits."""
        due: list[Parked] = []
        intents = 0
        for lane in sorted(self._parked, key=lambda lane: (lane[1] != LIVE, lane)):
            for parked in self._run_of(lane):
                intents += len(parked.ready.intents) + len(parked.ready.gone)
                is_much = len(due) >= COMMIT_BATCHES_MAX or intents > COMMIT_INTENTS_MAX
                if due and is_much and lane[1] != LIVE:
                    return due
                del self._parked[lane][parked.job.sequence]
                if parked.job.cut is not None and not parked.is_void:
                    parked.job.cut.is_broken = True  # once it is whole, nobody asks
                self._next[lane] = parked.job.sequence + 1
                for durable, ids in parked.packs:
                    number = durable.result()
                    parked.ready.new_chunks.setdefault(number, []).extend(ids)
                    parked.ready.needs.add(number)
                due.append(parked)
        return due

    async def _commit_loop(self) -> None:
        while True:
            due = self._take_due()
            if not due:
                self._wake.clear()
                due = self._take_due()
            if not due:
                if self._open_jobs and self._open_jobs == self._parked_count():
                    await self.packer.flush()  # everybody waits for a pack that nobody will fill
                await self._wake.wait()
                continue
            await self._commit(due)

    def _parked_count(self) -> int:
        return sum(len(waiting) for waiting in self._parked.values())

    async def _commit(self, due: list[Parked]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        entries = [Entry(parked.job.stream.identity, parked.ready) for parked in due]
        result = await self._catalog.write(self._journal.commit, entries)
        await self.put_all(result)
        seconds = loop.time() - started
        stored = sum(len(put.object.data) for put in result.puts)
        self._observer.step("commit", seconds, stored, stored)
        now_us = self._clock.now_us()
        for parked in due:
            job, ready = parked.job, parked.ready
            self._index.settle(ready.new_ids)
            job.stream.in_flight.settle(ready.settled)
            self.budget.give_back(job.held_bytes)
            is_change = job.first_us > EVER and ready.intents
            delays = [max(now_us - job.first_us, 0) / 1e6] if is_change else []
            self._observer.committed(job.stream.identity.name, delays)
            job.stream.on_committed(ready, result.at_us)
            self._committed[job.lane] = job.sequence + 1
            self._open_jobs -= 1
        if self._open_jobs == 0:
            self._idle.set()
        self._wake_generations()

    def _wake_generations(self) -> None:
        while self._generation_waiters:
            goals, done = self._generation_waiters[0]
            if any(self._committed.get(lane, 0) < count for lane, count in goals.items()):
                return
            self._generation_waiters.popleft()
            done.set()

    async def put_all(self, result: CommitResult) -> None:
        """Put what a transaction remembered, in order, and forget the bytes."""
        for put in result.puts:
            await self._store.put(BlobName(put.object.name), put.object.data)
        if result.puts:
            numbers = [put.number for put in result.puts]
            await self._catalog.write(self._journal.mark_put, numbers)
            self.on_durable()

    async def _publish_pack(self, pack: EncodedObject) -> int:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._store.put(BlobName(pack.name), pack.data)
        number = await self._catalog.write(self._journal.add_pack, pack)
        self._observer.step("pack", loop.time() - started, len(pack.data), len(pack.data))
        self.on_durable()
        return number
