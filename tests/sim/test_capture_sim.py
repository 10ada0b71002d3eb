"""The whole capture path under virtual time: seeded schedules with faults and crashes.

Each schedule changes a small tree while it is captured, crashes the process at some step, restarts
it, lets it settle, and compares the vault with what the tree really was: at the end, at instants in
the past, and what the store held whenever something was promised. Batches are made tiny, so that
what is rare in life is common here. STREAMD_SIM_SEEDS says how many schedules; a failure prints its
seed, and STREAMD_SIM_SEED runs that one alone, with PYTHONHASHSEED as it was: `make` sets it.
"""

import asyncio
import os
import random
import tempfile
from pathlib import Path

import pytest
from sim.checking import check_final, check_journal, check_past, check_sample
from sim.scripted import Weather
from sim.simhost import Fuse, Machine, SimHost
from simloop import Halt, simulate

from streamd.catalog.db import Catalog
from streamd.daemon import cutting
from streamd.pipeline import capture, commit, survey

SEEDS = int(os.environ.get("STREAMD_SIM_SEEDS", "50"))
ONLY = os.environ.get("STREAMD_SIM_SEED")
GROUPS = 10
SHARED_MEMORY = "/dev/shm"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Batches, segments and surveys so small that a handful of files needs several."""
    monkeypatch.setattr(survey, "BATCH_ENTRIES_MAX", 4)
    monkeypatch.setattr(survey, "BATCH_BYTES_MAX", 350)
    monkeypatch.setattr(survey, "ALONE_MIN", 400)
    monkeypatch.setattr(survey, "GONE_MAX", 2)
    monkeypatch.setattr(capture, "INLINE_BATCH_MAX", 300)
    monkeypatch.setattr(commit, "_RECORDS_PER_SEGMENT", 30)
    monkeypatch.setattr(cutting, "LIVE_PLACES_MAX", 8)


@pytest.fixture(scope="module")
def template():
    """An empty catalog: making one anew for each schedule would be a tenth of the time."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        catalog = Catalog(directory)
        catalog.close()
        return Path(catalog.path).read_bytes()


def shared_memory() -> str | None:
    return SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None


def weather_of(rng: random.Random) -> Weather:
    def maybe(rate: float) -> float:
        return rate if rng.random() < 0.5 else 0.0

    return Weather(
        preempt=maybe(0.15),
        fuzzy=maybe(0.1),
        gap=maybe(0.08),
        nameless=maybe(0.3),
        late=maybe(0.3),
        slow=maybe(4.0),
        joined=maybe(0.5),
    )


def run_schedule(seed: int, template: bytes, *, remote: bool) -> Machine:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        machine = Machine(
            seed,
            Path(directory),
            weather=weather_of(rng),
            fault_rate=rng.choice([0.0, 0.0, 0.3]),
            remote=remote,
            roots=rng.choice([(b"/r",), (b"/r", b"/q/x")]),
            template=template,
        )
        for _ in range(rng.randrange(12)):
            machine.mutator.step()
        crashes = rng.randrange(4)
        try:
            for life in range(crashes + 1):
                is_last = life == crashes
                machine.fuse = Fuse(-1 if is_last else int(rng.random() ** 2 * 250))
                live(machine, seed * 16 + life, is_last=is_last)
                for _ in range(0 if is_last else rng.choice([0, 0, 3])):
                    machine.mutator.step()  # while nobody looks
                    machine.clock.base_us += 50_000
        finally:
            machine.bury()
        return machine


def live(machine: Machine, seed: int, *, is_last: bool) -> None:
    rng = machine.rng

    async def body(host: SimHost) -> None:
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(host.sample(), name="sample")
            await host.mutate(rng.randrange(5, 30))
            if rng.random() < 0.15:  # a reload
                await host.stop_source()
                await host.mutate(2)
                await host.start_source()
                await host.mutate(rng.randrange(8))
            if is_last or rng.random() < 0.3:
                await host.settle()
                host.sample_now(with_blobs=True)
                assert host.active.watermarks.through_us("local") >= machine.fs.last_change_us
                if is_last:
                    local = [one for one in machine.samples if one.destination == "local"]
                    machine.before_reuse = local[-1]
                    machine.mutator.use_inodes_again(3)
                    await host.settle()
            sampling.cancel()

    async def scenario() -> None:
        await SimHost(machine).live(body)

    try:
        simulate(scenario(), seed=seed)
    except Halt:
        assert not is_last
    machine.bury()


def check(machine: Machine, seed: int, *, remote: bool) -> None:
    rng = random.Random(seed)

    async def checking() -> None:
        await check_journal(machine)
        await check_final(machine)
        for sample in [each for each in machine.samples if each.blobs is not None][-3:]:
            await check_sample(machine, sample)
        if machine.before_reuse is not None:
            await check_past(machine, machine.before_reuse)
        past = [each for each in machine.samples if each.destination == "local"]
        for sample in rng.sample(past, min(2, len(past))):
            await check_past(machine, sample)
        if remote:
            assert machine.remote is not None
            await check_final(machine, machine.remote)
            missing = machine.store._blobs.keys() - machine.remote._blobs.keys()
            assert machine.remote._blobs.keys() <= machine.store._blobs.keys()
            assert all("/p/" in name for name in missing), missing  # packs nobody registered

    asyncio.run(checking())


def schedules(group: int) -> range:
    return range(group, SEEDS, GROUPS)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_happens_the_vault_holds_what_the_tree_was(group, template) -> None:
    for seed in [int(ONLY)] if ONLY else schedules(group):
        remote = seed % 4 == 3
        try:
            machine = run_schedule(seed, template, remote=remote)
            check(machine, seed, remote=remote)
        except BaseException:
            print(f"STREAMD_SIM_SEED={seed} PYTHONHASHSEED={os.environ.get('PYTHONHASHSEED')}")
            raise
