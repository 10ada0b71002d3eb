"""A retention run keeps what the policy keeps, drops the rest, and loses nothing in between."""

import random

import pytest
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.errors import PolicyRefused
from streamd.maintenance import expire
from streamd.model.record import Mark
from streamd.policy.retention import Rule

RULE = Rule(continuous_us=2 * DAY_US, daily=5, weekly=3)


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


async def _year(host: SmallHost, days: int = 40) -> dict[int, dict[bytes, bytes]]:
    """Change a source three times a day; return what it held at each instant."""
    rng = random.Random(3)
    files: dict[bytes, bytes] = {b"large": rng.randbytes(90_000), b"same": rng.randbytes(500)}
    truth = {}
    for _ in range(days * 3):
        host.clock.us += 8 * HOUR_US
        name = b"file%d" % rng.randrange(10)
        files[name] = rng.randbytes(rng.choice([10, 700, 5000]))
        if rng.random() < 0.3 and len(files) > 4:
            files.pop(rng.choice([name for name in sorted(files) if name != b"large"]))
        if rng.random() < 0.1:
            files[b"large"] = files[b"large"][:-1000] + rng.randbytes(1000)
        truth[await host.capture("web", files)] = dict(files)
    return truth


@pytest.mark.slow
@pytest.mark.asyncio
async def test_every_kept_point_restores_and_the_vault_shrinks(host) -> None:
    truth = await _year(host)
    before = await host.size_bytes()
    report = await expire.run(host.site, {"web": RULE}, default=RULE)
    kept = [point.at_us for point in report.points[0].points if point.keep]
    assert 0 < len(kept) < len(truth)
    for at_us in kept:
        assert await host.files_at("web", at_us) == truth[at_us]
    assert report.reclaimed_bytes > 0
    assert await host.size_bytes() < before * 0.7
    plan = await expire.plan(host.vault, {"web": RULE}, default=RULE, now_us=host.clock.us)
    assert [point.at_us for point in plan.points[0].points if point.keep] == kept


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_second_run_has_nothing_left_to_do(host) -> None:
    await _year(host, days=20)
    await expire.run(host.site, {}, default=RULE)
    names = await host.names()
    again = await expire.run(host.site, {}, default=RULE)
    assert (again.deleted_objects, again.checkpoints_written) == (0, 0)
    assert await host.names() == names


@pytest.mark.asyncio
async def test_a_quiet_source_does_not_hold_the_journal_back(host) -> None:
    quiet = {b"old": b"x" * 2000, b"older": b"y" * 50}
    await host.capture("quiet", quiet)
    truth = await _year(host, days=20)
    before = len([name for name in await host.names() if "/j/" in name])
    await expire.run(host.site, {}, default=RULE)
    after = len([name for name in await host.names() if "/j/" in name])
    assert after < before / 2
    assert await host.files_at("quiet", host.clock.us) == quiet
    last = max(truth)
    assert await host.files_at("web", last) == truth[last]


@pytest.mark.asyncio
async def test_a_chunk_that_comes_back_while_it_is_condemned_saves_its_pack(host) -> None:
    rng = random.Random(5)
    precious = rng.randbytes(9000)
    await host.capture("web", {b"keep": b"1", b"precious": precious})
    for _ in range(12):
        host.clock.us += DAY_US
        await host.capture("web", {b"keep": rng.randbytes(300)})
    entry = await host.seal("web", {b"keep": b"2", b"again": precious})
    assert not entry.ready.new_chunks, "the chunks were found in the vault"
    committed = []

    async def quiesce() -> None:
        if not committed:
            committed.append(await host.commit(entry))

    report = await expire.run(host.site, {}, default=Rule(continuous_us=HOUR_US), quiesce=quiesce)
    assert committed
    assert report.cancelled_objects > 0
    assert await host.files_at("web", committed[0]) == {b"keep": b"2", b"again": precious}
    host.clock.us += 2 * HOUR_US
    await expire.run(host.site, {}, default=Rule(continuous_us=HOUR_US))
    assert await host.files_at("web", committed[0]) == {b"keep": b"2", b"again": precious}


@pytest.mark.asyncio
async def test_a_pack_that_waits_for_its_commit_is_not_collected(host) -> None:
    rng = random.Random(6)
    for _ in range(12):
        host.clock.us += DAY_US
        await host.capture("web", {b"keep": rng.randbytes(300)})
    fresh = rng.randbytes(9000)
    entry = await host.seal("web", {b"keep": b"2", b"fresh": fresh})
    assert entry.ready.new_chunks, "the pack is put and known, and nothing refers to it yet"
    committed = []

    async def quiesce() -> None:
        if not committed:
            committed.append(await host.commit(entry))

    await expire.run(host.site, {}, default=Rule(continuous_us=HOUR_US), quiesce=quiesce)
    assert committed
    assert await host.files_at("web", committed[0]) == {b"keep": b"2", b"fresh": fresh}


@pytest.mark.asyncio
async def test_a_held_point_outlives_the_policy(host) -> None:
    mark = Mark("before-upgrade", "crash", host.clock.us + 300 * DAY_US)
    held = await host.capture("web", {b"a": b"precious"}, mark=mark)
    for _ in range(10):
        host.clock.us += DAY_US
        await host.capture("web", {b"a": b"%d" % host.clock.us})
    for _ in range(2):
        report = await expire.run(host.site, {}, default=Rule(continuous_us=HOUR_US))
        point = next(point for point in report.points[0].points if point.at_us == held)
        assert point.keep
        assert point.label == "before-upgrade"
    assert await host.files_at("web", held) == {b"a": b"precious"}


@pytest.mark.asyncio
async def test_a_rule_that_drops_much_more_has_to_be_accepted(host) -> None:
    await _year(host, days=10)
    long = Rule(continuous_us=9 * DAY_US)
    await expire.run(host.site, {"web": long}, default=long)
    short = Rule(continuous_us=HOUR_US)
    names = await host.names()
    with pytest.raises(PolicyRefused):
        await expire.run(host.site, {"web": short}, default=short)
    assert await host.names() == names
    report = await expire.run(host.site, {"web": short}, default=short, accept_loss=True)
    assert report.deleted_objects > 0


@pytest.mark.asyncio
async def test_what_is_not_uploaded_yet_is_not_collected(tmp_path) -> None:
    host = SmallHost(tmp_path, remote=True)
    await _year(host, days=10)
    names = set(await host.names())
    report = await expire.run(host.site, {}, default=RULE, upload_patience_seconds=0)
    assert report.deleted_objects == 0
    assert names <= set(await host.names())
    host.catalog.close()
