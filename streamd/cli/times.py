"""The T of the command line: now, latest, a local or full date and time, or an offset like -2h.

Pure: the present and the time zone are arguments. The name of a recovery point is not known here;
a command that accepts one looks for it first.
"""

import datetime as dt
import re
from typing import Final

from streamd.config.units import parse_duration
from streamd.effects import MICROSECONDS
from streamd.errors import UsageInvalid

LATEST_US: Final = (1 << 63) - 1  # later than everything: all that is known
HOLD_SECONDS_MAX: Final = 1000 * 366 * 86_400
_OFFSET = re.compile(r"(?:now)?-(\d.*)")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_time(text: str, *, now_us: int, zone: dt.tzinfo) -> int:
    """Return microseconds since the epoch, UTC; `LATEST_US` for `latest`.

    A time without an offset is in `zone`; where clocks are put back, the first of the two. A date
    alone is its midnight. Raises UsageInvalid.
    """
    wanted = text.strip()
    if wanted == "now":
        return now_us
    if wanted == "latest":
        return LATEST_US
    try:
        if offset := _OFFSET.fullmatch(wanted):
            return now_us - parse_duration(offset.group(1)) * MICROSECONDS
        moment = dt.datetime.fromisoformat(wanted)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return (moment - _EPOCH) // dt.timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        what = f'"{text}" is no time: write now, latest, -2h, "2026-11-20 14:03" or RFC 3339'
        raise UsageInvalid(what) from error


def hold_seconds(text: str) -> int:
    """Return for how long a point is to be kept, as somebody typed it. Raises UsageInvalid."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageInvalid(f"--hold: {error}") from error
    if seconds > HOLD_SECONDS_MAX:
        raise UsageInvalid(f"--hold {text} is longer than a thousand years")
    return seconds


def format_time(time_us: int, *, zone: dt.tzinfo) -> str:
    """Return for example `2026-11-20 14:03:07 CET`: to the second, in `zone`."""
    moment = _EPOCH + dt.timedelta(microseconds=time_us)
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname() or local.strftime('%z')}"


def format_rfc3339(time_us: int) -> str:
    """Return for example `2026-11-20T13:03:07.250000Z`: exact, for JSON."""
    moment = _EPOCH + dt.timedelta(microseconds=time_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
