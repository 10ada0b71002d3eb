"""The pipeline as a whole: it drains, it can be cancelled anywhere, and a failure ends it."""

import asyncio
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from sim.simhost import Machine, SimHost
from simloop import simulate

from streamd.catalog import dirty, objects
from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.errors import BlobConflict, StorageRefused
from streamd.model.entry import EntryType
from streamd.model.record import Gap, Incident, Mark
from streamd.pipeline import capture, survey
from streamd.pipeline.budget import Budget
from streamd.pipeline.channel import BULK, LIVE
from streamd.pipeline.cut import Cut
from streamd.pipeline.findings import Finding
from streamd.vault.state_reader import StateReader


async def look(host: SimHost, lane: int, *, number: int = 0, pause: float = 0.0) -> int:
    """Survey everything and hand it in; returns how many findings there were."""
    protection = host.active
    survey = await protection._surveying.survey([DirtyPlace(b"/r", Depth.SCAN, 1)])
    cut = Cut() if lane == LIVE else None
    count = 0
    for finding in survey.findings():
        await asyncio.sleep(pause)
        await host.pipeline.submit(protection.stream, lane, finding, first_us=1, cut=cut)
        count += 1
    if cut is not None and not number:
        host.pipeline.let_go(cut)
    if number:
        await host.pipeline.submit(
            protection.stream, lane, Finding(), first_us=1, survey_done=number
        )
    return count


async def opened(machine: Machine) -> SimHost:
    host = SimHost(machine)
    await host.open()
    host.active = await host.protection()
    return host


async def captured(machine: Machine) -> int:
    with await StateReader(machine.vault()).state_at("sim", 1 << 60) as state:
        return sum(1 for entry in state.walk() if entry.version is not None)


def run(scenario, seeds=range(4)) -> None:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as directory:
            machine = Machine(seed, Path(directory))
            top = machine.fs.top[b"/r"]
            for number in range(12):
                machine.fs.create(top, b"%d" % number, EntryType.REGULAR, b"%d" % number * 200)
            try:
                simulate(scenario(machine), seed=seed)
            finally:
                machine.bury()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(survey, "BATCH_ENTRIES_MAX", 3)
    monkeypatch.setattr(survey, "BATCH_BYTES_MAX", 700)


@pytest.mark.parametrize("lane", [LIVE, BULK])
def test_a_drain_finishes_with_everything_committed(lane) -> None:
    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            assert await look(host, lane) > 4
            await host.pipeline.drain()
        assert host.pipeline._open_jobs == 0
        assert host.pipeline.budget.used_bytes == 0
        assert host.active.stream.in_flight.entries == {}
        assert not host.index._coming
        assert await host.catalog.read(objects.unput) == []
        assert await captured(machine) == 13

    run(scenario)


def test_quiesce_waits_until_what_was_handed_in_is_in_the_store() -> None:
    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        host.faulty.delay_seconds_max = 3.0
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await look(host, LIVE)
            await host.pipeline.quiesce()
            assert await captured(machine) == 13
            await host.pipeline.quiesce()  # nothing left: at once
            await host.pipeline.drain()

    run(scenario)


def test_who_is_cancelled_while_handing_in_leaves_no_hole(monkeypatch) -> None:
    """A source that stops while the intake is full: the lane goes on with the next one."""
    monkeypatch.setattr(capture, "INTAKE_ITEMS_MAX", 1)

    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        for seconds in (0.0, 0.0005, 0.001, 0.002, 0.004):
            async with asyncio.TaskGroup() as group:
                handing = group.create_task(look(host, BULK), name="look")
                if seconds:
                    await asyncio.sleep(seconds)
                handing.cancel()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await asyncio.sleep(1)
            host.active.stream.in_flight.settle(list(host.active.stream.in_flight.entries))
            await look(host, BULK)
            await host.pipeline.drain()
        assert await captured(machine) == 13

    run(scenario)


@pytest.mark.slow
def test_cancelling_at_any_moment_ends_promptly() -> None:
    async def scenario(machine: Machine) -> None:
        loop = asyncio.get_running_loop()
        host = await opened(machine)
        host.faulty.delay_seconds_max = 0.01
        async with asyncio.TaskGroup() as group:
            running = group.create_task(host.pipeline.run(), name="pipeline")
            handing = group.create_task(look(host, machine.rng.choice([LIVE, BULK])), name="look")
            await asyncio.sleep(machine.rng.random() * 0.02)
            running.cancel()
            handing.cancel()
            cancelled = loop.time()
            await asyncio.wait([running, handing])
            assert loop.time() - cancelled < 0.1

    run(scenario, seeds=range(60))


