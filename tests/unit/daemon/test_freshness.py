"""What is shown is fresh, and an idle daemon is left alone."""

import asyncio
from types import SimpleNamespace

import pytest
from simloop import simulate

from streamd.catalog.db import Catalog, put_value
from streamd.daemon.adapting import LOOK_SECONDS
from streamd.daemon.freshness import LAG_REST_SECONDS, LAG_SECONDS, REST_SECONDS, Freshness

MINUTE = 60.0


class Fake:
    """A protection, a pipeline, meters: they count how often they are asked."""

    def __init__(self, folder) -> None:
        self.catalog = Catalog(str(folder))
        self.refreshed: list[float] = []
        self.looks = self.lags = 0
        self.census = SimpleNamespace(is_behind=False)
        self.watermarks = SimpleNamespace(look=self.look_at_watermark)
        self.looks_at_watermark = 0
        self.pipeline = SimpleNamespace(
            budget=SimpleNamespace(used_bytes=0),
            intake=SimpleNamespace(item_count=0),
            backlog_bytes=0,
        )
        self.freshness = Freshness(
            catalog=self.catalog,
            pipeline=self.pipeline,
            adapting=self,
            meters=self,
            active=lambda: {"web": self},
        )

    async def refresh(self) -> None:
        self.refreshed.append(asyncio.get_running_loop().time())

    async def look(self) -> None:
        self.looks += 1

    def look_at_watermark(self) -> None:
        self.looks_at_watermark += 1

    def queues(self, pipeline, budget) -> None:
        assert pipeline.budget is budget

    def loop_was_late(self, seconds: float) -> None:
        assert seconds < LAG_SECONDS
        self.lags += 1


@pytest.fixture
def fake(tmp_path):
    fake = Fake(tmp_path)
    yield fake
    fake.catalog.close()


def run(fake, body) -> None:
    async def life() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fake.freshness.run(), name="state"),
                group.create_task(fake.freshness.measure_lag(), name="lag"),
            ]
            await body()
            for task in tasks:
                task.cancel()

    simulate(life(), seed=1)


def test_an_idle_daemon_wakes_up_some_twenty_times_a_minute(fake) -> None:
    run(fake, lambda: asyncio.sleep(MINUTE))
    assert len(fake.refreshed) == fake.looks <= 1 + MINUTE / REST_SECONDS
    assert fake.looks_at_watermark == fake.lags <= MINUTE / LAG_REST_SECONDS


def test_what_is_written_is_shown_within_half_a_second(fake) -> None:
    written: list[float] = []

    async def body() -> None:
        for pause in (7.0, 0.3, 2.0, 11.0):
            await asyncio.sleep(pause)
            await fake.catalog.write(put_value, "k", 1)
            written.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)

    run(fake, body)
    for at in written:
        assert any(0 <= seen - at <= LOOK_SECONDS + 0.01 for seen in fake.refreshed)
    assert len(fake.refreshed) <= 2 * len(written) + 1, "once a write, and no more"


@pytest.mark.parametrize("what", ["memory", "queue", "backlog", "census"])
def test_while_there_is_work_everything_is_looked_at_twice_a_second(fake, what) -> None:
    if what == "memory":
        fake.pipeline.budget.used_bytes = 1
    elif what == "queue":
        fake.pipeline.intake.item_count = 1
    elif what == "backlog":
        fake.pipeline.backlog_bytes = 1
    else:
        fake.census.is_behind = True
    run(fake, lambda: asyncio.sleep(MINUTE))
    assert len(fake.refreshed) >= 0.95 * MINUTE / LOOK_SECONDS
    assert fake.lags >= 0.95 * MINUTE / LAG_SECONDS
