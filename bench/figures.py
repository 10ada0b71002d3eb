"""What a row of the benchmark says besides tables of tools: figures, each with its goal."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. With a `goal` it is met or missed; `at_least` turns the goal around."""

    row: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def share(self) -> float | None:
        """Return the value as a share of its goal: above 1 it is missed; None without a goal."""
        if self.goal is None:
            return None
        if self.at_least:
            return self.goal / self.value if self.value else float("inf")
        return self.value / self.goal

    @property
    def is_missed(self) -> bool:
        """Return whether there is a goal and the value is not good enough."""
        return self.share is not None and self.share > 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row may put its data, how much it should do, and what it draws."""

    folder: Path
    quick: bool
    rounds: int
    data: Path  # where the datasets are
    plots: Path  # where drawings go


Measure = Callable[[Place], Iterator[Figure]]


def render(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| row | what | figure | goal | share of the goal | |", "|---|---|--:|--:|--:|---|"]
    for one in figures:
        sign = "≥" if one.at_least else "≤"
        goal = "" if one.goal is None else f"{sign} {shown(one.goal)} {one.unit}".rstrip()
        share = "" if one.share is None else f"{one.share:.2f}"
        verdict = "" if one.goal is None else "**missed**" if one.is_missed else "met"
        value = f"{shown(one.value)} {one.unit}".rstrip()
        lines.append(f"| {one.row} | {one.what} | {value} | {goal} | {share} | {verdict} |")
    return "\n".join(lines)


def missed(figures: Iterable[Figure]) -> list[str]:
    """Return one line for each goal that is not met."""
    return [
        f"{one.row}, {one.what}: {shown(one.value)} {one.unit}".rstrip()
        + f", goal {'at least' if one.at_least else 'at most'} {shown(one.goal or 0)}"
        for one in figures
        if one.is_missed
    ]


def shown(value: float) -> str:
    """Return a number with three digits that count, and no fewer than its whole ones."""
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
