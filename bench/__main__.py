"""The benchmark: the same work by every tool on the same data, in turn, and a table of ratios.

    python -m bench --quick
    python -m bench --only SMALL --rounds 3 --json bench/out/result.json

Works, per dataset: `first` capture, `unchanged` capture, `changed` capture (see bench.datasets),
`restore` of everything to memory (tmpfs), `prune` of all states but the newest. The tools take
turns within each work, and the order rotates from round to round. Data is read from a warm cache.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench import datasets
from bench.datasets import Dataset
from bench.measure import Cost, warm
from bench.peers import Tool, available
from bench.table import Row, Sample, missed, render, rows

DATASETS = ("SMALL", "MIXED", "BIG")
WORKS = ("first", "unchanged", "changed", "restore", "prune")
OUT = Path(__file__).parent / "out"


def main() -> int:
    """Measure, print, write; return 1 when --strict and a goal is missed."""
    options = _options()
    only = [word.upper() for word in options.only]
    names = [name for name in DATASETS if name in only] or list(DATASETS)
    works = [work for work in WORKS if work.upper() in only] or list(WORKS)
    kinds = list(available(options.tool))
    versions = {kind.name: kind.version() for kind in kinds}
    print(f"tools: {', '.join(versions.values()) or 'none'}", file=sys.stderr)
    samples: list[Sample] = []
    for name in names:
        for number in range(options.rounds or (1 if options.quick else 3)):
            data = datasets.make(name, options.data, quick=options.quick)
            samples += _round(data, kinds, number, works, options.data / "repositories")
            print(render(rows(s for s in samples if s.dataset == name)), file=sys.stderr)
    result = rows(samples)
    print(render(result))
    lines = missed(result)
    print("".join(f"\ngoal missed: {line}" for line in lines))
    if options.json:
        _write(options.json, versions, result, samples)
    return 1 if options.strict and lines else 0


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
    for work in WORKS[: last + 1]:
        if work == "changed":
            data.change(data.path)
        # a work not asked for is done all the same when a later one needs it
        if work in works or work in {"first", "changed"}:
            samples += [_sample(tool, data, work, number) for tool in tools]
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
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "host": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": sys.version},
        "versions": versions,
        "rows": [asdict(row) for row in result],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the data, one round")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW",
        help=f"a dataset ({', '.join(DATASETS)}) or a work ({', '.join(WORKS)}); repeatable",
    )  # fmt: skip
    parser.add_argument("--tool", action="append", default=[], help="repeatable; default all")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--data", type=Path, default=OUT, help="where data and repositories go")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a goal is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
