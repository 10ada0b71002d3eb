"""With a container behind the local copy: the container alone restores every kept point."""

import random

import pytest
from unit.maintenance.smallhost import DAY_US, SmallHost
from vaultbuilder import ManualClock

from streamd.catalog import objects
from streamd.maintenance import expire
from streamd.maintenance.rebuild import rebuild
from streamd.policy.retention import Rule
from streamd.storage.layered import LayeredBlobStore
from streamd.storage.memory import MemoryBlobStore

RULE = Rule(continuous_us=2 * DAY_US, daily=4)


class _Pair:
    """A host with two stores, and an uploader that is asked to."""

    def __init__(self, directory) -> None:
        self.local, self.remote = MemoryBlobStore(ManualClock()), MemoryBlobStore(ManualClock())
        layered = LayeredBlobStore(self.local, self.remote)
        self.host = SmallHost(directory, store=layered, remote=True)

    async def upload(self, limit: int = 10**9) -> None:
        """Packs first, then the others in order."""
        for packs in (True, False):
            for row in await self.host.catalog.read(
                objects.pending_uploads, min(limit, 10_000), packs=packs
            ):
                await self.remote.put(row.name, await self.local.get(row.name))
                await self.host.catalog.write(objects.mark_uploaded, row.number)

    async def history(self, days: int = 12) -> dict[int, dict[bytes, bytes]]:
        rng, truth = random.Random(1), {}
        for day in range(days):
            self.host.clock.us += DAY_US
            files = {b"a": rng.randbytes(300), b"b%d" % (day // 4): rng.randbytes(5000)}
            truth[await self.host.capture("web", files)] = files
        return truth


@pytest.fixture
def pair(tmp_path):
    pair = _Pair(tmp_path)
    yield pair
    pair.host.catalog.close()


@pytest.mark.asyncio
async def test_nothing_goes_before_what_replaces_it_has_arrived(pair) -> None:
    truth = await pair.history()
    await pair.upload()
    before = {info.name async for info in pair.remote.scan("d/")}
    report = await expire.run(pair.host.site, {}, default=RULE, upload_patience_seconds=0)
    assert report.is_postponed
    assert report.expired_count == 0
    assert {info.name async for info in pair.remote.scan("d/")} == before
    for _ in range(3):  # moved packs and checkpoints, the condemn list, the final list
        await pair.upload()
        report = await expire.run(pair.host.site, {}, default=RULE, upload_patience_seconds=0)
    await pair.upload()
    kept = {point.at_us for point in report.points[0].points if point.keep}
    assert kept
    after = {info.name async for info in pair.remote.scan("d/")}
    assert len(before - after) > 5
    for at_us in kept:
        assert await pair.host.files_at("web", at_us, store=pair.remote) == truth[at_us]
        assert await pair.host.files_at("web", at_us) == truth[at_us]


@pytest.mark.asyncio
async def test_a_rebuilt_catalog_knows_what_has_not_arrived(pair) -> None:
    await pair.history(4)
    await pair.upload()
    truth = await pair.history(3)
    pending = {
        row.name
        for packs in (True, False)
        for row in await pair.host.catalog.read(objects.pending_uploads, 1000, packs=packs)
    }
    assert pending
    pair.host.catalog.close()
    await rebuild(
        pair.host.vault, str(pair.host.directory), clock=pair.host.clock, remote=pair.remote
    )
    pair.host.open()
    rows = [
        row
        for packs in (True, False)
        for row in await pair.host.catalog.read(objects.pending_uploads, 1000, packs=packs)
    ]
    assert {row.name for row in rows} == pending
    first = next(row for row in rows if row.kind == "J")
    assert set(first.needs) == {row.number for row in rows if row.kind == "P"}
    await pair.upload()
    for at_us, files in truth.items():
        assert await pair.host.files_at("web", at_us, store=pair.remote) == files


@pytest.mark.asyncio
async def test_the_journal_stays_until_the_checkpoints_have_arrived(pair) -> None:
    truth = await pair.history()
    await pair.upload()
    journal = {info.name async for info in pair.remote.scan("d/") if "/j/" in info.name}
    for _ in range(3):  # the checkpoints are there from the first run on, and wait here
        report = await expire.run(pair.host.site, {}, default=RULE, upload_patience_seconds=0)
        assert report.is_postponed
        assert journal <= {info.name async for info in pair.remote.scan("d/")}
        for at_us, files in truth.items():
            assert await pair.host.files_at("web", at_us, store=pair.remote) == files
