"""Crash the capture of a fixed scenario at every put and every transaction, and look.

After each crash the process starts again on what survived, without an operator. Then everything that
was ever acknowledged is there, the final tree is captured, the journal is whole, and no name was ever
put with other bytes (the store would refuse, and the run fail).
"""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import pytest
from sim.checking import check_final, check_journal, check_past, check_sample
from sim.simhost import Fuse, Machine, SimHost
from simloop import Halt, simulate

from streamd.catalog.db import Catalog
from streamd.model.entry import EntryType
from streamd.pipeline import capture, commit, survey

RUN_TO_THE_END = -1


class CountingFuse(Fuse):
    """Counts and blows at one kind of step only."""

    def __init__(self, kinds: tuple[str, ...], steps: int = RUN_TO_THE_END) -> None:
        super().__init__(steps)
        self._kinds = kinds

    def burn(self, what: str) -> None:
        if what.startswith(self._kinds):
            super().burn(what)


class JournalFuse(CountingFuse):
    """Blows at puts of what the catalog seals: epochs and segments, not packs."""

    def burn(self, what: str) -> None:
        if "/e/" in what or "/j/" in what:
            super().burn(what)


PUTS = ("before d/", "after d/")
TRANSACTIONS = ("before <", "in <", "after <")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(survey, "BATCH_ENTRIES_MAX", 3)
    monkeypatch.setattr(survey, "BATCH_BYTES_MAX", 350)
    monkeypatch.setattr(capture, "INLINE_BATCH_MAX", 300)
    monkeypatch.setattr(commit, "_RECORDS_PER_SEGMENT", 12)


@pytest.fixture(scope="module")
def template():
    with tempfile.TemporaryDirectory() as directory:
        catalog = Catalog(directory)
        catalog.close()
        return Path(catalog.path).read_bytes()


async def scenario(host: SimHost) -> None:
    """Every kind of change, in three rounds that are captured one after the other."""
    fs = host.machine.fs
    root = fs.top[b"/r"]
    big = bytes(range(256)) * 4
    if b"docs" not in root.children:
        docs = fs.create(root, b"docs", EntryType.DIRECTORY, mode=0o755)
        fs.create(docs, b"one", EntryType.REGULAR, b"1" * 100)
        fs.create(docs, b"two", EntryType.REGULAR, b"2" * 340)
        fs.create(root, b"big", EntryType.REGULAR, big)
        fs.create(root, b"link", EntryType.SYMLINK, b"docs/one", 0o777)
        await asyncio.sleep(3)
        host.sample_now(with_blobs=True)
        fs.link(docs.children[b"one"], root, b"hard")
        fs.write(docs, b"two", b"new" * 80)
        fs.rename(root, b"docs", root, b"papers")
        await asyncio.sleep(3)
        host.sample_now(with_blobs=True)
        fs.remove(root, b"papers")
        fs.write(root, b"big", big[::-1])
        fs.create(root, b"papers", EntryType.REGULAR, b"now a file")
    await host.settle()
    host.sample_now(with_blobs=True)


def run(directory: Path, template: bytes, fuse: Fuse, *, seed: int = 0, remote=False) -> Machine:
    machine = Machine(1, directory, template=template, remote=remote)
    machine.fuse = fuse
    try:
        for life in range(3):
            try:
                simulate(_life(machine), seed=seed + life)
            except Halt:
                machine.bury()
                machine.fuse = Fuse()
            else:
                return machine
    finally:
        machine.bury()
    raise AssertionError("it crashed twice")


async def _life(machine: Machine) -> None:
    await SimHost(machine).live(scenario)


async def _check(machine: Machine) -> None:
    await check_journal(machine)
    await check_final(machine)
    for sample in machine.samples:
        await check_sample(machine, sample)
        if sample.destination == "local":
            await check_past(machine, sample)
    if machine.remote is not None:
        await check_final(machine, machine.remote)


# of every ten steps one is quick enough for `make check`; which, differs between the kinds
SHARES = 10
QUICK_SHARE = {PUTS: 2, TRANSACTIONS: 1}


@pytest.mark.parametrize(
    ("kinds", "share"),
    [
        pytest.param(
            kinds,
            share,
            id=f"{name}-{share}",
            marks=[] if share == QUICK_SHARE[kinds] else pytest.mark.slow,
        )
        for name, kinds in (("puts", PUTS), ("transactions", TRANSACTIONS))
        for share in range(SHARES)
    ],
)
def test_a_crash_at_any_step_loses_nothing(kinds, share, template, tmp_path) -> None:
    count = CountingFuse(kinds)
    (tmp_path / "whole").mkdir()
    asyncio.run(_check(run(tmp_path / "whole", template, count)))
    assert count.count >= 15  # else there was little to interrupt
    for step in range(share, count.count, SHARES):
        directory = tmp_path / str(step)
        directory.mkdir()
        fuse = CountingFuse(kinds, step)
        machine = run(directory, template, fuse)
        assert fuse.left == 0, f"it never came to step {step}"
        try:
            asyncio.run(_check(machine))
        except BaseException:
            print(f"crashed at step {step} of {count.count}")
            raise


@pytest.mark.slow
def test_a_crash_of_the_crash_recovery_loses_nothing(template, tmp_path) -> None:
    """Recovering puts objects again and forgets them: that may be interrupted as well."""
    first = CountingFuse(PUTS, 6)
    for second in range(8):
        directory = tmp_path / str(second)
        directory.mkdir()
        machine = Machine(1, directory, template=template)
        try:
            for life, fuse in enumerate(
                (first, CountingFuse((*PUTS, *TRANSACTIONS), second), None)
            ):
                machine.fuse = fuse or Fuse()
                if fuse is not None:
                    with pytest.raises(Halt):
                        simulate(_life(machine), seed=life)
                    machine.bury()
                else:
                    simulate(_life(machine), seed=life)
        finally:
            machine.bury()
        first.left = 6
        asyncio.run(_check(machine))


def test_what_a_crash_leaves_unput_is_put_with_the_same_bytes(template, tmp_path) -> None:
    """Between the transaction and the put the bytes are in the catalog, and nowhere else."""
    fuse = JournalFuse(PUTS, 0)  # in a transaction, with its bytes, before it is put
    machine = Machine(1, tmp_path, template=template)
    machine.fuse = fuse
    with pytest.raises(Halt):
        simulate(_life(machine), seed=0)
    machine.bury()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        sealed = dict(
            db.execute("SELECT o.name, u.data FROM unput u JOIN object o ON o.number = u.object")
        )
    db.close()
    assert sealed
    machine.fuse = Fuse()
    simulate(_life(machine), seed=1)
    machine.bury()
    for name, data in sealed.items():
        assert machine.store._blobs[name][0] == data
