"""How strongly to compress, and how large packs are: by what is short, processors or the uplink.

Pure. Three things can limit a capture. The *uplink*: then what waits for it piles up, processor
time is free, and every byte less is time; as strong as the processors can still keep the line busy.
The *processors*, when others take them from us, or when live changes arrive faster than they are
sealed: then the cheapest. Neither, which is the common case, such as a first capture on an idle
machine into a directory: the balance, for what is stored is stored for years, and lz4 would save a
tenth of the processor time and store a third more.
"""

from enum import IntEnum
from typing import Final

import msgspec

_MIB: Final = 1 << 20
PACK_BYTES: Final = 16 * _MIB  # where nothing is known, or nothing is slow
PACK_BYTES_MIN: Final = 4 * _MIB
PACK_BYTES_MAX: Final = 32 * _MIB
PILE_SECONDS: Final = 2.0  # work for the uplink: less than that may be chance
_HEADROOM: Final = 1.25  # faster than the line, so that it never waits for us
_SCARCE: Final = 0.6  # of the processor time that we would get if nobody else were there
_BUSY: Final = 0.5  # how full what waits for the compression is, when that is what is slow
_FULL: Final = 1.0
_HOLD_SECONDS: Final = 4.0  # a pack occupies its place on the line for so long, about
_ROUND_TRIPS: Final = (
    8.0  # a pack is worth so many, at least: the rest of the time the line is used
)


class Effort(IntEnum):
    """How much processor time a byte may take."""

    FAST = 0  # lz4
    BALANCED = 1  # zstd 1
    STRONG = 2  # zstd 3
    STRONGER = 3  # zstd 6
    STRONGEST = 4  # zstd 9


# Processor time of a byte, times that of BALANCED; measured on text, on binaries it is less.
COST: Final = {
    Effort.FAST: 0.65,
    Effort.BALANCED: 1.0,
    Effort.STRONG: 1.7,
    Effort.STRONGER: 4.7,
    Effort.STRONGEST: 10.0,
}


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured lately. Fullness of a queue is 0 to 1."""

    waiting: float = 0.0  # in front of the compression
    waiting_live: float = 0.0  # of that, live changes, by their own limit
    behind: float = 0.0  # packs that wait for the local disk
    pile_bytes: int = 0  # durable here, and not yet in the container
    uplink_bytes_per_second: float = 0.0  # what it takes; 0: there is none, or nothing was sent yet
    granted: float = 1.0  # of the time in which compressing could have run, it did
    fair: float = 1.0  # what it gets when nobody but our own threads wants processors
    processors: float = 1.0
    seconds_per_byte: float = 0.0  # of processor, at BALANCED; 0: nothing was compressed yet
    ratio: float = 1.0  # stored to plain


def choose(signals: Signals) -> Effort:
    """Return how to compress what comes next."""
    if _uplink_limits(signals):
        return _strongest_in_time(signals)
    if signals.behind >= _FULL:
        return Effort.BALANCED  # the disk is what is slow: smaller is faster
    is_scarce = signals.granted < signals.fair * _SCARCE and signals.waiting >= _BUSY
    return Effort.FAST if is_scarce or signals.waiting_live >= _FULL else Effort.BALANCED


def _uplink_limits(signals: Signals) -> bool:
    rate = signals.uplink_bytes_per_second
    return rate > 0 and signals.pile_bytes >= rate * PILE_SECONDS


def _strongest_in_time(signals: Signals) -> Effort:
    """Return the strongest effort at which sealing is still faster than the line."""
    ours = signals.processors * min(1.0, signals.granted / signals.fair)
    needed = signals.uplink_bytes_per_second * _HEADROOM
    for effort in (Effort.STRONGEST, Effort.STRONGER, Effort.STRONG):
        if signals.seconds_per_byte * COST[effort] * needed <= ours * signals.ratio:
            return effort
    return Effort.BALANCED


def pack_bytes(
    *, uplink_bytes_per_second: float, at_once: int, round_trip_seconds: float, limit_bytes: int
) -> int:
    """Return how large a pack should be, in whole MiB, at most `limit_bytes`.

    `at_once` requests share the line. Smaller on a slow one, so that a pack does not hold its place
    for long, and what is cut off is not much; larger where a round trip is long.
    """
    highest = max(PACK_BYTES_MIN, min(PACK_BYTES_MAX, limit_bytes))
    if uplink_bytes_per_second <= 0:
        return min(PACK_BYTES, highest)
    share = uplink_bytes_per_second / max(at_once, 1)
    wanted = max(PACK_BYTES, share * round_trip_seconds * _ROUND_TRIPS)
    size = int(min(wanted, share * _HOLD_SECONDS)) // _MIB * _MIB
    return min(max(size, PACK_BYTES_MIN), highest)
