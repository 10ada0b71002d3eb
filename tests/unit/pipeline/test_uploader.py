"""The uploader: an order that is always whole, refusals that pause it, and losses that it reports."""

import asyncio
import random

import pytest
from simloop import simulate
from stores import FaultyBlobStore, RecordingBlobStore
from vaultbuilder import ManualClock

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.errors import BlobConflict, StorageRefused, StreamdError, VaultUnreachable
from streamd.pipeline.upload import FINISH_PATIENCE_SECONDS, Uploader
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName


class Told:
    """Remembers what the uploader reports."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.delays: list[dict[str, float]] = []
        self.failures: list[StreamdError] = []

    def uploaded(self, row, seconds, delays) -> None:
        self.arrived.append(row.name)
        self.delays.append(delays)

    def upload_failed(self, error) -> None:
        self.failures.append(error)


class Copying:
    """A catalog with objects that are local, and a remote store."""

    def __init__(self, directory) -> None:
        self.clock = ManualClock()
        self.catalog = Catalog(str(directory))
        self.local = MemoryBlobStore(self.clock)
        self.disk = MemoryBlobStore(self.clock)
        self.remote = RecordingBlobStore(self.disk)
        self.told = Told()
        self.numbers: dict[str, int] = {}

    async def add(self, name: str, kind: str, *needs: str, state=ObjectState.LOCAL) -> None:
        await self.local.put(BlobName(name), name.encode())
        self.numbers[name] = await self.catalog.write(
            lambda db: objects.add(
                db,
                name=name,
                kind=kind,
                size=len(name),
                now_us=1,
                state=state,
                needs=[self.numbers[need] for need in needs],
            )
        )

    def uploader(self, remote=None) -> Uploader:
        return Uploader(self.catalog, self.local, remote or self.remote, self.told, self.clock)


@pytest.fixture
def run(tmp_path):
    """Run scenarios that are given a Copying, under several interleavings."""

    def runner(scenario, seeds=range(5)) -> None:
        for seed in seeds:
            directory = tmp_path / str(seed)
            directory.mkdir()
            one = Copying(directory)
            try:
                simulate(scenario(one), seed=seed)
            finally:
                one.catalog.close()

    return runner


async def upload_all(uploader: Uploader, seconds: float = 3600) -> None:
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        running = group.create_task(uploader.run(), name="upload")
        await uploader.finish()
        running.cancel()


async def history(one: Copying) -> None:
    """Segments that each need the pack before them, as capture makes them."""
    for number in range(6):
        await one.add(f"p{number}", "P")
        await one.add(f"j{number}", "J", f"p{number}")


def test_a_segment_goes_after_what_it_needs_and_after_the_one_before(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        await upload_all(one.uploader())
        order = one.remote.names("put")
        assert [name for name in order if name[0] == "j"] == [f"j{n}" for n in range(6)]
        for number in range(6):
            assert order.index(f"p{number}") < order.index(f"j{number}")
        assert sorted(one.told.arrived) == sorted(one.numbers)

    run(scenario)


@pytest.mark.slow
def test_over_a_bad_link_the_order_is_the_same_and_everything_arrives(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        link = FaultyBlobStore(one.remote, seed=random.randrange(99), rate=0.5, delay_seconds_max=2)
        await upload_all(one.uploader(link))
        landed = list(dict.fromkeys(one.remote.names("put")))
        assert [name for name in landed if name[0] == "j"] == [f"j{n}" for n in range(6)]
        assert one.told.failures
        assert {info.name async for info in one.disk.scan("")} == set(one.numbers)

    run(scenario)


def test_what_is_not_put_here_yet_is_not_uploaded(run) -> None:
    async def scenario(one: Copying) -> None:
        await one.add("p", "P", state=ObjectState.UNPUT)
        await one.add("j", "J", "p")
        uploader = one.uploader()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            await asyncio.sleep(60)
            assert one.remote.calls == []
            await one.catalog.write(objects.mark_put, one.numbers["p"], ObjectState.LOCAL)
            uploader.wake()
            await asyncio.sleep(1)
            assert one.remote.names("put") == ["p", "j"]
            running.cancel()

    run(scenario)


def test_a_refusal_pauses_and_uploading_resumes_by_itself(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        refused = [True]

        def gate(_call) -> None:
            if refused[0]:
                raise StorageRefused("403")

        one.remote.before = gate
        uploader = one.uploader()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            await asyncio.sleep(300)
            assert uploader.state == "storage-refused"
            # five tasks, one attempt in ten seconds each: a refusal is not hammered at
            assert len(one.remote.calls) <= 5 * (300 / 10 + 1)
            assert one.told.arrived == []
            refused[0] = False
            await uploader.finish()
            running.cancel()
        assert uploader.state == "uploading"
        assert len(one.told.arrived) == 12

    run(scenario)


def test_news_are_taken_up_at_once(run) -> None:
    """A wake-up that comes while the uploader looks is not lost."""

    async def scenario(one: Copying) -> None:
        loop = asyncio.get_running_loop()
        uploader = one.uploader()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            for number in range(20):
                await one.add(f"j{number}", "J")
                uploader.wake()
                added = loop.time()
                while f"j{number}" not in one.told.arrived:
                    await asyncio.sleep(0.01)
                assert loop.time() - added < 1
            running.cancel()

    run(scenario)


def test_a_lost_local_object_is_reported_and_holds_the_order(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        await one.local.delete(BlobName("j2"))
        uploader = one.uploader()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            await asyncio.sleep(100)
            running.cancel()
        assert any(isinstance(error, BlobConflict) for error in one.told.failures)
        assert [name for name in one.told.arrived if name[0] == "j"] == ["j0", "j1"]

    run(scenario)


def test_a_lost_local_object_that_had_arrived_is_fine(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        await one.disk.put(BlobName("j2"), b"j2")
        await one.local.delete(BlobName("j2"))
        await upload_all(one.uploader())
        assert one.told.failures == []

    run(scenario)


def test_other_bytes_in_the_container_stop_the_journal_and_are_reported(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        await one.disk.put(BlobName("j2"), b"somebody else's")
        uploader = one.uploader()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            await asyncio.sleep(100)
            running.cancel()
        assert uploader.state == "blob-conflict"
        assert [name for name in one.told.arrived if name[0] == "j"] == ["j0", "j1"]

    run(scenario)


def test_a_capture_does_not_wait_for_ever(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        link = FaultyBlobStore(one.remote, down=True)
        loop = asyncio.get_running_loop()
        uploader = one.uploader(link)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            with pytest.raises(VaultUnreachable):
                await uploader.finish()
            running.cancel()
        assert loop.time() < FINISH_PATIENCE_SECONDS + 5

    run(scenario, seeds=[1])


def test_the_delay_of_each_source_is_told(run) -> None:
    async def scenario(one: Copying) -> None:
        await one.add("j", "J")

        def wait(db) -> None:
            db.execute(
                "INSERT INTO source (number, name, id, total) VALUES (1, 'web', x'00', x'00')"
            )
            objects.wait_for(db, one.numbers["j"], {1: one.clock.us - 7_000_000})

        await one.catalog.write(wait)
        await upload_all(one.uploader())
        assert one.told.delays == [{"web": 7.0}]

    run(scenario, seeds=[1])


class Barrier:
    """A gate that somebody opens and closes."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    async def opened(self) -> None:
        await self.is_open.wait()

    def may_ask(self) -> bool:
        return self.is_open.is_set()


