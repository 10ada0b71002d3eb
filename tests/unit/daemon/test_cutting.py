"""A live cut shows no path as it never was, or says that it may."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from sim.checking import check_final, values_at
from sim.scripted import Node
from sim.simhost import Machine, SimHost
from simloop import simulate

from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.daemon.cutting import UNSETTLED, _Begun
from streamd.model.entry import EntryType
from streamd.vault.state_reader import StateReader

DIRECTORY, REGULAR = EntryType.DIRECTORY, EntryType.REGULAR


class Mover:
    """Renames the directory of a file whenever that is about to be read."""

    def __init__(self, machine: Machine, times: int) -> None:
        self.machine = machine
        self.left = times
        self.top = machine.fs.top[b"/r"]
        self.directory = machine.fs.create(self.top, b"d0", DIRECTORY, mode=0o755)
        machine.fs.create(self.directory, b"f", REGULAR, b"old")

    def move(self) -> None:
        number = int(self.directory.name[1:])
        self.machine.fs.rename(self.top, b"d%d" % number, self.top, b"d%d" % (number + 1))

    def stand_in_the_way_of(self, host: SimHost) -> None:
        read = host.source._read

        def interrupted(request, arena):
            if request.path.endswith(b"/f") and self.left > 0:
                self.left -= 1
                self.move()
            return read(request, arena)

        host.source._read = interrupted


def life(machine: Machine, change: Callable[[SimHost], None]) -> None:
    async def body(host: SimHost) -> None:
        await host.settle()
        change(host)
        await host.settle()

    async def scenario() -> None:
        await SimHost(machine).live(body)

    simulate(scenario(), seed=1)
    machine.bury()


def shown(machine: Machine) -> tuple[list[dict], list]:
    """Return what the vault shows after every commit, and its gaps."""

    async def read() -> tuple[list[dict], list]:
        reader = StateReader(machine.vault())
        states = [(await values_at(reader, at))[0] for at in await reader.commit_times("sim")]
        await check_final(machine)
        return states, await reader.gaps("sim")

    return simulate(read(), seed=2)


def contents(states: list[dict]) -> set[bytes]:
    """Return what the file was shown with below any name of its directory but the first."""
    return {
        value[2]
        for state in states
        for path, value in state.items()
        if path.endswith(b"/f") and not path.endswith(b"/d0/f")
    }


def run(times: int) -> tuple[list[dict], list]:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))
        mover = Mover(machine, times)

        def change(host: SimHost) -> None:
            machine.fs.write(mover.directory, b"f", b"new")
            mover.move()
            mover.stand_in_the_way_of(host)

        life(machine, change)
        return shown(machine)


def test_a_look_that_may_mix_instants_is_made_again() -> None:
    states, gaps = run(times=1)
    assert contents(states) == {b"new"}  # it never was "old" under another name
    assert not gaps


def test_a_cut_that_does_not_settle_is_a_gap_until_one_does() -> None:
    states, gaps = run(times=30)
    assert contents(states) >= {b"new"}
    assert {gap.reason for gap in gaps} == {UNSETTLED}
    assert all(gap.end_us > gap.start_us for gap in gaps)


def test_a_file_of_several_names_shows_none_that_went_before_it_changed() -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))
        top = machine.fs.top[b"/r"]
        file: Node = machine.fs.create(top, b"one", REGULAR, b"old")
        machine.fs.link(file, top, b"two")
        left = [1]

        def change(host: SimHost) -> None:
            machine.fs.write(top, b"one", b"new")
            read = host.source._read

            def interrupted(request, arena):
                if left and left.pop():
                    machine.fs.remove(top, b"two")
                    machine.fs.write(top, b"one", b"newer")
                return read(request, arena)

            host.source._read = interrupted

        life(machine, change)
        states, gaps = shown(machine)
        assert {state[b"/r/two"][2] for state in states if b"/r/two" in state} <= {b"old", b"new"}
        assert not gaps


def test_a_pick_that_took_as_much_as_it_may_has_not_taken_all(monkeypatch) -> None:
    monkeypatch.setattr("streamd.daemon.cutting.LIVE_PLACES_MAX", 2)
    places = [DirtyPlace(b"/r/%d" % n, Depth.ENTRY, 5) for n in range(3)]
    begun = _Begun(1, places[:2], is_promised=True)
    assert begun.is_full
    begun.pick(places[2:])
    assert not begun.is_full
    assert len(begun.places) == 3


def test_files_that_change_places_are_never_missing_although_found_one_by_one(monkeypatch) -> None:
    monkeypatch.setattr("streamd.pipeline.survey.BATCH_ENTRIES_MAX", 1)
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))
        top = machine.fs.top[b"/r"]
        machine.fs.create(top, b"a", REGULAR, b"first")
        machine.fs.create(top, b"b", EntryType.FIFO)
        machine.fs.create(top, b"c", EntryType.SYMLINK, b"third")

        def change(_: SimHost) -> None:
            machine.fs.exchange(top, b"a", top, b"b")
            machine.fs.exchange(top, b"b", top, b"c")

        life(machine, change)
        states, gaps = shown(machine)
        kinds = [{path[-1:]: value[0] for path, value in state.items()} for state in states]
        assert kinds[-2:] == [
            {b"r": DIRECTORY, b"a": REGULAR, b"b": EntryType.FIFO, b"c": EntryType.SYMLINK},
            {b"r": DIRECTORY, b"a": EntryType.FIFO, b"b": EntryType.SYMLINK, b"c": REGULAR},
        ]
        assert not gaps


def test_a_new_name_does_not_show_what_a_file_was_when_the_other_name_goes() -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))
        top = machine.fs.top[b"/r"]
        file: Node = machine.fs.create(top, b"one", REGULAR, b"old")
        left = [1]

        def change(host: SimHost) -> None:
            machine.fs.set_attribute(top, b"one", b"new")
            machine.fs.link(file, top, b"two")
            read = host.source._read

            def interrupted(request, arena):
                if left and left.pop():
                    machine.fs.remove(top, request.path[3:])
                return read(request, arena)

            host.source._read = interrupted

        life(machine, change)
        states, gaps = shown(machine)
        assert not left
        names = {path for state in states[1:] for path in state if path != b"/r"}
        assert len(names) == 1
        assert {state[path][4] for state in states[1:] for path in names} == {b"new"}
        assert not gaps


def test_a_scan_does_not_miss_what_was_found_and_went_with_its_event_lost() -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(7, Path(directory))
        top = machine.fs.top[b"/r"]
        machine.fs.create(top, b"one", REGULAR, b"stays")

        def change(host: SimHost) -> None:
            machine.fs.create(top, b"two", REGULAR, b"goes")
            batch = host.pipeline._batch
            left = [1]

            async def interrupted(job):
                parked = await batch(job)
                if left and left.pop():  # read, and not committed yet
                    machine.fs.remove(top, b"two")
                    host.source._events = []
                    await host.active._noticing.ask_scan("overflow")
                    await asyncio.sleep(5)
                return parked

            host.pipeline._batch = interrupted

        life(machine, change)
        states, _ = shown(machine)
        assert b"/r/two" not in states[-1]
