"""Recovery points say what can be restored; checkpoints hold it, and cost what changed."""

import pytest
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.errors import NotFound
from streamd.format.checkpoint import PAGE_MAX
from streamd.maintenance import expire
from streamd.maintenance.checkpointing import _bounded, checkpoint_current
from streamd.maintenance.points import recovery_points
from streamd.model.record import Mark
from streamd.policy.retention import Rule
from streamd.vault.state_reader import StateReader


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


@pytest.mark.asyncio
async def test_each_change_is_a_point_with_its_classes_and_its_name(host) -> None:
    instants = []
    for day in range(5):
        host.clock.us += DAY_US
        mark = Mark("release") if day == 2 else None
        instants.append(await host.capture("web", {b"a": b"%d" % day}, mark=mark))
    rule = Rule(continuous_us=DAY_US + HOUR_US, daily=3)
    report = await recovery_points(host.vault, "web", rule, now_us=host.clock.us)
    assert [point.at_us for point in report.points] == instants
    assert [point.keep for point in report.points] == [False, False, True, True, True]
    assert report.overdue_count == 2
    assert report.points[2].label == "release"
    assert set(report.points[2].classes) == {"daily", "window-base"}
    assert report.points[2].expires_us == instants[2] + 3 * DAY_US
    assert report.kept_by_class()["continuous"] == 2
    assert report.window_end_us - report.window_start_us == rule.continuous_us


@pytest.mark.asyncio
async def test_a_point_outlives_its_segments_by_its_checkpoint(host) -> None:
    for day in range(6):
        host.clock.us += DAY_US
        await host.capture("web", {b"a": b"%d" % day})
    rule = Rule(continuous_us=HOUR_US, daily=3)
    await expire.run(host.site, {}, default=rule)
    report = await recovery_points(host.vault, "web", rule, now_us=host.clock.us)
    assert len(report.points) == 3
    assert [point.has_checkpoint for point in report.points[:2]] == [True, True]
    assert report.overdue_count == 0


@pytest.mark.asyncio
async def test_an_unknown_source_is_named_with_those_there_are(host) -> None:
    await host.capture("web", {b"a": b"1"})
    with pytest.raises(NotFound, match="there is: web"):
        await recovery_points(host.vault, "nobody", Rule(), now_us=host.clock.us)


@pytest.mark.asyncio
async def test_a_checkpoint_of_the_present_is_the_replayed_state(host) -> None:
    files = {b"f%04d" % number: b"%d" % number for number in range(2000)}
    at_us = await host.capture("web", files)
    before = await StateReader(host.vault).state_at("web", at_us)
    name = await checkpoint_current(host.site, "web")
    reader = StateReader(host.vault)
    root = await reader.read_checkpoint(name)
    loaded = await reader.load_checkpoint(root, check=True)
    assert (root.at_us, root.state) == (at_us, before.state)
    assert list(loaded.rows()) == list(before.rows())
    assert loaded.marks == before.marks
    before.close()
    loaded.close()


@pytest.mark.asyncio
async def test_the_next_checkpoint_stores_only_pages_that_changed(host) -> None:
    files = {b"f%04d" % number: b"%d" % number for number in range(3000)}
    await host.capture("web", files)
    await checkpoint_current(host.site, "web")
    before = await host.size_bytes()
    first = before - await _journal_bytes(host)
    await host.capture("web", {**files, b"f0007": b"changed"})
    journal = await _journal_bytes(host)
    await checkpoint_current(host.site, "web")
    second = await host.size_bytes() - journal - first
    assert second < first / 2


async def _journal_bytes(host: SmallHost) -> int:
    return sum([info.size_bytes async for info in host.store.scan("d/") if "/j/" in info.name])


def test_a_page_of_huge_rows_is_cut_to_fit_a_frame() -> None:
    page = [(b"k%d" % number, bytes(3000)) for number in range(PAGE_MAX)]
    parts = list(_bounded(page))
    assert [row for part in parts for row in part] == page
    assert len(parts) > 10
    assert max(sum(len(value) for _, value in part) for part in parts) <= 1024 * 1024
