"""A retention run may die at any write: every kept point restores, and the next run finishes."""

import random
from pathlib import Path

import pytest
from stores import Crash, CrashingBlobStore
from unit.maintenance.smallhost import DAY_US, SmallHost

from streamd.maintenance import expire
from streamd.policy.retention import Rule

RULE = Rule(continuous_us=2 * DAY_US, daily=3, weekly=2)


async def _history(host: SmallHost) -> dict[int, dict[bytes, bytes]]:
    rng = random.Random(7)
    files = {b"large": rng.randbytes(70_000)}
    truth = {}
    await host.capture("quiet", {b"still": rng.randbytes(4000)})
    for day in range(14):
        host.clock.us += DAY_US
        files = {**files, b"file%d" % (day % 3): rng.randbytes(rng.choice([100, 4000]))}
        if day % 4 == 0:
            await host.reopen()
        truth[await host.capture("web", files)] = dict(files)
    return truth


async def _check(host: SmallHost, truth: dict[int, dict[bytes, bytes]], kept: set[int]) -> None:
    for at_us in kept:
        assert await host.files_at("web", at_us) == truth[at_us]
    quiet = await host.files_at("quiet", host.clock.us)
    assert len(quiet[b"still"]) == 4000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.asyncio
@pytest.mark.parametrize("lands", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_loses_no_kept_point(tmp_path: Path, lands: bool) -> None:
    (tmp_path / "first").mkdir()
    first = SmallHost(tmp_path / "first")
    truth = await _history(first)
    first.catalog.close()
    whole = first.fork(tmp_path / "whole")
    counting = CrashingBlobStore(whole.store, CrashingBlobStore.NEVER, lands)
    await whole.reopen(counting)
    report = await expire.run(whole.site, {}, default=RULE)
    kept = {point.at_us for point in report.points[-1].points if point.keep}
    wanted = len(await whole.names())
    whole.catalog.close()
    assert counting.writes > 20
    for number in range(counting.writes):
        host = first.fork(tmp_path / f"{number}")
        crashing = CrashingBlobStore(host.store, number, lands)
        await host.reopen(crashing)
        with pytest.raises(Crash):
            await expire.run(host.site, {}, default=RULE)
        await host.reopen()
        await _check(host, truth, kept)
        await expire.run(host.site, {}, default=RULE)
        await _check(host, truth, kept)
        now = await host.capture("web", {b"after": b"%d" % number})
        assert await host.files_at("web", now) == {b"after": b"%d" % number}
        # a crash may leave a pack more or less, but no heap of litter
        assert len(await host.names()) <= wanted + 8
        host.catalog.close()
