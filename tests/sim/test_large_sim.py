"""A large file that is read for longer than the RPO, and never stands still, holds up nobody else.

In virtual time: each of the two parts of a large file takes `READ_SECONDS` to read.
"""

import asyncio
import tempfile
from pathlib import Path

import pytest
from sim.checking import check_final, check_journal, check_past
from sim.scripted import ScriptedSource
from sim.simhost import RPO_SECONDS, Machine, SimHost
from simloop import simulate

from streamd.catalog import dirty
from streamd.catalog.walk import WalkLookup
from streamd.model.entry import EntryType
from streamd.pipeline import survey

READ_SECONDS = RPO_SECONDS * 4
SECONDS = READ_SECONDS * 7
LARGE = bytes(range(200)) * 4
REGULAR, DIRECTORY = EntryType.REGULAR, EntryType.DIRECTORY


@pytest.fixture(autouse=True)
def slow(monkeypatch):
    """Large files begin at 400 bytes, and take their time."""
    monkeypatch.setattr(survey, "BATCH_BYTES_MAX", 400)
    monkeypatch.setattr(survey, "ALONE_MIN", 400)
    monkeypatch.setattr(ScriptedSource, "part_seconds", lambda self: READ_SECONDS)


class Sight:
    """What the catalog shows, and since when it lacks a change."""

    def __init__(self, host: SimHost, path: bytes) -> None:
        self._host = host
        self._parts = [b"/r", *path.removeprefix(b"/r/").split(b"/")]
        self.changed_at: float | None = None
        self.worst = 0.0

    def row(self):
        with self._host.catalog.reader() as reader:
            lookup = WalkLookup(reader, self._host.active.stream.number)
            at = lookup.root
            for part in self._parts:
                row = lookup.named(at, [part]).get(part)
                if row is None:
                    return None
                at = row.fid
            return row

    def look(self, node) -> None:
        """Note how long the last change of `node` has not been seen."""
        row, now = self.row(), asyncio.get_running_loop().time()
        if row is not None and row.stat == node.stat() and not row.again:
            self.changed_at = None
        elif self.changed_at is None:
            self.changed_at = now
        else:
            self.worst = max(self.worst, now - self.changed_at)


def run(scenario) -> Machine:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))

        async def life() -> None:
            await SimHost(machine).live(lambda host: scenario(machine, host))

        try:
            simulate(life(), seed=11)
        finally:
            machine.bury()
        return machine


def churning(machine: Machine, directory, name: bytes):
    """Change a large file all the time."""

    async def churn() -> None:
        number = 0
        while True:
            await asyncio.sleep(0.5)
            number += 1
            machine.fs.write(directory, name, LARGE + b"%08d" % number)

    return churn()


def check(machine: Machine) -> None:
    async def checking() -> None:
        await check_journal(machine)
        await check_final(machine)
        for sample in machine.samples[:: max(1, len(machine.samples) // 8)]:
            await check_past(machine, sample)

    asyncio.run(checking())


@pytest.mark.parametrize("is_new", [False, True])
def test_small_changes_are_durable_in_time_beside_a_large_file_that_never_stands_still(is_new):
    reads = []

    async def scenario(machine: Machine, host: SimHost) -> None:
        root = machine.fs.top[b"/r"]
        small = machine.fs.create(root, b"small", REGULAR, b"0")
        if not is_new:
            machine.fs.create(root, b"large", REGULAR, LARGE)
        await host.settle()
        if is_new:
            machine.fs.create(root, b"large", REGULAR, LARGE)
        sight, large = Sight(host, b"/r/small"), Sight(host, b"/r/large")
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            churn = group.create_task(churning(machine, root, b"large"))
            sampling = group.create_task(host.sample())
            began, number = loop.time(), 0
            while loop.time() < began + SECONDS:
                if sight.changed_at is None:
                    number += 1
                    machine.fs.write(root, b"small", b"%d" % number)
                await asyncio.sleep(0.5)
                sight.look(small)
                row = large.row()
                if row is not None and (not reads or reads[-1] != row.stat.ctime_ns):
                    reads.append(row.stat.ctime_ns)
                    torn = await host.catalog.read(dirty.problems, host.active.stream.number)
                    is_first = len(reads) == 1 and not is_new
                    assert is_first or [each.reason for each in torn] == ["fuzzy"]
            churn.cancel()
            await host.settle()
            sampling.cancel()
        assert number > SECONDS / RPO_SECONDS
        assert sight.worst <= RPO_SECONDS
        assert 2 <= len(reads) <= SECONDS / READ_SECONDS

    check(run(scenario))


def test_a_large_file_goes_on_being_captured_where_its_directory_was_renamed_to():
    async def scenario(machine: Machine, host: SimHost) -> None:
        root = machine.fs.top[b"/r"]
        folder = machine.fs.create(root, b"a", DIRECTORY, mode=0o755)
        machine.fs.create(folder, b"large", REGULAR, LARGE)
        await host.settle()
        async with asyncio.TaskGroup() as group:
            churn = group.create_task(churning(machine, folder, b"large"))
            sampling = group.create_task(host.sample())
            for number in range(6):
                await asyncio.sleep(READ_SECONDS * 0.7)
                machine.fs.rename(root, b"ab"[number % 2 :][:1], root, b"ba"[number % 2 :][:1])
            churn.cancel()
            await host.settle()
            sampling.cancel()
            assert host.active.covered_us == host.active.progress.drained_us, "a gap stays open"

    check(run(scenario))


def test_a_large_file_that_is_removed_or_replaced_while_it_is_read_is_recorded_so():
    async def scenario(machine: Machine, host: SimHost) -> None:
        root = machine.fs.top[b"/r"]
        for name in (b"one", b"two", b"three"):
            machine.fs.create(root, name, REGULAR, LARGE)
        await host.settle()
        for name in (b"one", b"two", b"three"):
            machine.fs.write(root, name, LARGE + name)
        await asyncio.sleep(READ_SECONDS)
        machine.fs.remove(root, b"one")
        machine.fs.create(root, b"new", REGULAR, LARGE + b"new")
        machine.fs.rename(root, b"new", root, b"two")
        machine.fs.rename(root, b"three", root, b"four")
        await host.settle()

    check(run(scenario))
