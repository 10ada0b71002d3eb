"""The uplink's pace is seen while something waits for it, and compression and packs follow it."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from vaultbuilder import ManualClock

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.daemon.adapting import Adapting
from streamd.daemon.meters import Meters
from streamd.pipeline.channel import BULK, LIVE, Channel
from streamd.pipeline.compression import SETTINGS, CompressionChoice
from streamd.policy.effort import PACK_BYTES, Effort
from streamd.storage.rate import ByteRate

MIB = 1 << 20


class Moving(ManualClock):
    """A clock whose monotonic time a test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class Line:
    """Everything around an uplink, in a few lines."""

    def __init__(self, folder, *, is_remote: bool = True) -> None:
        self.catalog = Catalog(str(folder))
        self.clock = Moving()
        self.meters = Meters(CollectorRegistry())
        self.sending = ByteRate(self.clock, None)
        self.compression = CompressionChoice("auto")
        self.pipeline = SimpleNamespace(
            sealing_count=0,
            backlog_bytes=0,
            intake=Channel("read", items_max=4, bytes_max=100),
            packer=SimpleNamespace(full=Channel("pack", items_max=2, bytes_max=100)),
        )
        self.adapting = Adapting(
            catalog=self.catalog,
            clock=self.clock,
            meters=self.meters,
            sending=self.sending,
            governor=SimpleNamespace(window=4, round_trip_seconds=0.02) if is_remote else None,
            memory_limit_bytes=256 * MIB,
            compression=self.compression,
        )
        self.adapting.connect(self.pipeline)

    def pile(self, size: int) -> None:
        self.catalog.write_now(
            lambda connection: objects.add(
                connection, name=f"p{size}", kind="P", size=size, now_us=1, state=ObjectState.LOCAL
            )
        )

    def look(self, *, seconds: float = 0.5, moved: int = 0) -> None:
        self.clock.seconds += seconds
        self.sending.charge(moved)
        asyncio.run(self.adapting.look())

    def metric(self, name: str, **labels: str) -> float | None:
        return self.meters.metrics.registry.get_sample_value(f"streamd_{name}", labels)


@pytest.fixture
def line(tmp_path):
    made = Line(tmp_path)
    yield made
    made.catalog.close()


def test_a_pile_before_a_slow_line_makes_compression_strong_and_packs_small(line) -> None:
    line.compression.sealed(
        SimpleNamespace(
            how=line.compression.now(),
            plain_bytes=MIB,
            stored_bytes=MIB // 3,
            seconds=0.004,
            cpu_seconds=0.004,
        )
    )
    assert line.adapting.pack_bytes() == PACK_BYTES
    line.pile(200 * MIB)
    line.look()
    line.look(moved=3_125_000)
    assert line.adapting.uplink_bytes_per_second == 6_250_000
    assert line.compression.now() == SETTINGS[Effort.STRONGEST]
    assert line.adapting.pack_bytes() == 5 * MIB
    line.look(moved=3_125_000)
    assert line.metric("compressed_bytes_total", compression="zstd:1") == MIB
    assert line.metric("pack_target_bytes") == 5 * MIB


def test_what_is_sent_while_nothing_waits_tells_nothing(line) -> None:
    line.look(moved=100)
    line.look(moved=100)
    line.pile(MIB)
    line.look(moved=100)
    assert line.adapting.uplink_bytes_per_second == 0
    assert line.metric("uplink_bytes_per_second") == 0


def test_the_pace_follows_the_line_without_jumping(line) -> None:
    line.pile(200 * MIB)
    line.look()
    line.look(moved=1000)
    line.look(moved=500)
    assert line.adapting.uplink_bytes_per_second == pytest.approx(0.7 * 2000 + 0.3 * 1000)


def test_a_directory_vault_has_its_usual_packs(tmp_path) -> None:
    line = Line(tmp_path, is_remote=False)
    line.pile(200 * MIB)
    line.look()
    line.look(moved=100)
    assert line.adapting.pack_bytes() == PACK_BYTES
    line.catalog.close()


def test_the_fullness_of_the_queues_is_seen(line) -> None:
    async def fill() -> None:
        await line.pipeline.intake.send("a", 10, BULK)
        await line.pipeline.intake.send("b", 75, LIVE)
        await line.pipeline.packer.full.send("c", 10)

    asyncio.run(fill())
    line.pipeline.sealing_count = 1
    seen = line.adapting.queues()
    assert (seen.waiting, seen.waiting_live, seen.behind) == (0.25, 0.75, 0.5)
    line.pipeline.sealing_count = 9
    assert line.adapting.queues().waiting == 1.0
