"""A batch is carried in one call of a thread, and what it says of itself is true meanwhile."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from sim.simhost import Machine, SimHost
from simloop import simulate

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.model.entry import EntryType
from streamd.pipeline.channel import BULK, LIVE

FILES = 5


def in_a_host(work) -> None:
    """Run `work(host)` beside the pipeline of a host whose source has some files."""

    async def scenario(machine: Machine) -> None:
        host = SimHost(machine)
        await host.open()
        host.active = await host.protection()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(host.pipeline.run(), name="pipeline")
            await work(host)
            await host.pipeline.drain()

    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(3, Path(directory))
        top = machine.fs.top[b"/r"]
        for number in range(FILES):
            machine.fs.create(top, b"%d" % number, EntryType.REGULAR, b"%d" % number * 200)
        try:
            simulate(scenario(machine), seed=3)
        finally:
            machine.bury()


async def found_of(host: SimHost):
    survey = await host.active._surveying.survey([DirtyPlace(b"/r", Depth.SCAN, 1)])
    return list(survey.findings())


async def hand_in(host: SimHost, lane: int) -> None:
    for finding in await found_of(host):
        await host.pipeline.submit(host.active.stream, lane, finding, first_us=1)
    await host.pipeline.quiesce()


@pytest.mark.parametrize("lane", [LIVE, BULK])
def test_an_ordinary_batch_is_one_hop_to_the_threads(lane, monkeypatch) -> None:
    hops: list[str] = []

    async def work(host: SimHost) -> None:
        loop = asyncio.get_running_loop()
        findings = await found_of(host)
        assert sum(len(finding.found) for finding in findings) > FILES
        real = loop.run_in_executor

        def counted(executor, func, *args):
            hops.append(func.__qualname__)
            return real(executor, func, *args)

        for finding in findings:
            parked = None

            def park(one):
                nonlocal parked
                parked = one

            monkeypatch.setattr(host.pipeline, "_park", park)
            monkeypatch.setattr(loop, "run_in_executor", counted)
            await host.pipeline.submit(host.active.stream, lane, finding, first_us=1)
            while parked is None:
                await asyncio.sleep(0.01)
            monkeypatch.undo()
            assert len(parked.ready.intents) == len(finding.found)
            host.pipeline._park(parked)
        assert hops == ["Carrier.carry"] * len(findings)
        await host.pipeline.quiesce()

    in_a_host(work)


def test_a_batch_counts_as_being_sealed_from_when_it_was_read() -> None:
    seen: list[tuple[str, int]] = []

    async def work(host: SimHost) -> None:
        pipeline = host.pipeline
        read, seal, describe = (
            host.source.read,
            pipeline._sealer.seal_pieces,
            pipeline._sealer.describe,
        )

        def noting(what, real):
            def noted(*args, **options):
                seen.append((what, pipeline.sealing_count))
                return real(*args, **options)

            return noted

        host.source.read = noting("read", read)
        pipeline._sealer.seal_pieces = noting("seal", seal)
        pipeline._sealer.describe = noting("describe", describe)
        await hand_in(host, BULK)

    in_a_host(work)
    assert set(seen) == {("read", 0), ("seal", 1), ("describe", 0)}


def test_a_batch_that_cannot_be_sealed_is_not_being_sealed_for_ever() -> None:
    async def work(host: SimHost) -> None:
        carrier = host.pipeline._carrier

        def broken(*_args):
            raise ValueError

        (finding,) = await found_of(host)
        host.pipeline._sealer.seal_pieces = broken
        with pytest.raises(ValueError):
            carrier.read_and_seal(host.source, finding.found, (1, BULK), 0)
        assert carrier.sealing_count == 0

    in_a_host(work)


def test_the_content_is_let_go_before_the_call_returns() -> None:
    """The budget is given back then: nothing of the batch may still point into its memory."""

    async def work(host: SimHost) -> None:
        arenas: list[bytearray] = []
        read = host.source.read

        def into_memory_of_ours(requests):
            batch = read(requests)
            arenas.append(bytearray(batch.arena))
            batch.arena = memoryview(arenas[-1])
            return batch

        host.source.read = into_memory_of_ours
        (finding,) = await found_of(host)
        carried = host.pipeline._carrier.carry(host.source, finding.found, (1, BULK), 0, 0)
        assert carried.content.data is not None
        assert len(arenas[0]) >= FILES * 200
        arenas[0].clear()  # fails while somebody looks at it

    in_a_host(work)
