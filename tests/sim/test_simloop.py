"""The simulator's loop: virtual time, seeded order, crashes."""

import asyncio

import pytest
from simloop import Halt, SimLoop, Stuck, simulate


def test_a_day_passes_at_once() -> None:
    async def scenario() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert simulate(scenario(), seed=1) == 86_400


async def interleaving() -> str:
    order: list[str] = []

    async def speak(word: str) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            order.append(word)
            order.append(await asyncio.to_thread(str.upper, word))

    async with asyncio.TaskGroup() as group:
        for word in "abc":
            group.create_task(speak(word), name=word)
    return "".join(order)


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate(interleaving(), seed=5) == simulate(interleaving(), seed=5)


def test_other_seeds_are_other_interleavings() -> None:
    assert len({simulate(interleaving(), seed=seed) for seed in range(20)}) > 15


def test_nothing_left_to_happen_is_stuck() -> None:
    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        simulate(scenario(), seed=1)


@pytest.mark.parametrize("in_thread", [True, False])
def test_after_a_halt_no_other_task_runs(in_thread) -> None:
    ran: list[int] = []

    async def bystander() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                ran.append(1)
        except asyncio.CancelledError:
            ran.append(100)
            raise

    def crash() -> None:
        raise Halt

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bystander(), name="bystander")
            await asyncio.sleep(2.5)
            if in_thread:
                await asyncio.to_thread(crash)
            crash()

    with pytest.raises(Halt):
        simulate(scenario(), seed=1)
    assert len(ran) == 2


def test_timeouts_are_virtual() -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert simulate(scenario(), seed=1) == 3600


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    async def scenario() -> None:
        await asyncio.to_thread(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        simulate(scenario(), seed=3)


def test_without_a_seed_threads_run_at_once() -> None:
    async def scenario() -> int:
        return await asyncio.to_thread(len, "four")

    loop = SimLoop()
    try:
        assert loop.run_until_complete(scenario()) == 4
        assert loop.now == 0
    finally:
        loop.close()
