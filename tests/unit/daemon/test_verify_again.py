"""A verification that a fault ended is tried again before its next regular turn."""

import asyncio
from types import SimpleNamespace

import pytest
from simloop import simulate

from streamd.catalog.db import Catalog
from streamd.config.model import VerifyConfig
from streamd.daemon import verification
from streamd.daemon.verification import FIRST_LOOK_SECONDS, Verification
from streamd.effects import MICROSECONDS
from streamd.errors import DiskFull, UsageInvalid, VaultUnreachable
from streamd.policy.verify_schedule import LEVELS, RETRIES_MAX

HOUR, DAY = 3600.0, 86_400.0


class Fake:
    """A host whose vault does not answer until it is let; looks are counted."""

    def __init__(self, folder) -> None:
        self.catalog = Catalog(str(folder))
        self.entropy = self
        self.clock = self
        self.vault = SimpleNamespace(keys=SimpleNamespace(host=SimpleNamespace(private=object())))
        self.uploader = None
        self.looks: list[tuple[float, str]] = []
        self.error: Exception | None = VaultUnreachable("nobody answers", endpoint="x")
        config = SimpleNamespace(verify=VerifyConfig(full_seconds=int(30 * DAY)))
        self.verification = Verification(self, lambda: config, asyncio.Lock())
        self.verification._show_last = self.nothing
        self.verification._tell = self.tell

    def token(self, size: int) -> bytes:
        return bytes(size)

    def now_us(self) -> int:
        return 1_790_000_000_000_000 + int(asyncio.get_running_loop().time() * MICROSECONDS)

    async def nothing(self) -> None:
        pass

    async def tell(self, report, started_us: int) -> None:
        for level in report.contained:
            await self.catalog.write(verification._write_success, level, started_us)

    async def look(self, _host, level, **_: object):
        self.looks.append((asyncio.get_running_loop().time(), str(level)))
        if self.error is not None:
            raise self.error
        return level


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake = Fake(tmp_path)
    monkeypatch.setattr(verification, "verify_host", fake.look)
    yield fake
    fake.catalog.close()


def run(fake, seconds: float, *, mended_after: float | None = None) -> None:
    async def life() -> None:
        task = asyncio.create_task(fake.verification.run())
        if mended_after is not None:
            await asyncio.sleep(mended_after)
            fake.error = None
            seconds_left = seconds - mended_after
        else:
            seconds_left = seconds
        await asyncio.sleep(seconds_left)
        task.cancel()

    simulate(life(), seed=1)


def test_a_fault_that_is_over_costs_minutes_and_not_a_whole_turn(fake) -> None:
    run(fake, 3 * HOUR, mended_after=FIRST_LOOK_SECONDS + 60)
    assert [level for _, level in fake.looks] == ["full", "full"]
    assert fake.looks[1][0] - fake.looks[0][0] < 15 * 60


@pytest.mark.parametrize("error", [VaultUnreachable("x", endpoint="x"), DiskFull("x", path="x")])
def test_a_fault_that_stays_is_met_a_bounded_number_of_times_in_a_turn(fake, error) -> None:
    fake.error = error
    run(fake, 0.9 * DAY)
    assert len(fake.looks) == 1 + RETRIES_MAX
    assert {level for _, level in fake.looks} == {"full"}


def test_a_request_that_fails_takes_nothing_from_the_schedule(fake) -> None:
    async def life() -> None:
        with pytest.raises(VaultUnreachable):
            await fake.verification.request({"level": "full"})
        assert await fake.verification._due() == "full"
        with pytest.raises(UsageInvalid):
            await fake.verification.request({"level": "all"})

    simulate(life(), seed=1)
    assert [level for _, level in fake.looks] == ["full"]
    assert LEVELS[-1] == "full"
