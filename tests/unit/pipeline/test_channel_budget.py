"""The channel and the memory budget: bounded, fair, closable, and safe to be cancelled in."""

import asyncio

import pytest
from simloop import simulate

from streamd.pipeline.budget import Budget
from streamd.pipeline.channel import BULK, LIVE, Channel, Closed

TURNS = 20


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def in_simulation(scenario) -> None:
    """Run a scenario under several interleavings."""
    for seed in range(5):
        simulate(scenario(), seed=seed)


# -- channel ---------------------------------------------------------------------------------------


def test_live_items_overtake_bulk() -> None:
    async def scenario() -> None:
        channel: Channel[str] = Channel("c", items_max=5, bytes_max=100)
        for item in ("b1", "b2"):
            await channel.send(item, 1, BULK)
        await channel.send("l1", 1, LIVE)
        assert [await channel.receive() for _ in range(3)] == ["l1", "b1", "b2"]

    in_simulation(scenario)


def test_a_receiver_of_one_lane_leaves_the_other() -> None:
    async def scenario() -> None:
        channel: Channel[str] = Channel("c", items_max=5, bytes_max=100)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(channel.receive((LIVE,)), name="live")
            await channel.send("bulk", 1, BULK)
            await turns()
            assert not waiting.done()
            await channel.send("live", 1, LIVE)
            assert await waiting == "live"
        assert channel.item_count == 1

    in_simulation(scenario)


@pytest.mark.parametrize("limit", ["items", "bytes"])
def test_a_full_lane_blocks_its_own_senders_until_there_is_room(limit) -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel(
            "c", items_max=2 if limit == "items" else 99, bytes_max=10 if limit == "bytes" else 99
        )
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                await channel.send(number, 5)
            blocked = group.create_task(channel.send(2, 5), name="blocked")
            await asyncio.sleep(3)
            assert not blocked.done()
            await channel.send(9, 5, LIVE)
            assert [await channel.receive() for _ in range(4)] == [9, 0, 1, 2]
        assert channel.blocked_seconds >= 3
        assert channel.byte_count == 0

    in_simulation(scenario)


def test_an_oversize_item_passes_alone() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel("c", items_max=9, bytes_max=10)
        await channel.send(1, 1000)
        assert await channel.receive() == 1

    in_simulation(scenario)


def test_a_closed_channel_delivers_what_is_inside_and_then_says_so() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel("c", items_max=9, bytes_max=10)
        await channel.send(1, 1)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_closed(channel.receive((LIVE,))), name="live")
            await turns()
            channel.close()
            assert await waiting
        assert await channel.receive() == 1
        with pytest.raises(Closed):
            await channel.receive()
        assert channel.receive_now() is None

    in_simulation(scenario)


def test_a_sender_that_is_blocked_when_the_channel_closes_is_told() -> None:
    async def scenario() -> None:
        channel: Channel[int] = Channel("c", items_max=1, bytes_max=10)
        await channel.send(1, 1)
        async with asyncio.TaskGroup() as group:
            blocked = group.create_task(_closed(channel.send(2, 1)), name="blocked")
            await turns()
            channel.close()
            assert await blocked
        assert await channel.receive() == 1

    in_simulation(scenario)


async def _closed(waiting) -> bool:
    try:
        await waiting
    except Closed:
        return True
    return False


# -- budget ----------------------------------------------------------------------------------------


def test_bulk_leaves_a_reserve_for_live() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        await budget.take(75, live=False)
        async with asyncio.TaskGroup() as group:
            bulk = group.create_task(budget.take(10, live=False), name="bulk")
            await turns()
            assert not bulk.done()
            await budget.take(20, live=True)
            budget.give_back(75)
            await bulk
        assert budget.used_bytes == 30

    in_simulation(scenario)


def test_what_is_larger_than_the_budget_runs_alone() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        await budget.take(1000, live=False)
        async with asyncio.TaskGroup() as group:
            second = group.create_task(budget.take(1, live=False), name="second")
            await turns()
            assert not second.done()
            budget.give_back(1000)
            await second
        assert budget.used_bytes == 1

    in_simulation(scenario)


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        order: list[str] = []

        async def take(name: str, size: int) -> None:
            await budget.take(size, live=False)
            order.append(name)

        await budget.take(50, live=False)
        async with asyncio.TaskGroup() as group:
            group.create_task(take("large", 70), name="large")
            await turns()
            small = group.create_task(take("small", 20), name="small")
            await turns()
            assert order == []
            budget.give_back(50)
            await turns()
            assert order == ["large"]
            budget.give_back(70)
            await small

    in_simulation(scenario)


def test_who_is_cancelled_while_waiting_takes_nothing_along() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        await budget.take(75, live=False)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(budget.take(70, live=False), name="first")
            await turns()
            second = group.create_task(budget.take(5, live=False), name="second")
            await turns()
            first.cancel()
            budget.give_back(75)  # in the same moment: the grant meets a cancelled waiter
            await second
            await asyncio.wait([first])
        assert budget.used_bytes == 5
        assert not budget.is_waited_for_live

    in_simulation(scenario)


def test_who_is_cancelled_after_the_grant_gives_it_back() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        await budget.take(100, live=True)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(budget.take(60, live=True), name="waiting")
            await turns()
            budget.give_back(100)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert budget.used_bytes == 0

    in_simulation(scenario)


def test_adjusting_never_waits_and_wakes_others() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        await budget.take(75, live=False)
        told: list[bool] = []
        budget.on_wait = lambda: told.append(budget.is_waited_for_live)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(budget.take(50, live=False), name="waiting")
            await turns()
            assert told == [False]  # somebody waits, but not a live batch
            assert budget.adjust(75, 20) == 20
            await waiting
        assert budget.used_bytes == 70

    in_simulation(scenario)