def test_while_the_gate_is_closed_nothing_is_even_read(run) -> None:
    async def scenario(one: Copying) -> None:
        await history(one)
        reading = RecordingBlobStore(one.local)
        gate = Barrier()
        uploader = Uploader(one.catalog, reading, one.remote, one.told, one.clock, gate=gate)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uploader.run(), name="upload")
            await asyncio.sleep(86_400)
            assert reading.calls == []
            gate.is_open.set()
            await uploader.finish()
            running.cancel()
        assert sorted(one.told.arrived) == sorted(one.numbers)

    run(scenario)


def test_what_closes_the_gate_is_not_waited_for_twice(run) -> None:
    async def scenario(one: Copying) -> None:
        await one.add("j0", "J")
        gate = Barrier()
        gate.is_open.set()
        loop = asyncio.get_running_loop()

        def refuse(_call) -> None:
            one.remote.before = lambda _: None
            gate.is_open.clear()
            loop.call_later(2, gate.is_open.set)
            raise StorageRefused("403")

        one.remote.before = refuse
        uploader = Uploader(one.catalog, one.local, one.remote, one.told, one.clock, gate=gate)
        began = loop.time()
        await upload_all(uploader)
        assert 2 <= loop.time() - began < 5

    run(scenario)


def test_a_capture_by_hand_ends_soon_with_what_an_operator_has_to_mend(run) -> None:
    async def scenario(one: Copying) -> None:
        await one.add("j0", "J")

        def refuse(_call) -> None:
            raise StorageRefused("403")

        one.remote.before = refuse
        began = asyncio.get_running_loop().time()
        with pytest.raises(ExceptionGroup) as caught:
            await upload_all(one.uploader())
        assert caught.group_contains(StorageRefused)
        assert asyncio.get_running_loop().time() - began < FINISH_PATIENCE_SECONDS

    run(scenario)


def test_no_more_packs_are_in_memory_than_said(run) -> None:
    async def scenario(one: Copying) -> None:
        for number in range(9):
            await one.add(f"p{number}", "P")
        under_way, most = 0, 0

        class Slow(FaultyBlobStore):
            async def put(self, name, data) -> None:
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(1)
                under_way -= 1
                await super().put(name, data)

        uploader = Uploader(
            one.catalog, one.local, Slow(one.remote, rate=0), one.told, one.clock,
            packs_in_flight=2,
        )  # fmt: skip
        await upload_all(uploader)
        assert most == 2

    run(scenario)
