"""Turns measurements into a table with ratios against the faster peer."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.figures import Figure

OURS = "streamd"

# the goals, as shares of the faster (or smaller) peer: dataset and work → (wall, CPU, size)
GOALS: dict[tuple[str, str], tuple[float | None, float | None, float | None]] = {
    ("SMALL", "first"): (1 / 3, 1 / 2, 0.85),
    ("MIXED", "first"): (1 / 3, 1 / 2, 1.0),
    ("BIG", "first"): (1 / 3, 0.7, 1.0),
    ("SMALL", "unchanged"): (1 / 3, None, None),
    ("SMALL", "changed"): (1 / 3, None, 1.0),
    ("BIG", "changed"): (1 / 3, None, 1.0),
    ("SMALL", "restore"): (1 / 2, None, None),
    ("MIXED", "restore"): (1 / 2, None, None),
    ("BIG", "restore"): (1 / 2, None, None),
    ("SMALL", "prune"): (1 / 2, None, None),
}
PEAK_MIB = 300


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run."""

    dataset: str
    work: str
    tool: str
    round: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    stored_bytes: int  # what the repository grew by, or for prune shrank by


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one tool at one work."""

    dataset: str
    work: str
    tool: str
    runs: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    stored_mb: float


def rows(samples: Iterable[Sample]) -> list[Row]:
    """Return the medians, in the order in which the works were first measured."""
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.dataset, sample.work, sample.tool), []).append(sample)
    return [
        Row(
            *key,
            len(group),
            median(sample.wall_seconds for sample in group),
            median(sample.cpu_seconds for sample in group),
            median(sample.peak_mib for sample in group),
            median(sample.stored_bytes for sample in group) / 1e6,
        )
        for key, group in groups.items()
    ]


def ratio(row: Row, all_rows: Iterable[Row], fact: str) -> float | None:
    """Return our value as a share of the best peer's at the same work; None without a peer."""
    peers = [
        getattr(other, fact)
        for other in all_rows
        if other.tool != OURS and (other.dataset, other.work) == (row.dataset, row.work)
    ]
    return getattr(row, fact) / min(peers) if row.tool == OURS and peers and min(peers) else None


def render(all_rows: list[Row]) -> str:
    """Return the table as Markdown; a ratio beyond its goal is marked with `!`."""
    lines = [
        "| data | work | tool | n | wall s | CPU s | peak MiB | stored MB | wall ratio | CPU ratio | size ratio |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in all_rows:
        goals = GOALS.get((row.dataset, row.work), (None, None, None))
        facts = ("wall_seconds", "cpu_seconds", "stored_mb")
        ratios = [
            _ratio(ratio(row, all_rows, fact), goal)
            for fact, goal in zip(facts, goals, strict=True)
        ]
        peak = f"{row.peak_mib:.0f}{' !' if row.tool == OURS and row.peak_mib > PEAK_MIB else ''}"
        lines.append(
            f"| {row.dataset} | {row.work} | {row.tool} | {row.runs} | {row.wall_seconds:.2f} |"
            f" {row.cpu_seconds:.2f} | {peak} | {row.stored_mb:.1f} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


FACTS = (
    ("wall_seconds", "wall, as a share of the faster peer's"),
    ("cpu_seconds", "CPU, as a share of the cheaper peer's"),
    ("stored_mb", "stored, as a share of the smaller peer's"),
)


def goals_of(all_rows: list[Row]) -> list[Figure]:
    """Return our ratios with their goals, and our peak memory."""
    found = []
    for row in all_rows:
        if row.tool != OURS:
            continue
        name = f"{row.dataset} {row.work}"
        goals = GOALS.get((row.dataset, row.work), (None, None, None))
        for (fact, what), goal in zip(FACTS, goals, strict=True):
            share = ratio(row, all_rows, fact)
            if share is not None and goal is not None:
                found.append(Figure(name, what, share, "", goal))
        found.append(Figure(name, "peak RSS", row.peak_mib, "MiB", PEAK_MIB))
    return found


WORSE_MAX = 1.15
NOISE_SECONDS = 0.1  # of a row that is over at once, a ratio says nothing


def regressions(all_rows: list[Row], baseline: dict[str, Any]) -> list[str]:
    """Return one line for each of our ratios that is more than 15 % worse than in `baseline`."""
    before = [Row(**row) for row in baseline["rows"]]
    lines = []
    for row in all_rows:
        for fact in ("wall_seconds", "cpu_seconds", "stored_mb"):
            now = ratio(row, all_rows, fact)
            same = (r for r in before if (r.dataset, r.work, r.tool) == key_of(row))
            then = next((ratio(r, before, fact) for r in same), None)
            if now is None or then is None or now <= then * WORSE_MAX:
                continue
            if fact == "stored_mb" or getattr(row, fact) * (1 - then / now) > NOISE_SECONDS:
                lines.append(
                    f"{row.dataset} {row.work} {fact}: {now:.2f} of the best peer, was {then:.2f}"
                )
    return lines


def key_of(row: Row) -> tuple[str, str, str]:
    """Return what a row is about."""
    return row.dataset, row.work, row.tool


def _ratio(share: float | None, goal: float | None) -> str:
    if share is None:
        return ""
    if goal is None:
        return f"{share:.2f}"
    return f"{share:.2f} (≤ {goal:.2f}){' !' if share > goal else ''}"
