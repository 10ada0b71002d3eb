"""The benchmark: the same work by every tool on the same data, in turn, and a table of ratios.

    python -m bench --quick
    python -m bench --only SMALL --rounds 3
    python -m bench --quick --against bench/baseline.json

Works, per dataset: `first` capture, `unchanged` capture, `changed` capture (see bench.datasets),
`restore` of everything to memory (tmpfs), `prune` of all states but the newest. The tools take turns
within each work, and the order rotates from round to round. Data is read from a warm cache. The other
rows measure streamd alone, or beside a peer of their own; each stands for itself, and when one fails the
others go on.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import adaptive, azurite_row, daemon, datasets, growth, plot, startup, tls_row
from bench.datasets import Dataset
from bench.figures import Figure, Measure, Place
from bench.measure import Cost, warm
from bench.peers import Tool, available
from bench.report import Report
from bench.table import Sample, regressions, render, rows

DATASETS = ("SMALL", "MIXED", "BIG")
WORKS = ("first", "unchanged", "changed", "restore", "prune")
NEEDED = {"first", "changed"}  # also when only a later work is asked for
# what has a goal; --all does the rest too
DEFAULT_WORKS = {
    "SMALL": WORKS,
    "MIXED": ("first", "restore"),
    "BIG": ("first", "changed", "restore"),
}
# measured while the data comes to rest, and what needs it afterwards
EARLY_ROWS: dict[str, Measure] = {
    "START": startup.measure,
    "TLS": tls_row.measure,
    "DAEMON": daemon.delays,
}
LATE_ROWS: dict[str, Measure] = {"AZURITE": azurite_row.measure}
LONG_ROWS: dict[str, Measure] = {  # not with --quick, unless --growth
    "TREE-SIZE": daemon.tree_size,
    "GROWTH-FILES": growth.files,
    "GROWTH-CHUNKS": growth.chunks,
    "GROWTH-VERSIONS": growth.versions,
}
FULL_ROWS: dict[str, Measure] = {"COMPRESSION": adaptive.measure}  # not with --quick
ON_DEMAND_ROWS: dict[str, Measure] = {"IDLE": daemon.idle}  # TREE-SIZE has it too
OUT = Path(__file__).parent / "out"


def main() -> int:
    """Measure, print, write; return 1 when --strict and a goal is missed, or something is slower."""
    options = _options()
    kinds = list(available(options.tool))
    report = Report({kind.name: kind.version() for kind in kinds}, quick=options.quick)
    print(f"tools: {', '.join(report.versions.values()) or 'none'}", file=sys.stderr)
    only = {word.upper() for word in options.only}
    datas = _datasets(only, options)
    _other_rows(EARLY_ROWS, only, options, report)
    for data in datas:
        _compare(data, kinds, only, options, report)
    _other_rows(LATE_ROWS, only, options, report)
    if only or not options.quick:
        _other_rows(FULL_ROWS, only, options, report)
    if only or options.growth or not (options.quick or options.table):
        _other_rows(LONG_ROWS, only, options, report)
    if only:
        _other_rows(ON_DEMAND_ROWS, only, options, report)
    print(report.text())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    options.json.with_suffix(".svg").write_text(plot.bars(report.rows))
    print(f"\nwritten: {options.json}, and plots beside it")
    if options.doc:
        report.put_into(options.doc)
    slower = []
    if options.against:
        slower = regressions(report.rows, json.loads(options.against.read_text()))
    print("".join(f"\nslower: {line}" for line in slower))
    return 1 if slower or report.failures or (options.strict and report.missed) else 0


def _datasets(only: set[str], options: argparse.Namespace) -> list[Dataset]:
    """Make the data that is asked for."""
    works = {work.upper() for work in WORKS}
    if only and not only & {*DATASETS, *works}:
        return []
    names = [name for name in DATASETS if name in only] or DATASETS
    return [datasets.make(name, options.data, quick=options.quick) for name in names]


def _other_rows(
    chosen: dict[str, Measure], only: set[str], options: argparse.Namespace, report: Report
) -> None:
    for name, measure in chosen.items():
        if only and name not in only:
            continue
        folder = options.data / "rows" / name.lower()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rounds = options.rounds or (1 if options.quick else 3)
        place = Place(folder.resolve(), options.quick, rounds, options.data, options.json.parent)
        began = time.monotonic()
        try:
            for figure in measure(place):
                report.figures.append(figure)
                _say(figure)
        except Exception as error:
            report.failures.append(f"{name}: {str(error).strip().splitlines()[-1]}")
            print(f"{name} failed: {error}", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        report.took[name] = time.monotonic() - began


def _say(figure: Figure) -> None:
    print(f"{figure.row}, {figure.what}: {figure.value:.4g} {figure.unit}", file=sys.stderr)


def _compare(
    data: Dataset,
    kinds: list[type[Tool]],
    only: set[str],
    options: argparse.Namespace,
    report: Report,
) -> None:
    """Let the tools compete on one dataset."""
    asked = [work for work in WORKS if work.upper() in only]
    works = asked or list(WORKS if options.all else DEFAULT_WORKS[data.name])
    datasets.lie_still(data.path)
    began = time.monotonic()
    try:
        for number in range(options.rounds or (1 if options.quick else 3)):
            folder = options.data / "repositories"
            report.samples += _round(data, kinds, number, works, folder)
            done = [sample for sample in report.samples if sample.dataset == data.name]
            print(render(rows(done)), file=sys.stderr)
    except Exception as error:
        report.failures.append(f"{data.name}: {str(error).strip().splitlines()[-1]}")
        print(f"{data.name} failed: {error}", file=sys.stderr)
    report.took[data.name] = time.monotonic() - began


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the data, one round")
    parser.add_argument("--table", action="store_true", help="without 10⁶ files and growth")
    parser.add_argument("--growth", action="store_true", help="those too, although --quick")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW",
        help=f"a dataset ({', '.join(DATASETS)}), a work ({', '.join(WORKS)}) or a row"
        f" ({', '.join([*EARLY_ROWS, *LATE_ROWS, *FULL_ROWS, *LONG_ROWS, *ON_DEMAND_ROWS])}); repeatable",
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