@pytest.mark.parametrize("where", ["read", "store", "catalog", "pack"])
def test_an_unexpected_failure_ends_the_run(where) -> None:
    async def scenario(machine: Machine) -> None:
        host = await opened(machine)

        async def refuse(*_args, **_options):
            raise StorageRefused("no")

        def broken(*_args, **_options):
            raise StorageRefused("no")

        if where == "read":
            host.source.read = broken
        elif where == "store":
            host.pipeline._store.put = refuse
        elif where == "pack":
            host.writer.encode_pack = broken
        else:
            host.journal.commit = broken
        lane = BULK if where == "pack" else LIVE
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(host.pipeline.run(), name="pipeline")
                await look(host, lane, number=1)
                await asyncio.Event().wait()
        assert caught.group_contains(StorageRefused)

    run(scenario)


def test_other_bytes_under_our_next_name_stop_the_pipeline() -> None:
    """Somebody else writes with this host's key: that is not for a retry to solve."""

    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        put = machine.store.put

        async def stolen(name, data):
            if "/j/" in name:
                await put(name, b"another writer's")
            await put(name, data)

        machine.store.put = stolen
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(host.pipeline.run(), name="pipeline")
                await look(host, LIVE, number=1)
                await asyncio.Event().wait()
        assert caught.group_contains(BlobConflict)

    run(scenario, seeds=[1])


def test_a_live_cut_that_is_not_whole_does_not_hold_the_memory_for_ever(monkeypatch) -> None:
    """Its findings wait for its last one, which waits for memory: then they go in parts."""
    monkeypatch.setattr(capture, "LIVE_CUT_MAX", 1000)

    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        host.pipeline.budget.limit_bytes = Budget(9000).limit_bytes
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await look(host, LIVE, number=1, pause=0.1)
            while host.pipeline._open_jobs:
                await asyncio.sleep(0.1)
            assert await captured(machine) == 13
            await host.pipeline.drain()

    run(scenario)


def test_gaps_and_marks_are_recorded_with_their_finding() -> None:
    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        stream = host.active.stream
        gap, mark = Gap(1, 2, "overflow", b"/r"), Mark("release")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await look(host, BULK)
            await host.pipeline.submit(
                stream, BULK, Finding(), first_us=1, gaps=[gap], marks=[mark]
            )
            await host.pipeline.drain()
        reader = StateReader(machine.vault())
        (recorded,) = await reader.gaps("sim")
        assert (recorded.start_us, recorded.scope) == (1, b"/r")
        assert recorded.end_us > 2  # it ends with what closes it
        assert [each for _, each in await reader.marks("sim")] == [Incident("release")]

    run(scenario, seeds=[1])


def test_a_place_is_forgotten_when_its_survey_is_committed_and_not_before() -> None:
    async def scenario(machine: Machine) -> None:
        host = await opened(machine)
        number = host.active.stream.number
        host.faulty.delay_seconds_max = 2.0
        await host.catalog.write(dirty.note, number, {b"/r": Depth.SCAN}, 77)
        await host.catalog.write(dirty.pick, number, 5, scan=True, limit=10)
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await look(host, BULK)
            assert await host.catalog.read(dirty.oldest_us, number) == 77
            await host.pipeline.submit(
                host.active.stream, BULK, Finding(), first_us=77, survey_done=5
            )
            await host.pipeline.quiesce()
            # what was read within a tick of its last change is looked at again, since then
            assert await host.catalog.read(dirty.oldest_us, number) != 77
            assert await captured(machine) == 13
            await host.pipeline.drain()

    run(scenario, seeds=[1, 2])


@pytest.mark.slow
def test_what_is_in_flight_is_reckoned_at_what_it_takes(monkeypatch) -> None:
    """Of very many small files the entries are the memory, not their content."""
    monkeypatch.setattr(survey, "BATCH_ENTRIES_MAX", 50)
    monkeypatch.setattr(capture, "INTAKE_ITEMS_MAX", 2)
    monkeypatch.setattr(survey, "BATCH_BYTES_MAX", 4 << 20)
    limit = 1 << 20

    async def scenario(machine: Machine) -> None:
        top = machine.fs.top[b"/r"]
        for number in range(1000):
            machine.fs.create(top, b"a-name-of-some-length-%d" % number, EntryType.REGULAR, b"x")
        host = await opened(machine)
        pipeline = host.pipeline
        pipeline.budget.limit_bytes = limit

        async def never(_: object) -> None:
            await asyncio.Event().wait()

        pipeline._commit = never
        tracemalloc.start()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pipeline.run(), name="pipeline")
            looking = group.create_task(look(host, BULK), name="look")
            await asyncio.sleep(60)
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            waiting = len(host.active.stream.in_flight.entries)
            budget = pipeline.budget.used_bytes
            looking.cancel()
            running.cancel()
        assert 200 < waiting < 1000
        assert budget <= limit
        read = sum(len(each.ready.intents) for each in pipeline._parked[1, BULK].values())
        assert budget >= capture.ENTRY_COST * read
        assert size / waiting <= capture.ENTRY_COST, size / waiting

    run(scenario, seeds=[1])
