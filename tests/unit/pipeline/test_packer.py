"""Packs in the making: full, lingering, flushed; and what happens when publishing fails."""

import asyncio
from types import SimpleNamespace

import pytest
from simloop import simulate

from streamd.errors import StorageRefused
from streamd.format.keys import Role
from streamd.format.pack import EncodedObject
from streamd.pipeline.packer import LINGER_SECONDS, META_PACK_TARGET, Packer


class Writer:
    """Encodes a pack as the list of what is in it."""

    def encode_pack(self, batches, role):
        return EncodedObject(f"{role.name}{len(batches)}", b"".join(each.body for each in batches))


def batch(size: int):
    return SimpleNamespace(stored_size=size, body=b"x" * size)


class Published:
    def __init__(self, fail: Exception | None = None, seconds: float = 0.0) -> None:
        self.packs: list[EncodedObject] = []
        self.fail = fail
        self.seconds = seconds

    async def __call__(self, pack: EncodedObject) -> int:
        await asyncio.sleep(self.seconds)
        if self.fail:
            raise self.fail
        self.packs.append(pack)
        return len(self.packs)


def run(body, published: Published, target: int = 100):
    """Run `body(packer)` beside a packer under several interleavings, and end it."""

    async def scenario() -> None:
        packer = Packer(Writer(), published, None, target_bytes=target)
        async with asyncio.TaskGroup() as group:
            group.create_task(packer.run(), name="pack")
            await body(packer)
            packer.full.close()

    simulate(scenario(), seed=3)


def test_a_full_pack_goes_at_once() -> None:
    async def body(packer: Packer) -> None:
        futures = [await packer.add(batch(60), Role.DATA) for _ in range(2)]
        assert await asyncio.wait_for(futures[0], 0.5) == 1
        assert futures[0] is futures[1]

    published = Published()
    run(body, published)
    assert [len(pack.data) for pack in published.packs] == [120]


def test_an_open_pack_waits_no_longer_than_a_second() -> None:
    async def body(packer: Packer) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await (await packer.add(batch(1), Role.DATA))
        assert LINGER_SECONDS <= loop.time() - started < LINGER_SECONDS + 0.2

    run(body, Published())


def test_a_flush_lets_every_role_go() -> None:
    async def body(packer: Packer) -> None:
        futures = [await packer.add(batch(1), role) for role in (Role.DATA, Role.META)]
        await packer.flush()
        for future in futures:
            await asyncio.wait_for(future, 0.5)

    published = Published()
    run(body, published)
    assert len(published.packs) == 2
    assert META_PACK_TARGET > 1


def test_a_flush_that_is_cancelled_loses_no_pack() -> None:
    """Whoever asked may go away, as a source that is stopped does: the pack still goes."""

    async def body(packer: Packer) -> None:
        for _ in range(4):  # the channel of full packs is full now
            await packer.add(batch(100), Role.DATA)
        future = await packer.add(batch(1), Role.DATA)
        async with asyncio.TaskGroup() as group:
            flushing = group.create_task(packer.flush(), name="flush")
            await asyncio.sleep(0)
            flushing.cancel()
        assert await asyncio.wait_for(future, 20) > 0

    run(body, Published(seconds=1.0))


def test_two_flushes_at_once_do_not_meet() -> None:
    async def body(packer: Packer) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                await packer.add(batch(50), Role.DATA)
                await packer.add(batch(50), Role.META)
                for number in range(3):
                    group.create_task(packer.flush(), name=f"flush.{number}")
                await asyncio.sleep(0.4)

    run(body, Published(seconds=0.3))


def test_who_adds_is_blocked_while_packs_are_on_their_way() -> None:
    async def body(packer: Packer) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(12):
            await packer.add(batch(100), Role.DATA)
        assert loop.time() > 5

    run(body, Published(seconds=2.0))


def test_a_failure_to_publish_ends_the_packer() -> None:
    async def scenario() -> None:
        packer = Packer(Writer(), Published(StorageRefused("no")), None, target_bytes=10)
        async with asyncio.timeout(5):
            async with asyncio.TaskGroup() as group:
                group.create_task(packer.run(), name="pack")
                await packer.add(batch(10), Role.DATA)
                await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        simulate(scenario(), seed=1)
    assert caught.group_contains(StorageRefused)
