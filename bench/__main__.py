"""The benchmark: the same work by every tool on the same data, in turn, and a table of ratios.

    python -m bench --quick
    python -m bench --only SMALL --rounds 3
    python -m bench --quick --against bench/baseline.json

Works, per dataset: `first` capture, `unchanged` capture, `changed` capture (see bench.datasets),
`restore` of everything to memory (tmpfs), `prune` of all states but the newest, and of streamd alone
`help` and `status`, how long its commands take to answer. The tools take turns within each work, and
the order rotates from round to round. Data is read from a warm cache.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench import datasets, plot, startup
from bench.datasets import Dataset
from bench.measure import Cost, warm
from bench.peers import Tool, available
from bench.table import Row, Sample, missed, regressions, render, rows

DATASETS = ("SMALL", "MIXED", "BIG")
WORKS = ("first", "unchanged", "changed", "restore", "prune")
NEEDED = {"first", "changed"}  # also when only a later work is asked for
# what has a goal; --all does the rest too
DEFAULT_WORKS = {
    "SMALL": WORKS,
    "MIXED": ("first", "restore"),
    "BIG": ("first", "changed", "restore"),
}
OUT = Path(__file__).parent / "out"
MARKS = ("<!-- results -->", "<!-- end of results -->")


def main() -> int:
    """Measure, print, write; return 1 when --strict and a goal is missed, or something is slower."""
    options = _options()
    only = [word.upper() for word in options.only]
    names = [name for name in DATASETS if name in only] or list(DATASETS)
    asked = [work for work in WORKS if work.upper() in only]
    kinds = list(available(options.tool))
    versions = {kind.name: kind.version() for kind in kinds}
    print(f"tools: {', '.join(versions.values()) or 'none'}", file=sys.stderr)
    samples: list[Sample] = []
    began = time.monotonic()
    for name in names:
        works = asked or (WORKS if options.all else DEFAULT_WORKS[name])
        data = datasets.make(name, options.data, quick=options.quick)
        datasets.lie_still(data.path)
        for number in range(options.rounds or (1 if options.quick else 3)):
            samples += _round(data, kinds, number, list(works), options.data / "repositories")
            print(render(rows(s for s in samples if s.dataset == name)), file=sys.stderr)
    result = rows(samples)
    print(
        f"{', '.join(versions.values())}; {os.cpu_count()} processors, Linux {platform.release()},"
    )
    print(f"Python {platform.python_version()}; {time.monotonic() - began:.0f} s in all\n")
    print(render(result))
    answers = startup.measure(options.data / "startup") if not options.only else []
    print("".join(f"\n`streamd {one.command}`: {one.seconds:.2f} s" for one in answers))
    lines = missed(result) + startup.missed(answers)
    print("".join(f"\ngoal missed: {line}" for line in lines))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    _write(options.json, versions, result, samples)
    options.json.with_suffix(".svg").write_text(plot.bars(result))
    print(f"\nwritten: {options.json} and {options.json.with_suffix('.svg')}")
    if options.doc:
        _document(options.doc, versions, result, answers)
    slower = regressions(result, json.loads(options.against.read_text())) if options.against else []
    print("".join(f"\nslower: {line}" for line in slower))
    return 1 if slower or (options.strict and lines) else 0


def _round(
    data: Dataset, kinds: list[type[Tool]], number: int, works: list[str], folder: Path
) -> list[Sample]:
    """Let every tool do all works once, one work after the other."""
    turn = number % max(len(kinds), 1)
    tools = [kind(folder / kind.name) for kind in (*kinds[turn:], *kinds[:turn])]
    for tool in tools:
        tool.init(data.path)
    warm(data.path)
    samples: list[Sample] = []
    last = max(WORKS.index(work) for work in works)
    needed = NEEDED if "prune" in works else {"first"}
    try:
        for work in WORKS[: last + 1]:
            if work not in works and work not in needed:
                continue
            if work == "changed":
                data.change(data.path)
            samples += [_sample(tool, data, work, number) for tool in tools]
    finally:
        data.undo(data.path)
    shutil.rmtree(folder, ignore_errors=True)
    return [sample for sample in samples if sample.work in works]


def _sample(tool: Tool, data: Dataset, work: str, number: int) -> Sample:
    before = tool.size_bytes()
    cost = _do(tool, data, work)
    grown = abs(tool.size_bytes() - before)
    print(f"{data.name} {work} {tool.name}: {cost.wall_seconds:.2f} s", file=sys.stderr)
    costs = (cost.wall_seconds, cost.cpu_seconds, cost.peak_mib)
    return Sample(data.name, work, tool.name, number, *costs, grown)


def _do(tool: Tool, data: Dataset, work: str) -> Cost:
    if work == "prune":
        return tool.prune()
    if work != "restore":
        return tool.backup(data.path)
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bench-restore-", dir=memory) as target:
        cost = tool.restore(data.path, Path(target))
        files, _ = datasets.measure(Path(target))
        wanted, _ = datasets.measure(data.path)
        assert files >= wanted, f"{tool.name} restored {files} names of {wanted}"
    return cost


def _write(path: Path, versions: dict[str, str], result: list[Row], samples: list[Sample]) -> None:
    body = {
        "host": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": sys.version},
        "versions": versions,
        "rows": [asdict(row) for row in result],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")


def _document(
    path: Path, versions: dict[str, str], result: list[Row], answers: list[startup.Answer]
) -> None:
    """Put the table between the two marks of a page, in place of what stands there."""
    head, _, rest = path.read_text().partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
    python = f"Python {platform.python_version()}"
    lines = [
        f"{', '.join(versions.values())}; {machine}, {python}; {time.strftime('%Y-%m-%d')}.",
        "",
        render(result),
        "",
        *(f"* `streamd {one.command}`: {one.seconds:.2f} s" for one in answers),
        *(f"* Goal missed: {line}" for line in missed(result) + startup.missed(answers)),
    ]
    path.write_text(head + "\n".join([MARKS[0], *lines, MARKS[1]]) + tail)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the data, one round")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW",
        help=f"a dataset ({', '.join(DATASETS)}) or a work ({', '.join(WORKS)}); repeatable",
    )  # fmt: skip
    parser.add_argument("--tool", action="append", default=[], help="repeatable; default all")
    parser.add_argument(
        "--json",
        type=Path,
        default=OUT / "result.json",
        help="everything measured goes into this file, and a plot beside it",
    )
    parser.add_argument("--all", action="store_true", help="every work, with a goal or without")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="exit 1 when a ratio is more than 15 %% worse than in this earlier result",
    )
    parser.add_argument(
        "--doc", type=Path, metavar="FILE", help="put the table into this page, between its marks"
    )
    parser.add_argument("--data", type=Path, default=OUT, help="where data and repositories go")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
