"""Retention runs again and again while the source is captured: nothing that was recorded is lost."""

import asyncio
import random
from pathlib import Path

import pytest
from unit.maintenance.smallhost import HOUR_US, SmallHost

from streamd.maintenance import expire
from streamd.policy.retention import Rule

RULE = Rule(continuous_us=3 * HOUR_US, daily=2)


class _Capture:
    """Batches that take their time between the look-up and the commit, committed in order."""

    def __init__(self, host: SmallHost, seed: int) -> None:
        self.host = host
        self.rng = random.Random(seed)
        self.pool = [self.rng.randbytes(self.rng.choice([300, 4000, 70_000])) for _ in range(12)]
        self.truth: dict[int, dict[bytes, bytes]] = {}
        self.begun = self.ended = 0
        self.changed = asyncio.Condition()

    async def run(self, batches: int) -> None:
        for _ in range(batches):
            self.host.clock.us += self.rng.choice([60_000_000, HOUR_US])
            some = self.rng.sample(self.pool, self.rng.randrange(1, 4))
            files = {b"f%d" % number: content for number, content in enumerate(some)}
            self.begun += 1
            entry = await self.host.seal("web", files)
            await asyncio.sleep(self.rng.random() * 0.02)
            self.truth[await self.host.commit(entry)] = files
            async with self.changed:
                self.ended += 1
                self.changed.notify_all()

    async def quiesce(self) -> None:
        goal = self.begun
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended >= goal)


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(8))
async def test_what_is_kept_restores_at_every_moment(tmp_path: Path, seed: int) -> None:
    host = SmallHost(tmp_path)
    capture = _Capture(host, seed)
    cancelled = deleted = 0
    async with asyncio.TaskGroup() as group:
        capturing = group.create_task(capture.run(60))
        while not capturing.done():
            report = await expire.run(host.site, {}, default=RULE, quiesce=capture.quiesce)
            cancelled += report.cancelled_objects
            deleted += report.deleted_objects
            for point in report.points[0].points if report.points else ():
                if point.keep:
                    found = await host.files_at("web", point.at_us)
                    assert found == capture.truth[point.at_us]
            await asyncio.sleep(0.01)
    assert deleted > 10
    last = max(capture.truth)
    assert await host.files_at("web", last) == capture.truth[last]
    host.catalog.close()
