"""Index and history runs change nothing but the time it takes; and they are kept by themselves."""

import random

import msgspec
import pytest
from msgspec.structs import replace
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.errors import KeyRejected
from streamd.format import index_run, layout
from streamd.format.keys import KeyChain
from streamd.maintenance import expire, history_writing, index_writing, runs, stretch
from streamd.maintenance.runs import keep_runs
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.model.ids import ROOT_FID
from streamd.model.record import Mark, dirent_prefix
from streamd.policy.retention import Rule
from streamd.storage.memory import MemoryBlobStore
from streamd.vault import chunk_reader
from streamd.vault.history_reader import HistoryReader
from streamd.vault.index_reader import generations, newest_index
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import Vault

LATEST_US = 1 << 62


@pytest.fixture
def host(tmp_path):
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


async def busy(host: SmallHost, hours: int = 16, seed: int = 5) -> dict[int, dict[bytes, bytes]]:
    """Change two sources every quarter of an hour; return what `web` held at each instant."""
    rng, truth, files = random.Random(seed), {}, {}
    for step in range(hours * 4):
        host.clock.us += HOUR_US // 4
        files[b"f%d" % rng.randrange(12)] = rng.randbytes(rng.choice([5, 900, 4000]))
        if len(files) > 5:
            files.pop(rng.choice(sorted(files)))
        mark = Mark(f"m{step}") if step % 40 == 7 else None
        truth[await host.capture("web", files, mark=mark)] = dict(files)
        if step % 9 == 0:
            await host.capture("db", {b"table": rng.randbytes(50)})
    return truth


def names_of(host: SmallHost, letter: str) -> list[str]:
    return sorted(name for name in host.store._blobs if name.split("/")[2:3] == [letter])


def without_runs(host: SmallHost) -> Vault:
    """The same vault for a reader that ignores the accelerators: it does not even see them."""
    store = MemoryBlobStore(host.clock)
    ignored = set(names_of(host, "x") + names_of(host, "h"))
    store._blobs = {name: blob for name, blob in host.store._blobs.items() if name not in ignored}
    return replace(host.vault, store=store)


async def told(vault: Vault, source: str, prefixes=None) -> list:
    """Everything that listings say of a source."""
    reader = StateReader(vault)
    records = [
        (at_us, int(record.op), record.key, record.value)
        async for at_us, record in reader.changes(source, -1, LATEST_US, prefixes=prefixes)
        if record.op in (0, 1, 3, 4)
    ]
    return [
        records,
        await reader.gaps(source),
        await reader.marks(source),
        await reader.sources(),
        await reader.heads(),
        await reader.commit_times(source),
    ]


@pytest.mark.asyncio
async def test_a_reader_comes_to_the_same_with_runs_and_without(host) -> None:
    truth = await busy(host)
    report = await keep_runs(host.site, host.store)
    assert report.history_runs > 10
    assert report.index_chunks > 100
    await host.capture("web", {b"tail": b"beyond the runs"})
    for source in ("web", "db"):
        for prefixes in (None, (b"s",), (b"d",), (dirent_prefix(ROOT_FID),)):
            fast = await told(host.vault, source, prefixes)
            assert fast == await told(without_runs(host), source, prefixes)
            assert fast[0]
    for at_us in list(truth)[::7]:
        assert await host.files_at("web", at_us) == truth[at_us]


@pytest.mark.asyncio
async def test_a_span_of_time_is_the_same_too(host) -> None:
    truth = await busy(host)
    await keep_runs(host.site, host.store)
    times = list(truth)
    for start, end in ((times[3], times[40]), (times[30], times[30]), (times[55], LATEST_US)):
        fast, slow = [
            [
                (at_us, record.op, record.key)
                async for at_us, record in StateReader(vault).changes("web", start, end)
                if record.op < 2
            ]
            for vault in (host.vault, without_runs(host))
        ]
        assert fast == slow


@pytest.mark.asyncio
async def test_history_is_read_from_runs_and_not_from_segments(host) -> None:
    await busy(host)
    await keep_runs(host.site, host.store)
    read = []

    class Watched(MemoryBlobStore):
        async def get(self, name, **how):
            read.append(name)
            return await super().get(name, **how)

    store = Watched(host.clock)
    store._blobs = host.store._blobs
    await told(replace(host.vault, store=store), "web")
    segments = [name for name in read if layout.parse_segment_name(name)]
    assert len(set(segments)) < len(names_of(host, "j")) / 10


