"""The newest kept point comes from the catalog, and is proved as if it had been replayed."""

import random

import pytest
from unit.maintenance.smallhost import DAY_US, SmallHost

from streamd.errors import VaultDamaged
from streamd.format import batch, checkpoint, state_sum
from streamd.maintenance import expire, rooting
from streamd.maintenance.checkpointing import cut_pages
from streamd.maintenance.live import LiveSet
from streamd.model.record import StateSum
from streamd.policy.retention import Rule
from streamd.vault.state_reader import StateReader

NEWEST = Rule(continuous_us=0)


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


@pytest.fixture
def replayed(monkeypatch) -> list[list[int]]:
    """Return the instants that are replayed."""
    asked: list[list[int]] = []
    replay = rooting.replay

    def noting(site, reader, source, instants):
        asked.append(list(instants))
        return replay(site, reader, source, instants)

    monkeypatch.setattr(rooting, "replay", noting)
    return asked


async def days(host: SmallHost, count: int) -> dict[int, dict[bytes, bytes]]:
    rng, truth = random.Random(count), {}
    files = {b"same": rng.randbytes(9000), b"other": b"1"}
    for _ in range(count):
        host.clock.us += DAY_US
        files[b"changing"] = rng.randbytes(200)
        truth[await host.capture("web", files)] = dict(files)
    return truth


@pytest.mark.asyncio
async def test_the_newest_point_is_not_replayed(host, replayed) -> None:
    truth = await days(host, 5)
    report = await expire.run(host.site, {}, default=NEWEST)
    assert report.checkpoints_written == 1
    assert not replayed
    newest = max(truth)
    (row,) = await StateReader(host.vault).checkpoints("web")
    assert row.at_ms == newest // 1000
    assert await host.files_at("web", newest) == truth[newest]


@pytest.mark.asyncio
async def test_points_before_the_newest_are_replayed(host, replayed) -> None:
    truth = await days(host, 6)
    report = await expire.run(host.site, {}, default=Rule(continuous_us=0, daily=3))
    kept = [point.at_us for point in report.points[0].points if point.keep]
    assert replayed == [kept[:-1]]
    assert kept[-1] == max(truth)
    for at_us in kept:
        assert await host.files_at("web", at_us) == truth[at_us]


@pytest.mark.asyncio
async def test_a_catalog_without_those_rows_is_not_believed(host, replayed) -> None:
    truth = await days(host, 3)
    await host.catalog.write(
        lambda connection: connection.execute("DELETE FROM dirent WHERE name = ?", (b"other",))
    )
    await expire.run(host.site, {}, default=NEWEST)
    assert replayed == [[max(truth)]]
    assert await host.files_at("web", max(truth)) == truth[max(truth)]


@pytest.mark.asyncio
async def test_a_catalog_of_another_state_is_not_asked(host, replayed) -> None:
    truth = await days(host, 3)
    await host.catalog.write(
        lambda connection: connection.execute("UPDATE source SET last_us = last_us + 1")
    )
    await expire.run(host.site, {}, default=NEWEST)
    assert replayed == [[max(truth)]]


@pytest.mark.asyncio
async def test_what_the_catalog_refers_to_is_marked_unless_it_was_just_proved(host) -> None:
    await days(host, 2)
    state = await host.catalog.read(
        lambda connection: connection.execute("SELECT id, total, key_count FROM source").fetchone()
    )
    for count, is_marked in ((state[2], False), (state[2] + 1, True)):
        live = LiveSet()
        connection = host.catalog.open_reader()
        await live.mark_catalog(connection, {state[0]: StateSum(state[1], count)})
        assert bool(list(live.all_ids())) is is_marked
        connection.close()
        live.close()


class Pages:
    """Pages of a checkpoint that somebody made up."""

    def __init__(self, *pages: list[tuple[bytes, bytes]]) -> None:
        self.bodies = {bytes([n]) * 32: checkpoint.encode_page(p) for n, p in enumerate(pages)}
        rows = [row for page in pages for row in page]
        self.root = checkpoint.CheckpointRoot(
            source=b"s" * 16,
            at_us=1,
            marks=(),
            state=StateSum(state_sum.to_bytes(batch.sum_rows(rows)), len(rows)),
            merkle=b"",
            pages=tuple(checkpoint.PageRow(b"", page, 1) for page in self.bodies),
        )
        self.chunks = self

    async def read_chunks(self, ids, role):
        del role
        for page in sorted(ids, reverse=True):  # in any order
            yield {page: memoryview(self.bodies[page])}


async def prove(pages: Pages) -> None:
    live = LiveSet()
    try:
        await rooting._prove(pages, "root", pages.root, live)
    finally:
        live.close()


@pytest.mark.asyncio
async def test_pages_that_hold_what_the_sum_says_are_proved() -> None:
    await prove(Pages([(b"a", b"1"), (b"b", b"2")], [(b"c", b"3")]))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "pages",
    [
        [[(b"a", b"1"), (b"a", b"1")]],
        [[(b"b", b"1"), (b"a", b"1")]],
        [[(b"a", b"1"), (b"c", b"1")], [(b"c", b"1")]],
        [[(b"c", b"1")], [(b"a", b"1")]],
    ],
)
async def test_a_key_that_is_there_twice_or_out_of_order_is_no_state(pages) -> None:
    with pytest.raises(VaultDamaged, match="twice"):
        await prove(Pages(*pages))


@pytest.mark.asyncio
async def test_pages_of_another_sum_are_no_proof() -> None:
    pages = Pages([(b"a", b"1"), (b"b", b"2")])
    (page,) = pages.bodies
    pages.bodies[page] = checkpoint.encode_page([(b"a", b"1"), (b"b", b"3")])
    with pytest.raises(VaultDamaged, match="not the state"):
        await prove(pages)


def test_pages_are_cut_the_same_way_whether_or_not_their_rows_are_long() -> None:
    short = [(b"%05d" % n, b"v") for n in range(3000)]
    long = [(key, b"v" * 3000) for key, _ in short]
    counts = [page.row.row_count for page in cut_pages(iter(short), lambda body: body[:32])]
    parts = [page.row.row_count for page in cut_pages(iter(long), lambda body: body[:32])]
    assert sum(counts) == sum(parts) == 3000
    assert max(parts) <= 1024 * 1024 // 3000
