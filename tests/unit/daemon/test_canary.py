"""A canary that does not arrive is said to be late, at the destination where it is missing."""

import asyncio
from types import SimpleNamespace

import pytest

from streamd.catalog.db import Catalog
from streamd.daemon import canary as canary_module
from streamd.daemon.canary import Canary
from streamd.effects import SystemClock


class Meters:
    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.late: list[str] = []

    def canary_arrived(self, source: str, destination: str, seconds: float) -> None:
        self.arrived.append(destination)

    def canary_late(self, source: str, destination: str) -> None:
        self.late.append(destination)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "tree/.streamd").mkdir(parents=True)
    catalog = Catalog(str(tmp_path / "state"))
    yield tmp_path / "tree", catalog
    catalog.close()


def make(tree, catalog, meters, through) -> Canary:
    roots = (str(tree).encode(),)
    stream = SimpleNamespace(
        number=1, identity=SimpleNamespace(name="web"), source=SimpleNamespace(roots=roots)
    )
    made = Canary(
        stream=stream,
        catalog=catalog,
        clock=SystemClock(),
        meters=meters,
        through=through,
        interval_seconds=0.1,
        rpo_seconds=1,
    )
    made._late_seconds = 1.0
    return made


@pytest.mark.asyncio
async def test_what_is_never_captured_is_late_whatever_the_watermark_says(place) -> None:
    tree, catalog = place
    meters = Meters()
    canary = make(tree, catalog, meters, lambda _: 1 << 62)
    await canary._round(canary._directory())
    assert (tree / ".streamd/canary").read_text().startswith("streamd writes this")
    assert meters.arrived == []
    assert meters.late == ["local", "vault"]


@pytest.mark.asyncio
async def test_what_is_captured_and_not_uploaded_is_late_in_the_vault_only(
    place, monkeypatch
) -> None:
    tree, catalog = place
    meters = Meters()
    canary = make(tree, catalog, meters, lambda where: 1 << 62 if where == "local" else 0)
    monkeypatch.setattr(
        canary_module,
        "_captured_ns",
        lambda *_: (tree / ".streamd/canary").stat().st_mtime_ns,
    )
    await canary._round(canary._directory())
    assert (meters.arrived, meters.late) == (["local"], ["vault"])


@pytest.mark.asyncio
async def test_a_place_that_cannot_be_written_is_no_alarm(place) -> None:
    tree, catalog = place
    meters = Meters()
    canary = make(tree, catalog, meters, lambda _: 0)
    (tree / ".streamd").rmdir()
    assert canary._directory() is None
    async with asyncio.timeout(10):
        await canary._round(str(tree / ".streamd").encode())
    assert (meters.arrived, meters.late) == ([], [])
