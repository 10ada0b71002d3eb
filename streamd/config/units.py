"""Sizes, rates, durations, percentages and times of day, as people write them.

Pure functions. What is printed parses back to the same number; `streamd config show`, the
generated reference and the commands all print with these.
"""

import re
from typing import Final

_SIZES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATIONS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)")
_DURATION_PART = re.compile(r"(\d+)([wdhms])")
_DURATION = re.compile(r"(?:\d+[wdhms])+")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-4]):([0-5]\d)")
_MINUTES_PER_DAY: Final = 1_440
_PERCENT_MAX: Final = 100


def parse_size(text: str) -> int:
    """Return the bytes that `64MiB` or `200 GB` means. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    factor = _SIZES.get(match.group(2)) if match else None
    if match is None or factor is None:
        raise ValueError(f'"{text}" is not a size: write for example 64MiB, 200GiB or 500MB')
    return round(float(match.group(1)) * factor)


def format_size(size_bytes: int) -> str:
    """Return `size_bytes` in the largest unit that divides it, for example 64MiB."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZES[unit] == 0:
            return f"{size_bytes // _SIZES[unit]}{unit}"
    return f"{size_bytes}B"


def parse_rate(text: str) -> int:
    """Return the bytes per second that `5MiB/s` means. Raises ValueError."""
    amount, slash, second = text.strip().partition("/")
    if not slash or second.strip() != "s":
        raise ValueError(f'"{text}" is not a rate: write for example 5MiB/s')
    return parse_size(amount)


def format_rate(bytes_per_second: int) -> str:
    """Return for example 5MiB/s."""
    return f"{format_size(bytes_per_second)}/s"


def parse_duration(text: str) -> int:
    """Return the seconds that `15s`, `90m`, `2d` or `1h30m` means. Raises ValueError."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(f'"{text}" is not a duration: write for example 15s, 90m, 48h or 2d')
    parts = _DURATION_PART.findall(text)
    return sum(int(count) * _DURATIONS[unit] for count, unit in parts)


def format_duration(seconds: int) -> str:
    """Return `seconds` in the largest unit that divides it; days only from three on (48h)."""
    for unit in ("d", "h", "m"):
        smallest = 3 if unit == "d" else 1
        if seconds % _DURATIONS[unit] == 0 and seconds // _DURATIONS[unit] >= smallest:
            return f"{seconds // _DURATIONS[unit]}{unit}"
    return f"{seconds}s"


def parse_percent(text: str) -> float:
    """Return the ratio (0 … 1) that `10%` means. Raises ValueError."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None or float(match.group(1)) > _PERCENT_MAX:
        raise ValueError(f'"{text}" is not a percentage: write for example 10%')
    return float(match.group(1)) / 100


def format_percent(ratio: float) -> str:
    """Return for example 10%."""
    return f"{ratio * 100:g}%"


def parse_time_of_day(text: str) -> int:
    """Return the minutes after midnight that `22:00` means; `24:00` is the end of the day."""
    match = _TIME_OF_DAY.fullmatch(text.strip())
    minutes = int(match.group(1)) * 60 + int(match.group(2)) if match else _MINUTES_PER_DAY + 1
    if minutes > _MINUTES_PER_DAY:
        raise ValueError(f'"{text}" is not a time of day: write for example 22:00')
    return minutes


def format_time_of_day(minutes: int) -> str:
    """Return for example 22:00."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