@pytest.mark.asyncio
async def test_a_day_that_is_over_becomes_one_run(host) -> None:
    await busy(host, hours=14)  # of a day that began nine hours before
    await keep_runs(host.site, host.store)
    assert {span.span.level for span in await HistoryReader(host.vault).listed()} == {1}
    host.clock.us += 2 * DAY_US
    await host.capture("web", {b"next": b"day"})
    before = await told(without_runs(host), "web")
    report = await keep_runs(host.site, host.store)
    assert report.dropped > 10
    listed = await HistoryReader(host.vault).listed()
    assert {run.span.level for run in listed if run.span.source == host.identity("web").id} == {2}
    assert await told(host.vault, "web") == before
    await keep_runs(host.site, host.store)  # lets go of the index before the last
    assert await keep_runs(host.site, host.store) == runs.RunsReport()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_runs_beyond_the_size_of_one_are_several(host, monkeypatch) -> None:
    monkeypatch.setattr(history_writing, "RUN_BYTES_MAX", 3000)
    monkeypatch.setattr(stretch, "RUN_BYTES_MAX", 3000)
    await busy(host, hours=14)
    await keep_runs(host.site, host.store)
    host.clock.us += 2 * DAY_US
    await keep_runs(host.site, host.store)
    assert await told(host.vault, "web") == await told(without_runs(host), "web")
    monkeypatch.setattr(stretch, "RUN_BYTES_MAX", 10)
    await busy(host, hours=3, seed=6)
    assert (await keep_runs(host.site, host.store)).history_runs == 0  # none may be so small
    assert await told(host.vault, "web") == await told(without_runs(host), "web")


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_day_of_many_records_is_merged_part_by_part(host, monkeypatch) -> None:
    await busy(host, hours=14)
    await keep_runs(host.site, host.store)
    counts = []
    for run in await HistoryReader(host.vault).listed():
        counts.append(len((await HistoryReader(host.vault).read_whole(run.name))[1]))
    most = 3 * max(counts)
    monkeypatch.setattr(history_writing, "MERGED_RECORDS_MAX", most)
    held = []
    real = history_writing._fits
    monkeypatch.setattr(
        history_writing,
        "_fits",
        lambda group, after: held.append(sum(len(rows) for _, rows in group)) or real(group, after),
    )
    host.clock.us += 2 * DAY_US
    await host.capture("web", {b"next": b"day"})
    before = await told(without_runs(host), "web")
    await keep_runs(host.site, host.store)
    assert max(held) <= most
    merged = [run for run in await HistoryReader(host.vault).listed() if run.span.level == 2]
    assert len(merged) > 1
    assert await told(host.vault, "web") == before


@pytest.mark.asyncio
@pytest.mark.slow
async def test_retention_takes_the_runs_of_a_journal_that_was_cut_off(host) -> None:
    await busy(host, hours=16)
    await keep_runs(host.site, host.store)
    rule = Rule(continuous_us=4 * HOUR_US, daily=2)
    await expire.run(host.site, {}, default=rule)
    first = await told(without_runs(host), "web")
    assert await told(host.vault, "web") == first
    assert (await keep_runs(host.site, host.store, force_index=True)).dropped > 5
    assert await told(host.vault, "web") == first
    report = await Verifier(host.vault, Level.FULL, clock=host.clock).run()
    assert report.is_sound, report.damage
    assert report.run_count >= 5
    assert len(await generations(host.vault)) <= 2


@pytest.mark.asyncio
async def test_an_index_is_due_when_much_is_new_or_something_is_gone(host, monkeypatch) -> None:
    assert await runs.index_is_due(host.site, host.store)
    await busy(host, hours=4)
    await keep_runs(host.site, host.store)
    assert not await runs.index_is_due(host.site, host.store)
    monkeypatch.setattr(runs, "UNCOVERED_MIN", 3)
    await busy(host, hours=4)
    assert await runs.index_is_due(host.site, host.store)
    await keep_runs(host.site, host.store)
    assert not await runs.index_is_due(host.site, host.store)
    await host.store.delete(names_of(host, "j")[0])
    assert await runs.index_is_due(host.site, host.store)


