"""The spool: into the copy, around it, or wait; nothing is lost on any of these ways."""

import asyncio

import pytest
from simloop import simulate

from streamd.errors import DiskFull, VaultUnreachable
from streamd.pipeline.spool import Spool
from streamd.policy.spool import Bounds, Room
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName

PACK = b"STRMD\r\n\x1aP" + bytes(91)
SEGMENT = b"STRMD\r\n\x1aJ" + bytes(91)
A, B, C = BlobName("p/a"), BlobName("p/b"), BlobName("p/c")


class LoopClock:
    def now_us(self) -> int:
        return 1 + int(asyncio.get_running_loop().time() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Told:
    """Remembers what the spool reports."""

    def __init__(self) -> None:
        self.full: list[bool] = []
        self.around = 0

    def spool_filled(self, *, is_full: bool) -> None:
        self.full.append(is_full)

    def spool_bypassed(self, size_bytes: int) -> None:
        self.around += size_bytes


class SmallCopy:
    """A copy of a few hundred bytes, of which `uploaded` may leave."""

    def __init__(self, local: MemoryBlobStore) -> None:
        self.local = local
        self.uploaded: list[BlobName] = []
        self.ahead = False

    async def room(self) -> Room:
        used = sum([info.size_bytes async for info in self.local.scan("")])
        return Room(
            copy_bytes=used,
            evictable_bytes=100 * len(self.uploaded),
            free_bytes=10_000,
            total_bytes=10_000,
            free_inodes=0,
            inodes_total=0,
        )

    async def evict(self, size_bytes: int) -> int:
        gone = 0
        while gone < size_bytes and self.uploaded:
            await self.local.delete(self.uploaded.pop(0))
            gone += 100
        return gone

    async def is_ahead(self) -> bool:
        return self.ahead


class FailingPuts(MemoryBlobStore):
    """Raises what is in `errors` first, one for each put."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(LoopClock())
        self.errors = list(errors)

    async def put(self, name, data) -> None:
        if self.errors:
            raise self.errors.pop(0)
        await super().put(name, data)


class Case:
    def __init__(self, max_size: int = 200, *, local=(), remote=()) -> None:
        clock = LoopClock()
        self.local, self.remote = FailingPuts(*local), FailingPuts(*remote)
        self.copy, self.told = SmallCopy(self.local), Told()
        bounds = Bounds(max_size_bytes=max_size, min_free=0)
        self.spool = Spool(self.local, self.remote, self.copy, lambda: bounds, clock, self.told)

    async def names(self) -> tuple[set[str], set[str]]:
        return (
            {info.name async for info in self.local.scan("")},
            {info.name async for info in self.remote.scan("")},
        )


def test_a_full_copy_sends_packs_around_it() -> None:
    async def scenario() -> None:
        case = Case()
        for name in (A, B, C):
            await case.spool.put(name, PACK)
        assert await case.names() == ({A, B}, {C})
        assert (case.told.around, case.told.full) == (100, [])

    simulate(scenario())


def test_what_the_container_has_makes_room_first() -> None:
    async def scenario() -> None:
        case = Case()
        await case.spool.put(A, PACK)
        await case.spool.put(B, PACK)
        case.copy.uploaded = [A]
        await case.spool.put(C, PACK)
        assert await case.names() == ({B, C}, set())

    simulate(scenario())


def test_a_segment_goes_around_only_when_all_before_it_is_there() -> None:
    async def scenario() -> None:
        case = Case()
        await case.spool.put(A, PACK)
        await case.spool.put(B, PACK)
        case.copy.ahead = True
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(case.spool.put(C, SEGMENT))
            await asyncio.sleep(5)
            assert not putting.done()
            assert case.spool.full_since_us
            case.copy.ahead = False
        assert await case.names() == ({A, B}, {C})
        assert case.spool.full_since_us == 0
        assert case.told.full == [True, False]

    simulate(scenario())


def test_without_a_way_it_waits_until_there_is_one_and_says_so_once() -> None:
    async def scenario() -> None:
        case = Case(max_size=100)
        case.spool.may_bypass = lambda: False
        await case.spool.put(A, PACK)
        async with asyncio.TaskGroup() as group:
            putting = [group.create_task(case.spool.put(name, PACK)) for name in (B, C)]
            await asyncio.sleep(10)
            assert not any(task.done() for task in putting)
            case.copy.uploaded = [A]
            await asyncio.sleep(2)
            assert sum(task.done() for task in putting) == 1
            assert case.spool.full_since_us
            case.spool.may_bypass = lambda: True
        local, remote = await case.names()
        assert local | remote == {B, C}
        assert case.told.full == [True, False]

    simulate(scenario())


def test_a_container_that_cannot_be_reached_is_tried_again() -> None:
    async def scenario() -> None:
        away = VaultUnreachable("no", endpoint="x")
        case = Case(max_size=100, remote=[away, away])
        await case.spool.put(A, PACK)
        await case.spool.put(B, PACK)
        assert await case.names() == ({A}, {B})
        assert asyncio.get_running_loop().time() >= 2

    simulate(scenario())


def test_a_disk_that_somebody_else_filled_is_gone_around() -> None:
    async def scenario() -> None:
        case = Case(local=[DiskFull("no", path="/")])
        await case.spool.put(A, PACK)
        assert await case.names() == (set(), {A})
        await case.spool.put(B, PACK)
        assert await case.names() == ({B}, {A})

    simulate(scenario())


def test_the_first_capture_can_be_sent_around_the_copy() -> None:
    async def scenario() -> None:
        case = Case()
        case.spool.is_seeding = lambda: True
        await case.spool.put(A, PACK)
        await case.spool.put(B, SEGMENT)
        assert await case.names() == ({B}, {A})

    simulate(scenario())


def test_a_cancelled_wait_leaves_no_alarm_behind() -> None:
    async def scenario() -> None:
        case = Case(max_size=50)
        case.spool.may_bypass = lambda: False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await case.spool.put(A, PACK)
        assert case.spool.full_since_us == 0
        assert case.told.full == [True, False]

    simulate(scenario())
