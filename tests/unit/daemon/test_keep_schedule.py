"""When checkpoints and runs are looked at."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace

import pytest
from simloop import simulate

from streamd.config.model import Config
from streamd.daemon import verification
from streamd.daemon.upkeep import KEEP_SECONDS, Upkeep
from streamd.errors import VaultUnreachable

HOUR = 3600.0


def test_a_host_that_is_up_for_minutes_only_has_them_too() -> None:
    kept: list[float] = []

    class Kept(Upkeep):
        async def keep(self) -> None:
            kept.append(asyncio.get_running_loop().time() - began)
            if len(kept) == 2:
                raise VaultUnreachable("away")  # the next turn tries again

    async def an_hour() -> None:
        nonlocal began
        began = asyncio.get_running_loop().time()
        upkeep = Kept(SimpleNamespace(), lambda: Config(sources={}))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR):
                await upkeep._keep_loop()

    began = 0.0
    simulate(an_hour(), seed=1)
    assert kept[0] < verification.FIRST_LOOK_SECONDS  # so the first proof is of what it has written
    assert {round(after - before) for before, after in pairwise(kept)} == {KEEP_SECONDS}
    assert len(kept) == 4
