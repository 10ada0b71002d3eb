"""Nothing of a suspect source is thinned, whoever asks, until it is released."""

import pytest
import pytest_asyncio
from msgspec.structs import replace
from unit.maintenance.smallhost import DAY_US, SmallHost

from streamd.catalog.db import FILE_NAME
from streamd.catalog.suspicion import incident_of, recall
from streamd.errors import SourceSuspect
from streamd.maintenance import expire
from streamd.maintenance.points import recovery_points
from streamd.maintenance.rebuild import rebuild
from streamd.model.record import RELEASED, Incident, Mark
from streamd.policy.retention import Rule

RULE = Rule(continuous_us=DAY_US, daily=2)
FILES = {b"file%d" % number: b"content %d" % number for number in range(150)}


@pytest_asyncio.fixture
async def host(tmp_path):
    host = SmallHost(tmp_path)
    for day in range(6):
        await host.capture("web", FILES | {b"day": b"%d" % day})
        await host.capture("db", {b"day": b"%d" % day})
        host.clock.us += DAY_US
    yield host
    host.catalog.close()


async def delete(host: SmallHost) -> Incident:
    """Delete everything but one file; return the incident."""
    await host.capture("web", {b"day": b"5"})
    found = await host.catalog.read(incident_of, "web")
    assert found is not None
    return found


async def release(host: SmallHost, incident: Incident, hold_until_us: int = 0) -> None:
    mark = replace(incident, kind=RELEASED, hold_until_us=hold_until_us)
    await host.capture("web", {b"day": b"back"}, mark=mark)


async def points(host: SmallHost) -> list[int]:
    report = await recovery_points(host.vault, "web", RULE, now_us=host.clock.us)
    return [point.at_us for point in report.points]


@pytest.mark.asyncio
async def test_a_run_drops_nothing_of_a_suspect_source_and_says_why(host) -> None:
    incident = await delete(host)
    before, names = await points(host), set(await host.names())
    host.clock.us += 30 * DAY_US
    report = await expire.run(host.site, {"web": RULE}, default=RULE)
    assert not report.is_postponed
    web = next(one for one in report.points if one.source == "web")
    assert (web.incident, web.expired_count, web.overdue_count) == (incident, 0, 0)
    assert {"frozen"} in [set(one.classes) for one in web.points]
    assert await points(host) == before
    kept_us = set(before)
    assert {name for name in names if "/j/" in name} <= set(await host.names())
    for at_us in kept_us:
        assert await host.files_at("web", at_us)


@pytest.mark.asyncio
async def test_points_since_then_are_suspect_and_the_one_before_is_named_and_held(host) -> None:
    incident = await delete(host)
    report = await recovery_points(host.vault, "web", RULE, now_us=host.clock.us)
    assert [one.is_suspect for one in report.points] == [False] * 6 + [True]
    last_good = report.points[-2]
    assert (last_good.at_us, last_good.label) == (incident.point_us, "before-incident")
    assert "hold" in last_good.classes
    assert last_good.expires_us is None
    assert await host.files_at("web", last_good.at_us) == FILES | {b"day": b"5"}


@pytest.mark.asyncio
async def test_asking_for_just_that_source_is_refused(host) -> None:
    await delete(host)
    with pytest.raises(SourceSuspect, match="deleted: 150 files"):
        await expire.run(host.site, {"web": RULE}, default=RULE, only="web", accept_loss=True)
    await expire.run(host.site, {"web": RULE}, default=RULE, only="db")


@pytest.mark.asyncio
async def test_a_plan_shows_what_stays_for_that_alone(host) -> None:
    before = await expire.plan(host.vault, {}, default=RULE, now_us=host.clock.us, only="web")
    await delete(host)
    frozen = await expire.plan(host.vault, {}, default=RULE, now_us=host.clock.us, only="web")
    going = {one.at_us for one in before.points[0].points if not one.keep}
    stays = {one.at_us for one in frozen.points[0].points if "frozen" in one.classes}
    assert going
    assert going <= stays
    assert frozen.segment_count == 0


@pytest.mark.asyncio
async def test_after_the_release_it_is_thinned_and_the_point_before_stays_held(host) -> None:
    incident = await delete(host)
    host.clock.us += 30 * DAY_US
    await release(host, incident, host.clock.us + 7 * DAY_US)
    await expire.run(host.site, {"web": RULE}, default=RULE)
    left = await points(host)
    assert len(left) < 5
    assert incident.point_us in left
    assert await host.files_at("web", incident.point_us) == FILES | {b"day": b"5"}
    host.clock.us += 8 * DAY_US  # the hold is over
    await host.capture("web", {b"day": b"later"})
    for _ in range(4):
        host.clock.us += DAY_US
        await host.capture("web", {b"day": b"later %d" % host.clock.us})
    await expire.run(host.site, {"web": RULE}, default=RULE)
    assert incident.point_us not in await points(host)


@pytest.mark.asyncio
async def test_a_hold_of_somebody_else_outlasts_the_release(host) -> None:
    mine = Mark("mine", "crash", host.clock.us + 90 * DAY_US)
    await host.capture("web", FILES | {b"day": b"mine"}, mark=mine)
    incident = await delete(host)
    await release(host, incident)
    report = await recovery_points(host.vault, "web", RULE, now_us=host.clock.us)
    held = [one for one in report.points if "hold" in one.classes]
    assert [(one.at_us, one.label) for one in held] == [(incident.point_us, "mine")]
    assert not any(one.is_suspect for one in report.points)


@pytest.mark.asyncio
async def test_a_new_catalog_knows_it_from_the_vault(host) -> None:
    incident = await delete(host)
    host.catalog.close()
    (host.directory / FILE_NAME).unlink()
    await rebuild(host.vault, str(host.directory), clock=host.clock)
    host.open()
    assert await host.catalog.read(incident_of, "web") == incident
    assert await host.catalog.read(incident_of, "db") is None


@pytest.mark.asyncio
async def test_damage_that_is_noticed_during_a_run_postpones_it(host) -> None:
    names = set(await host.names())

    async def damage() -> None:
        await delete(host)

    site = host.site
    finish = expire.prove_roots

    async def proving(*args: object) -> None:
        await finish(*args)
        await damage()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(expire, "prove_roots", proving)
        report = await expire.run(site, {"web": RULE}, default=RULE)
    assert report.is_postponed
    assert names <= set(await host.names())


@pytest.mark.asyncio
async def test_a_catalog_that_never_knew_is_told_by_a_run_and_one_that_did_is_not(host) -> None:
    incident = await delete(host)
    await host.catalog.write(lambda c: c.execute("DELETE FROM meta WHERE key = 'suspect:web'"))
    assert await host.catalog.read(incident_of, "web") is None
    await expire.run(host.site, {"web": RULE}, default=RULE)
    assert await host.catalog.read(incident_of, "web") == incident
    await host.catalog.write(recall, "web", replace(incident, file_count=1))
    assert await host.catalog.read(incident_of, "web") == incident
    await release(host, incident)
    await host.catalog.write(recall, "web", incident)
    assert await host.catalog.read(incident_of, "web") is None
