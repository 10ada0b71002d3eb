"""Random histories, random rules, runs in between: what is kept restores exactly, always."""

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.maintenance import expire
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.policy.retention import Rule

rules = st.builds(
    Rule,
    continuous_us=st.sampled_from([0, HOUR_US, 12 * HOUR_US, 3 * DAY_US]),
    hourly=st.integers(0, 6),
    daily=st.integers(0, 4),
    weekly=st.integers(0, 2),
)
steps = st.lists(
    st.sampled_from(["web", "web", "web", "db", "run", "checkpoint", "restart"]),
    min_size=4,
    max_size=22,
)


async def _live(directory: Path, seed: int, what: list[str], rule: Rule) -> None:
    rng = random.Random(seed)
    host = SmallHost(directory)
    pool = [rng.randbytes(size) for size in (5, 400, 1500, 6000, 70_000)]
    truth: dict[str, dict[int, dict[bytes, bytes]]] = {"web": {}, "db": {}}
    try:
        for step in [*what, "run"]:
            host.clock.us += rng.choice([60_000_000, HOUR_US, 7 * HOUR_US, DAY_US])
            if step == "run":
                await _run_and_check(host, truth, rule)
            elif step == "checkpoint":
                for source in truth:
                    await checkpoint_current(host.site, source)
            elif step == "restart":
                await host.reopen()
            else:
                count = rng.randrange(1, 6)
                files = {b"f%d" % rng.randrange(8): rng.choice(pool) for _ in range(count)}
                files[b"n"] = rng.randbytes(20)
                truth[step][await host.capture(step, files)] = files
    finally:
        host.catalog.close()


async def _run_and_check(host: SmallHost, truth, rule: Rule) -> None:
    report = await expire.run(host.site, {}, default=rule)
    assert not report.damage
    start_us = rule.window_start_us(host.clock.us)
    for points in report.points:
        known = truth[points.source]
        kept = {point.at_us for point in points.points if point.keep}
        assert kept <= known.keys()
        assert {at_us for at_us in known if at_us > start_us} <= kept
        for at_us in kept:
            assert await host.files_at(points.source, at_us) == known[at_us]
            if at_us >= start_us:  # and so does any instant until the next change
                assert await host.files_at(points.source, at_us + 1) == known[at_us]
        for at_us in known.keys() - kept:
            del known[at_us]


@pytest.mark.slow
@given(seed=st.integers(0, 2**20), what=steps, rule=rules)
@settings(max_examples=40)
def test_whatever_is_kept_restores(seed: int, what: list[str], rule: Rule) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_live(Path(directory), seed, what, rule))
