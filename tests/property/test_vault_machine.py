"""The vault under everything that happens to it, in any order, with faults in between.

Capture, checkpoints, retention, runs, restarts, writes that fail before or after they happened, a
catalog that is lost, and objects that somebody added. After every step what docs/invariants.md
promises of the vault is true. STREAMD_VAULT_EXAMPLES (default 8) says how many lives are lived.
"""

import asyncio
import hashlib
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.catalog.db import FILE_NAME
from streamd.errors import StreamdError, VaultUnreachable
from streamd.format import layout
from streamd.maintenance import expire
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.maintenance.rebuild import rebuild
from streamd.maintenance.runs import keep_runs
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.policy.retention import Rule
from streamd.storage.memory import MemoryBlobStore
from streamd.vault.journal_reader import JournalReader

EXAMPLES = int(os.environ.get("STREAMD_VAULT_EXAMPLES", "8"))
RULE = Rule(continuous_us=6 * HOUR_US, hourly=2, daily=2)
SOURCES = st.sampled_from(["web", "db"])


class Watched(MemoryBlobStore):
    """Remembers every object there ever was, and fails when told to."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.ever: dict[str, bytes] = {}
        self.fuse = -1  # puts until one fails; below 0: none does
        self.is_stored = False  # whether the one that fails has happened all the same

    async def put(self, name, data) -> None:
        content = hashlib.sha256(data).digest()
        assert self.ever.get(name, content) == content, f"{name} was put with other bytes before"
        self.fuse -= 1
        if self.fuse == 0 and not self.is_stored:
            raise VaultUnreachable("lost on the way", endpoint="memory")
        self.ever[name] = content
        await super().put(name, data)
        if self.fuse == 0:
            raise VaultUnreachable("the answer was lost", endpoint="memory")


class VaultMachine(RuleBasedStateMachine):
    """One host, two sources, and what they held at every instant that is still kept."""

    @initialize(seed=st.integers(0, 2**20))
    def begin(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.directory = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.host = SmallHost(Path(self.directory.name))
        self.store = Watched(self.host.clock)
        self.host.store = self.store
        self.host.catalog.close()
        self.host.open(self.store)
        self.pool = [self.rng.randbytes(size) for size in (5, 400, 3_500, 70_000)]
        self.truth: dict[str, dict[int, dict[bytes, bytes]]] = {"web": {}, "db": {}}
        self.junk: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.host.catalog.close()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.directory.cleanup()

    def do(self, work):
        return self.loop.run_until_complete(work)

    def files(self) -> dict[bytes, bytes]:
        some = {b"f%d" % self.rng.randrange(6): self.rng.choice(self.pool) for _ in range(3)}
        return {**some, b"n": self.rng.randbytes(20)}

    def pass_time(self) -> None:
        self.host.clock.us += self.rng.choice([60_000_000, HOUR_US, 5 * HOUR_US])

    # -- what happens ----------------------------------------------------------------------------

    @rule(source=SOURCES)
    def capture(self, source: str) -> None:
        self.pass_time()
        files = self.files()
        self.truth[source][self.do(self.host.capture(source, files))] = files

    @rule(source=SOURCES)
    def checkpoint(self, source: str) -> None:
        self.do(checkpoint_current(self.host.site, source))

    @rule()
    def keep(self) -> None:
        self.host.clock.us += HOUR_US
        self.do(keep_runs(self.host.site, self.store))

    @rule()
    def retain(self) -> None:
        self.pass_time()
        self.forget(self.do(expire.run(self.host.site, {}, default=RULE)))

    def forget(self, report) -> None:
        for points in report.points:
            kept = {point.at_us for point in points.points if point.keep}
            for at_us in self.truth[points.source].keys() - kept:
                del self.truth[points.source][at_us]

    @rule()
    def restart(self) -> None:
        self.do(self.host.reopen(self.store))

    @rule(source=SOURCES, puts=st.integers(1, 4), is_stored=st.booleans())
    def die_while_capturing(self, source: str, puts: int, is_stored: bool) -> None:
        self.pass_time()
        self.store.fuse, self.store.is_stored = puts, is_stored
        self.suffer(self.host.capture(source, self.files()))
        self.host.clock.us += 1_000_000
        files = self.files()
        self.truth[source][self.do(self.host.capture(source, files))] = files

    @rule(puts=st.integers(1, 12), is_stored=st.booleans(), days=st.integers(0, 2))
    def die_while_keeping(self, puts: int, is_stored: bool, days: int) -> None:
        self.host.clock.us += days * DAY_US + HOUR_US
        self.store.fuse, self.store.is_stored = puts, is_stored
        if not self.suffer(expire.run(self.host.site, {}, default=RULE)):
            self.store.fuse, self.store.is_stored = puts, is_stored
            self.suffer(keep_runs(self.host.site, self.store, force_index=True))
        # what an interrupted run had decided to drop may be gone: ask again what is kept
        self.forget(self.do(expire.run(self.host.site, {}, default=RULE)))

    def suffer(self, work) -> bool:
        """Do something that may die half-way, and start again; return whether it died."""
        try:
            done = self.do(work)
        except StreamdError:
            self.store.fuse = -1
            self.do(self.host.reopen(self.store))
            return True
        self.store.fuse = -1
        if isinstance(done, expire.RetentionReport):
            self.forget(done)
        return False

    @rule()
    def lose_the_catalog(self) -> None:
        kept = self.index()
        self.host.catalog.close()
        (self.host.directory / FILE_NAME).unlink()
        self.do(rebuild(self.host.vault, str(self.host.directory), clock=self.host.clock))
        self.host.open(self.store)
        again = self.index()
        # An orphan's chunks may be found by a rebuild; nothing that was known may be missing.
        assert kept.keys() <= again.keys(), "the index made again lacks chunks"

    def index(self) -> dict[bytes, str]:
        with self.host.catalog.reader() as connection:
            return dict(
                connection.execute(
                    "SELECT c.id, o.name FROM chunk c JOIN object o ON o.number = c.object"
                )
            )

    @rule(kind=st.sampled_from(["pack", "history", "shard", "nonsense"]))
    def somebody_adds(self, kind: str) -> None:
        domain = self.host.vault.keys.domain
        source = self.host.identity("web").id
        span = layout.HistorySpan(source, 1, self.host.clock.us, self.host.clock.us + 5)
        name = {
            "pack": layout.pack_name(domain, self.rng.randbytes(32)),
            "history": layout.history_name(domain, span, self.rng.randbytes(8)),
            "shard": layout.index_shard_name(domain, 1, 0, self.rng.randbytes(8)),
            "nonsense": f"{layout.domain_prefix(domain)}n/{self.rng.randrange(1 << 30)}",
        }[kind]
        self.do(MemoryBlobStore.put(self.store, name, self.rng.randbytes(4096)))
        self.junk.add(name)

    # -- what is always true ---------------------------------------------------------------------

    @invariant()
    def the_vault_is_sound(self) -> None:
        """Journals verify (I1), references resolve (I2), replay = checkpoint (I3)."""
        if not hasattr(self, "host"):
            return
        report = self.do(Verifier(self.host.vault, Level.STRUCTURE, clock=self.host.clock).run())
        assert {damage.name for damage in report.damage} <= self.junk, report.damage
        assert report.missing_count == 0

    @invariant()
    def the_index_tells_the_truth(self) -> None:
        """Whatever object the index names is there (I2 of what is to be captured next)."""
        if hasattr(self, "host"):
            assert set(self.index().values()) <= self.store._blobs.keys()

    @invariant()
    def times_never_fall(self) -> None:
        """I11, over all epochs of the journal."""
        if not hasattr(self, "host"):
            return

        async def times() -> list[int]:
            journal = JournalReader(self.host.vault, self.host.vault.keys.writer)
            return [
                segment.start_us + record.dt_us
                async for segment in journal.journal()
                for record in segment.records(self.host.vault.keys.secret_for)
            ]

        found = self.do(times())
        assert found == sorted(found)

    @invariant()
    def every_kept_instant_restores(self) -> None:
        """I12, at an instant of each source, and at its newest."""
        if not hasattr(self, "host"):
            return
        for source, known in self.truth.items():
            if known:
                for at_us in {max(known), self.rng.choice(sorted(known))}:
                    assert self.do(self.host.files_at(source, at_us)) == known[at_us]


VaultMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=12, deadline=None
)
TestTheVault = pytest.mark.slow(VaultMachine.TestCase)
