"""How fast streamd may send to a container now: bandwidth windows, and what an operator ordered.

Pure: a function of the windows, the order in force and the time. Watching, the local copy and
restores are none of its business; they never pause.

A window is meant in wall time. So in the night in which clocks go forward an hour of it is missing,
in the night in which they go back an hour of it happens twice: `22:00` to `06:00` is what the clock
on the wall says, however long that takes.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

MINUTES_PER_DAY: Final = 1_440
DAYS: Final = 7

Reason = Literal["none", "paused", "ordered", "window"]


class Window(msgspec.Struct, frozen=True):
    """At most `bytes_per_second` from `start_minute` to `end_minute` on each of `days`.

    Minutes after midnight, 0 … 1440; days are those on which the window begins, Monday is 0. An
    end at or before the start is on the next day; the same minute is a whole day.
    """

    days: frozenset[int]
    start_minute: int
    end_minute: int
    bytes_per_second: int

    def contains(self, weekday: int, minute: int) -> bool:
        """Say whether the window is open on `weekday` at `minute` after midnight."""
        if self.start_minute < self.end_minute:
            return weekday in self.days and self.start_minute <= minute < self.end_minute
        began_today = weekday in self.days and minute >= self.start_minute
        began_yesterday = (weekday - 1) % DAYS in self.days and minute < self.end_minute
        return began_today or began_yesterday


class Order(msgspec.Struct, frozen=True):
    """What an operator ordered: nothing may be sent, or so much, until an instant or for good.

    `bytes_per_second` None: the order is to follow the configuration. `until_us` 0: no end.
    """

    bytes_per_second: int | None = None
    until_us: int = 0

    def is_in_force(self, now_us: int) -> bool:
        """Say whether the order counts at `now_us`."""
        return self.bytes_per_second is not None and (not self.until_us or now_us < self.until_us)


NO_ORDER: Final = Order()
PAUSE: Final = 0  # bytes per second


class Allowance(msgspec.Struct, frozen=True):
    """What may be sent now, in bytes per second (None: as much as the link takes), and why."""

    bytes_per_second: int | None
    reason: Reason

    @property
    def is_paused(self) -> bool:
        """Say whether nothing may be sent at all."""
        return self.bytes_per_second == PAUSE


def allowance(
    windows: Iterable[Window], order: Order, *, now_us: int, local: dt.datetime
) -> Allowance:
    """Return what may be sent now. `local` is the wall time at `now_us`.

    An order counts instead of the windows, in both directions: who orders `limit 50MiB/s` in a
    window of 5 MiB/s gets the fifty. Where windows overlap, the lowest counts.
    """
    if order.is_in_force(now_us):
        rate = order.bytes_per_second
        return Allowance(rate, "paused" if rate == PAUSE else "ordered")
    minute = local.hour * 60 + local.minute
    open_now = [
        window.bytes_per_second for window in windows if window.contains(local.weekday(), minute)
    ]
    return Allowance(min(open_now), "window") if open_now else Allowance(None, "none")


def next_look_seconds(order: Order, *, now_us: int, local: dt.datetime) -> float:
    """Return when the allowance has to be asked for again: at the next minute or the order's end.

    Every window begins and ends at a full minute, and so does every change of the clocks.
    """
    to_minute = 60 - local.second - local.microsecond / 1e6
    if order.is_in_force(now_us) and order.until_us:
        return min(to_minute, (order.until_us - now_us) / 1e6)
    return to_minute
