"""All that a run of the benchmark has found: as text, as JSON, and as a part of a page."""

import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import figures
from bench.figures import Figure
from bench.table import Row, Sample, goals_of, render, rows

MARKS = ("<!-- results -->", "<!-- end of results -->")


class Report:
    """Filled while the run goes on."""

    def __init__(self, versions: dict[str, str], *, quick: bool) -> None:
        self.versions = versions
        self.quick = quick
        self.samples: list[Sample] = []
        self.figures: list[Figure] = []
        self.failures: list[str] = []
        self.took: dict[str, float] = {}  # seconds by row
        self._began = time.monotonic()

    @property
    def rows(self) -> list[Row]:
        """Return the medians of the tools."""
        return rows(self.samples)

    @property
    def judged(self) -> list[Figure]:
        """Return everything that has a goal."""
        return [one for one in (*goals_of(self.rows), *self.figures) if one.goal is not None]

    @property
    def missed(self) -> list[Figure]:
        """Return what has missed its goal."""
        return [one for one in self.judged if one.is_missed]

    def text(self) -> str:
        """Return it as Markdown: the goals, the tools, the other figures."""
        count = len(self.judged)
        size = "quick size" if self.quick else "full size"
        seconds = time.monotonic() - self._began
        others = [one for one in self.figures if one.goal is None]
        facts = [*self.versions.values(), machine(), time.strftime("%Y-%m-%d"), size]
        verdict = f"Of {count} goals {count - len(self.missed)} are met, {len(self.missed)} missed."
        parts = [
            f"{', '.join(facts)}, {seconds / 60:.0f} minutes. {verdict}",
            figures.render(self.judged) if self.judged else "",
            render(self.rows) if self.samples else "",
            figures.render(others) if others else "",
            "\n".join(f"* Failed: {line}" for line in self.failures),
        ]
        return "\n\n".join(part for part in parts if part)

    def put_into(self, page: Path) -> None:
        """Put the text between the two marks of a page, in place of what stands there."""
        head, found, rest = page.read_text().partition(MARKS[0])
        _, found_end, tail = rest.partition(MARKS[1])
        if not (found and found_end):
            raise ValueError(f"{page} lacks the marks {MARKS[0]} and {MARKS[1]}")
        page.write_text(f"{head}{MARKS[0]}\n{self.text()}\n{MARKS[1]}{tail}")

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "host": {"cpus": os.cpu_count(), "model": processor(), "kernel": platform.release()},
            "python": platform.python_version(),
            "versions": self.versions,
            "quick": self.quick,
            "rows": [asdict(row) for row in self.rows],
            "figures": [{**asdict(one), "missed": one.is_missed} for one in self.figures],
            "samples": [asdict(sample) for sample in self.samples],
            "failures": self.failures,
            "seconds": {name: round(seconds, 1) for name, seconds in self.took.items()},
        }


def machine() -> str:
    """Return what the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} processors ({processor()}), {memory:.0f} GiB,"
        f" Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def processor() -> str:
    """Return the processor's name as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
