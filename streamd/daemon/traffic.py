"""Steers the traffic to the container: windows by the clock on the wall, and what operators order.

One rate for everything that is sent. It is set again at each full minute, at the end of an order,
at a reload and at each request. An order is kept in the catalog: a restart does not undo it.
Watching and the local copy go on whatever is ordered, and restores are other processes.
"""

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import msgspec

from streamd.catalog.db import Catalog, get_bytes, put_value
from streamd.config.model import Config
from streamd.config.units import format_rate
from streamd.config.zone import zone_of
from streamd.effects import MICROSECONDS, Clock
from streamd.errors import UsageInvalid
from streamd.observe.logging import get_logger
from streamd.pipeline.upload import Uploader
from streamd.policy.traffic import (
    NO_ORDER,
    PAUSE,
    Allowance,
    Order,
    Window,
    allowance,
    next_look_seconds,
)
from streamd.storage.rate import ByteRate

ORDER_KEY: Final = "traffic"  # in the catalog's meta
SECONDS_MAX: Final = 366 * 86_400  # an order for longer is a change of the configuration
_LOG: Final = get_logger("traffic")


class TrafficReport(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent now: the answer to `pause`, `resume` and `limit`, and a part of `status`.

    `bytes_per_second` None: no limit, 0: paused. `until_us` 0: no end is set.
    """

    bytes_per_second: int | None
    reason: str  # none, paused, ordered, window
    until_us: int = 0


class Traffic:
    """Sets `rate` and holds `uploader`. `start` it before anything is sent."""

    def __init__(
        self, catalog: Catalog, clock: Clock, rate: ByteRate, uploader: Uploader | None
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._rate = rate
        self._uploader = uploader
        self._config: Callable[[], Config] = Config
        self._order = NO_ORDER
        self._asked = asyncio.Event()
        self._now = Allowance(None, "none")
        self.on_change: Callable[[Allowance], None] = lambda _: None

    async def start(self, config: Callable[[], Config]) -> None:
        """Take up the order that an earlier process was given, and set the rate."""
        self._config = config
        stored = await self._catalog.read(get_bytes, ORDER_KEY)
        if stored:
            self._order = Order(*msgspec.msgpack.decode(stored, type=tuple[int | None, int]))
        self.apply()

    async def run(self) -> None:
        """Follow the clock until cancelled."""
        while True:
            self.apply()
            now_us, local = self._times()
            self._asked.clear()
            try:
                async with asyncio.timeout(
                    next_look_seconds(self._order, now_us=now_us, local=local)
                ):
                    await self._asked.wait()
            except TimeoutError:
                continue

    def apply(self) -> None:
        """Set what may be sent now."""
        now_us, local = self._times()
        windows = (
            Window(frozenset(one.days), one.start_minute, one.end_minute, rate)
            for one in self._config().bandwidth
            if (rate := one.upload_bytes_per_second)
        )
        found = allowance(windows, self._order, now_us=now_us, local=local)
        if found != self._now:
            self._now = found
            limit = found.bytes_per_second
            _LOG.info(
                "traffic",
                reason=found.reason,
                limit="none" if limit is None else format_rate(limit),
            )
        self._rate.limit(found.bytes_per_second)
        if self._uploader is not None:
            self._uploader.hold(paused=found.is_paused)
        self.on_change(found)

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self._now.is_paused

    def report(self) -> TrafficReport:
        """Return what may be sent now."""
        ordered = self._now.reason in {"paused", "ordered"}
        return TrafficReport(
            bytes_per_second=self._now.bytes_per_second,
            reason=self._now.reason,
            until_us=self._order.until_us if ordered else 0,
        )

    # -- requests on the control socket ----------------------------------------------------------

    async def pause(self, args: dict[str, Any]) -> TrafficReport:
        """Answer `pause`: nothing is sent for `seconds`, 0: until `resume`."""
        return await self._give(PAUSE, args)

    async def limit(self, args: dict[str, Any]) -> TrafficReport:
        """Answer `limit`: send at most `bytes_per_second` for `seconds`, 0: until `resume`."""
        rate = args.get("bytes_per_second")
        if not isinstance(rate, int) or rate < 1:
            raise UsageInvalid("a limit is at least one byte per second")
        return await self._give(rate, args)

    async def resume(self, _: dict[str, Any]) -> TrafficReport:
        """Answer `resume`: follow the configuration again."""
        return await self._give(None, {})

    async def _give(self, rate: int | None, args: dict[str, Any]) -> TrafficReport:
        if self._uploader is None:
            raise UsageInvalid("the vault is a directory on this host: nothing is sent anywhere")
        seconds = args.get("seconds", 0)
        if not isinstance(seconds, int) or not 0 <= seconds <= SECONDS_MAX:
            raise UsageInvalid("an order lasts at most a year; for good, leave the time out")
        until_us = self._clock.now_us() + seconds * MICROSECONDS if seconds else 0
        self._order = Order(rate, until_us)
        stored = msgspec.msgpack.encode((rate, until_us))
        await self._catalog.write(put_value, ORDER_KEY, stored)
        self.apply()
        self._asked.set()
        return self.report()

    def _times(self) -> tuple[int, dt.datetime]:
        now_us = self._clock.now_us()
        zone = zone_of(self._config().timezone)
        return now_us, dt.datetime.fromtimestamp(now_us / MICROSECONDS, zone)