@pytest.mark.asyncio
async def test_the_index_finds_chunks_without_the_tables_of_all_objects(host, monkeypatch) -> None:
    truth = await busy(host)
    await keep_runs(host.site, host.store)
    monkeypatch.setattr(chunk_reader, "INDEX_PAYS", 1)
    opened = []
    original = chunk_reader.ChunkReader._load

    async def watched(self, info):
        opened.append(info.name)
        return await original(self, info)

    monkeypatch.setattr(chunk_reader.ChunkReader, "_load", watched)
    at_us = list(truth)[-1]
    assert await host.files_at("web", at_us) == truth[at_us]
    assert len(set(opened)) <= 2 * len(truth[at_us])
    for name in names_of(host, "x"):
        await host.store.delete(name)
    opened.clear()
    assert await host.files_at("web", at_us) == truth[at_us]


@pytest.mark.asyncio
@pytest.mark.slow
@pytest.mark.parametrize("letter", ["x", "h"])
@pytest.mark.parametrize("how", ["flip", "cut", "junk", "gone"])
async def test_a_damaged_run_hinders_nobody_and_is_reported(host, monkeypatch, letter, how) -> None:
    monkeypatch.setattr(chunk_reader, "INDEX_PAYS", 1)
    truth = await busy(host, hours=10)
    await keep_runs(host.site, host.store)
    expected = [await told(without_runs(host), source) for source in ("web", "db")]
    for name in names_of(host, letter):
        blob, at_us = host.store._blobs[name]
        if how == "gone" and not name.endswith("/done"):
            del host.store._blobs[name]
        else:
            changed = {"flip": blob[:-300] + b"\xff" + blob[-299:], "cut": blob[:-40]}
            host.store._blobs[name] = (changed.get(how, b"x" * len(blob)), at_us)
    assert [await told(host.vault, source) for source in ("web", "db")] == expected
    at_us = list(truth)[20]
    assert await host.files_at("web", at_us) == truth[at_us]
    report = await Verifier(host.vault, Level.STRUCTURE, clock=host.clock).run()
    assert how == "gone" or not report.is_sound
    assert report.missing_count == 0
    await keep_runs(host.site, host.store, force_index=True)
    assert await host.files_at("web", at_us) == truth[at_us]


@pytest.mark.asyncio
async def test_a_host_that_may_not_read_writes_runs_of_what_it_wrote(host) -> None:
    write_only = msgspec.structs.replace(host.key, private=None)
    host.key, key = write_only, host.key
    host.catalog.close()
    host.open()
    await busy(host, hours=4)
    report = await keep_runs(host.site, host.store)
    assert report.history_runs >= 4
    assert report.index_chunks > 10
    vault = replace(host.vault, keys=KeyChain(key))
    fast = await told(vault, "web")
    host.vault = vault
    assert fast == await told(without_runs(host), "web")
    # after a restart the sessions are gone: it goes on behind what it cannot read
    host.catalog.close()
    host.open()
    with pytest.raises(KeyRejected):
        await StateReader(host.vault).gaps("web")
    await keep_runs(host.site, host.store)


@pytest.mark.asyncio
async def test_many_chunks_take_several_shards(host, monkeypatch) -> None:
    monkeypatch.setattr(index_run, "SHARD_CHUNKS_TARGET", 20)
    truth = await busy(host, hours=10)
    assert (await keep_runs(host.site, host.store)).index_chunks > 60
    index = await newest_index(host.vault, [])
    assert index is not None
    assert len(index.manifest.shards) > 2
    with host.catalog.reader() as connection:
        rows = dict(
            connection.execute(
                "SELECT c.id, o.name FROM chunk c JOIN object o ON o.number = c.object"
            )
        )
    assert await index.find([*rows, bytes(32)]) == rows
    assert {chunk async for shard in index.shards() for chunk, _ in shard.rows()} == rows.keys()
    assert await host.files_at("web", list(truth)[5]) == list(truth.values())[5]


@pytest.mark.asyncio
async def test_too_much_for_an_index_is_said_and_does_no_harm(host, monkeypatch) -> None:
    await busy(host, hours=2)
    monkeypatch.setattr(index_run, "SHARD_CHUNKS_MAX", 1)
    assert (await keep_runs(host.site, host.store)).index_chunks == -1
    monkeypatch.setattr(index_run, "OBJECTS_MAX", 1)
    assert (await keep_runs(host.site, host.store)).index_chunks == -1
    assert await newest_index(host.vault, []) is None
    assert await index_writing.write_index(host.site, host.store) == -1
