"""400 days pass, and retention keeps what somebody else reads in the policy.

The clock is moved, the commands are real. STREAMD_YEAR_CAPTURES (default 80; 450 for acceptance)
says how many captures there are in that time, two thirds of them spread over all days and the rest
over the last three.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from system.daemon_process import Daemon, instant
from system.moved_clock import MovedClock
from system.tree import Entry, difference, directory_bytes, listing

CAPTURES = int(os.environ.get("STREAMD_YEAR_CAPTURES", "80"))
DAYS = 400
ZONE = "Europe/Berlin"
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
POLICY = {
    "continuous": "48h",
    "hourly": 30,
    "daily": 10,
    "weekly": 6,
    "monthly": 8,
    "yearly": 2,
}
WINDOW_US = 48 * HOUR


class Capture(NamedTuple):
    """One capture: when, on the moved clock, and what the tree was."""

    began_us: int
    ended_us: int
    tree: dict[bytes, Entry]


def moments(now_us: int) -> list[int]:
    """Return the instants of the captures, ascending, none near the border of an hour."""
    rng = random.Random(8)
    spread = CAPTURES * 2 // 3
    hours = {int(DAYS * 24 * (index + rng.random()) / spread) for index in range(spread)}
    hours |= {DAYS * 24 - rng.randrange(1, 72) for _ in range(CAPTURES - spread)}
    first = (now_us // HOUR) * HOUR - DAYS * DAY
    return [first + hour * HOUR + rng.randrange(5, 50) * 60 * SECOND for hour in sorted(hours)]


def independent_reading(times: list[int], now_us: int) -> set[int]:
    """Return which of the instants the policy keeps, read naively."""
    kept = {time_us for time_us in times if time_us > now_us - WINDOW_US}
    kept.add(max(times))
    kept.add(
        max((time_us for time_us in times if time_us <= now_us - WINDOW_US), default=max(times))
    )
    for name in ("hourly", "daily", "weekly", "monthly", "yearly"):
        last_of = {slot(time_us, name): time_us for time_us in sorted(times)}
        count = POLICY[name]
        assert isinstance(count, int)
        kept.update(sorted(last_of.values())[-count:])
    return kept


def slot(time_us: int, name: str) -> tuple[object, ...]:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).astimezone(
        ZoneInfo(ZONE)
    )
    year, week, _ = local.isocalendar()
    return {
        "hourly": (local.date(), local.hour, local.utcoffset()),
        "daily": (local.date(),),
        "weekly": (year, week),
        "monthly": (local.year, local.month),
        "yearly": (local.year,),
    }[name]


def change(tree: Path, rng: random.Random) -> None:
    """Rewrite, add, rename and remove some of about twenty files."""
    files = sorted(tree.iterdir())
    for path in rng.sample(files, min(3, len(files))):
        path.write_bytes(rng.randbytes(rng.randrange(20_000)))
    (tree / f"new-{rng.getrandbits(32):08x}").write_bytes(rng.randbytes(10_000))
    if len(files) > 20:
        rng.choice(files).unlink()
        files = sorted(tree.iterdir())
        rng.choice(files).rename(tree / f"moved-{rng.getrandbits(32):08x}")


def planned_instants(facts: Any) -> tuple[set[int], set[int]]:
    """Return the instants that `retention plan --json` keeps and those that it drops."""
    kept, dropped = set(), set()
    for point in _points(facts):
        at_us = point["at_us"] if "at_us" in point else _microseconds(point["at"])
        keep = point["keep"] if "keep" in point else bool(point.get("reasons"))
        (kept if keep else dropped).add(at_us)
    return kept, dropped


def _points(facts: Any) -> Iterator[dict[str, Any]]:
    if isinstance(facts, dict):
        if {"at", "at_us"} & facts.keys() and {"keep", "reasons"} & facts.keys():
            yield facts
        facts = list(facts.values())
    if isinstance(facts, list):
        for inner in facts:
            yield from _points(inner)


def _microseconds(value: object) -> int:
    if isinstance(value, int):
        return value
    moment = datetime.fromisoformat(str(value))
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _age(folder: Path, at_us: int, known: set[str]) -> None:
    """Give the objects of the latest capture the age they would have."""
    for above, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            if path not in known:
                os.utime(path, ns=(at_us * 1000, at_us * 1000))
                known.add(path)


@pytest.fixture
def year(tmp_path) -> Iterator[tuple[Daemon, MovedClock, list[Capture]]]:
    tree = tmp_path / "tree"
    tree.mkdir()
    rng = random.Random(9)
    daemon = Daemon(tmp_path / "streamd", tree, policy=POLICY)
    daemon.config.write_text(f'timezone = "{ZONE}"\n{daemon.config.read_text()}')
    config = ("-c", str(daemon.config))
    captures, known = [], set()
    with daemon, MovedClock() as clock:
        for number, at_us in enumerate(moments(time.time_ns() // 1000)):
            if number == 0:
                clock.run(at_us - 60 * SECOND, "init", *config, "--kit", str(tmp_path / "kit"))
            change(tree, rng)
            outcome = clock.run(at_us, "capture", *config)
            captures.append(Capture(outcome.began_us, outcome.ended_us, listing(tree)))
            _age(daemon.vault, at_us, known)
        yield daemon, clock, captures


@pytest.mark.slow
@pytest.mark.timeout(CAPTURES * 4 + 300)
def test_after_400_days_the_policy_is_kept_exactly(year, tmp_path) -> None:
    daemon, clock, captures = year
    config = ("-c", str(daemon.config))
    now_us = captures[-1].ended_us + 60 * SECOND

    def plan() -> tuple[dict[int, int], dict[int, int]]:
        facts = clock.run(now_us, "retention", "plan", *config, "--json").output
        kept, dropped = planned_instants(json.loads(facts))
        return _captures_of(kept, captures), _captures_of(dropped, captures)

    wanted_us = independent_reading([capture.began_us for capture in captures], now_us)
    wanted = {index for index, capture in enumerate(captures) if capture.began_us in wanted_us}
    kept, dropped = plan()
    assert kept.keys() == wanted
    assert dropped.keys() - wanted == set(range(len(captures))) - wanted
    before = directory_bytes(daemon.vault)
    clock.run(now_us, "retention", "run", *config)
    assert directory_bytes(daemon.vault) < before
    for index, point_us in kept.items():
        target, at = tmp_path / f"restored-{index}", instant(point_us)
        clock.run(now_us, "restore", *config, daemon.source, "--to", str(target), "--at", at)
        assert difference(captures[index].tree, listing(target)) == [], f"capture {index} at {at}"
    assert plan()[0].keys() == wanted
    daemon.command("verify", "--level", "full")


def _captures_of(instants: set[int], captures: list[Capture]) -> dict[int, int]:
    """Return number of the capture → its last one of these instants; each has to lie in one."""
    found = {}
    for at_us in sorted(instants):
        inside = [
            number
            for number, capture in enumerate(captures)
            if capture.began_us <= at_us <= capture.ended_us
        ]
        assert inside, f"{instant(at_us)} is in no capture"
        found[inside[0]] = at_us
    return found


def test_the_independent_reading_is_right_about_a_simple_case() -> None:
    now_us = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * SECOND
    daily = [now_us - days * DAY for days in range(DAYS)]
    kept = sorted((now_us - time_us) // DAY for time_us in independent_reading(daily, now_us))
    assert kept[:30] == list(range(30))  # 30 hours that have a change at all are 30 days here
    sunday, month_ends, last_year = 35, [53, 83, 114, 145, 175, 206], 326
    assert kept[30:] == [sunday, *month_ends, last_year]
