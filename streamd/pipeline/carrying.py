"""Carry one ordinary batch through reading, sealing and describing, in one call of a thread.

A hop to a thread and back hands over the interpreter's lock four times, and each time nobody runs
for a while. So what needs the loop (budget, packs, places in line) is done before the call and
after it, and everything between is one call. The content is let go before it returns.

Blocking; runs in the threads of the pipeline. Threads may share a carrier.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import msgspec

from streamd.effects import Clock
from streamd.pipeline import sampling, second_look
from streamd.pipeline.dedup import Lane
from streamd.pipeline.findings import Found
from streamd.pipeline.seal import Described, SealedContent, Sealer
from streamd.pipeline.tails import Tails
from streamd.sources.port import Outcome, Piece, ReadRequest, ReadResult, Source

_OK = Outcome.OK  # asked of every file: enums are slow to ask


class Account(msgspec.Struct):
    """Entries as they are to be recorded, and how reading them ended."""

    described: Described
    outcomes: dict[Outcome, int]
    pages: SealedContent | None  # of chunk lists


class Carried(msgspec.Struct):
    """A batch that was read and sealed."""

    results: list[ReadResult]
    content: SealedContent
    read_bytes: int
    read_seconds: float
    seal_seconds: float
    account: Account | None = None  # None: some entries are worth a second look first


class Carrier:
    """Reads, seals and describes batches."""

    def __init__(self, sealer: Sealer, tails: Tails, clock: Clock) -> None:
        self._sealer = sealer
        self._tails = tails
        self._clock = clock
        self._lock = threading.Lock()
        self._sealing_count = 0

    @property
    def sealing_count(self) -> int:
        """Batches that were read and are being sealed."""
        return self._sealing_count

    def carry(
        self, source: Source, entries: Sequence[Found], lane: Lane, sequence: int, read_at_ns: int
    ) -> Carried:
        """Read entries, seal their new chunks and describe all of it, if it is settled."""
        carried = self.read_and_seal(source, entries, lane, sequence)
        if not second_look.unsettled(carried.results):
            carried.account = self.account(entries, carried.results, lane, sequence, read_at_ns)
        return carried

    def read_and_seal(
        self, source: Source, entries: Sequence[Found], lane: Lane, sequence: int
    ) -> Carried:
        """Read entries and seal their new chunks."""
        now, of = self._clock.monotonic, self._tails.of
        started = now()
        batch = sampling.read(
            source,
            [
                ReadRequest(path, stat, None if is_fresh else of(fid), generation)
                for _, _, path, fid, stat, _, _, _, is_fresh, generation in entries
            ],
        )
        read = now()
        pieces: list[Piece] = list(chain.from_iterable([one.pieces for one in batch.results]))
        self._count(1)
        try:
            content = self._sealer.seal_pieces(batch.arena, pieces, lane, sequence)
        finally:
            self._count(-1)
        return Carried(batch.results, content, batch.read_bytes, read - started, now() - read)

    def account(
        self,
        entries: Sequence[Found],
        results: Sequence[ReadResult],
        lane: Lane,
        sequence: int,
        read_at_ns: int,
    ) -> Account:
        """Turn results into intents, and seal the pages of their chunk lists."""
        saw = self._tails.saw
        for entry, result in zip(entries, results, strict=True):
            if not entry.is_fresh:
                saw(entry.fid, result)
        others = [result.outcome for result in results if result.outcome is not _OK]
        outcomes: dict[Outcome, int] = Counter(others)
        if len(others) < len(results):
            outcomes[_OK] = len(results) - len(others)
        described = self._sealer.describe(entries, results, read_at_ns=read_at_ns)
        pages = None
        if described.pages:
            pages = self._sealer.seal_pages(described.pages, lane, sequence)
        return Account(described, outcomes, pages)

    def _count(self, change: int) -> None:
        with self._lock:
            self._sealing_count += change
