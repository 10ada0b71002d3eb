"""The daemon sends what windows and orders allow, at once, and remembers orders over a restart."""

import asyncio
import datetime as dt

import pytest
from simloop import simulate

from streamd.catalog.db import Catalog
from streamd.config.model import BandwidthWindow, Config
from streamd.daemon.traffic import Traffic
from streamd.errors import UsageInvalid
from streamd.storage.rate import ByteRate

NOON_US = int(dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp() * 1e6)  # a Monday
OFFICE = BandwidthWindow(
    days=(0, 1, 2, 3, 4), start_minute=480, end_minute=1080, upload_bytes_per_second=1000
)


class WallClock:
    """Virtual time that begins at noon on a Monday."""

    def now_us(self) -> int:
        return NOON_US + int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Held:
    """Stands for the uploader: remembers whether it may send."""

    paused = False

    def hold(self, *, paused: bool) -> None:
        self.paused = paused


class Stored:
    """Stands for the catalog's meta table: survives the process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def read(self, _, key):
        return self.values.get(key, b"")

    async def write(self, _, key, value):
        self.values[key] = value


async def begun(catalog: Stored, config: Config, uploader: object | None):
    clock = WallClock()
    rate = ByteRate(clock, None)
    traffic = Traffic(catalog, clock, rate, uploader)
    await traffic.start(lambda: config)
    return traffic, rate


CONFIG = Config(timezone="UTC", bandwidth=(OFFICE,))


def test_windows_open_and_close_by_the_clock() -> None:
    async def scenario() -> None:
        traffic, rate = await begun(Stored(), CONFIG, Held())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(traffic.run())
            assert rate.bytes_per_second == 1000
            await asyncio.sleep(6 * 3600 - 1)
            assert rate.bytes_per_second == 1000
            await asyncio.sleep(2)  # 18:00:01
            assert rate.bytes_per_second is None
            await asyncio.sleep(14 * 3600)  # 08:00 on Tuesday
            assert rate.bytes_per_second == 1000
            task.cancel()

    simulate(scenario())


def test_a_pause_holds_at_once_and_ends_by_itself() -> None:
    async def scenario() -> None:
        held = Held()
        traffic, rate = await begun(Stored(), CONFIG, held)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(traffic.run())
            report = await traffic.pause({"seconds": 90})
            assert (held.paused, rate.bytes_per_second, report.reason) == (True, 0, "paused")
            assert report.until_us == NOON_US + 90_000_000
            await asyncio.sleep(89)
            assert held.paused
            await asyncio.sleep(2)
            assert (held.paused, rate.bytes_per_second) == (False, 1000)
            task.cancel()

    simulate(scenario())


def test_an_order_outlives_the_process_and_resume_ends_it() -> None:
    async def scenario() -> None:
        stored = Stored()
        first, _ = await begun(stored, CONFIG, Held())
        await first.limit({"bytes_per_second": 77})
        second, rate = await begun(stored, CONFIG, Held())
        assert (rate.bytes_per_second, second.report().reason) == (77, "ordered")
        report = await second.resume({})
        assert (rate.bytes_per_second, report.reason, report.until_us) == (1000, "window", 0)
        third, rate = await begun(stored, Config(timezone="UTC"), Held())
        assert (rate.bytes_per_second, third.report().reason) == (None, "none")

    simulate(scenario())


@pytest.mark.parametrize(
    ("order", "args"),
    [
        ("limit", {}),
        ("limit", {"bytes_per_second": 0}),
        ("limit", {"bytes_per_second": "5"}),
        ("pause", {"seconds": -1}),
        ("pause", {"seconds": "soon"}),
        ("pause", {"seconds": 10**9}),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_and_changes_nothing(order, args) -> None:
    async def scenario() -> None:
        stored = Stored()
        traffic, rate = await begun(stored, CONFIG, Held())
        with pytest.raises(UsageInvalid):
            await getattr(traffic, order)(args)
        assert (rate.bytes_per_second, stored.values) == (1000, {})

    simulate(scenario())


def test_with_a_directory_vault_there_is_nothing_to_pause() -> None:
    async def scenario() -> None:
        traffic, _ = await begun(Stored(), CONFIG, None)
        with pytest.raises(UsageInvalid, match="directory"):
            await traffic.pause({})

    simulate(scenario())


def test_the_order_is_kept_in_a_real_catalog(tmp_path) -> None:
    async def scenario() -> None:
        catalog = Catalog(str(tmp_path))
        traffic, _ = await begun(catalog, Config(timezone="UTC"), Held())
        await traffic.pause({"seconds": 3600})
        _, rate = await begun(catalog, Config(timezone="UTC"), Held())
        assert rate.bytes_per_second == 0
        await catalog.aclose()

    asyncio.run(scenario())
