"""Rows of growth: what an item costs as there are more of them. Flat is good.

Files: one-shot captures of trees of 10^4, 10^5, 10^6 files of 200 bytes. Chunks: the chunk table, the
index and a rebuild with 10^5, 10^6, 10^7 (`bench.index_scale`). Versions: opening a vault with 10^6
of them in its journal (`bench.open_scale`). Each is a process of its own, so that memory is its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from bench.figures import Figure, Place
from bench.measure import Failed
from bench.peers import CHECKOUT, Streamd
from bench.plot import Curve, curves
from bench.trees import many_files

FILES = (10_000, 100_000, 1_000_000)
CHUNKS = (100_000, 1_000_000)
CHUNKS_LONG = 10_000_000  # with STREAMD_BENCH_LONG=1: some five minutes more, and 4 GB of disk
VERSIONS = (12_500, 8), (125_000, 8)  # segments, versions in each: 10^5, 10^6
FLAT = 1.3  # what an item may cost at the largest size, as a share of what it costs in the middle
_SECONDS_MAX = 2400.0


def files(place: Place) -> Iterator[Figure]:
    """First and unchanged captures of ever larger trees."""
    found: dict[str, list[tuple[int, float]]] = {}
    for count in FILES[:-1] if place.quick else FILES:
        tree = many_files(place.data, count)
        tool = Streamd(place.folder / "streamd")
        tool.init(tree)
        first = tool.backup(tree)
        again = tool.backup(tree)
        catalog = os.path.getsize(tool.folder / "state" / "catalog.sqlite")
        for what, value, unit in (
            ("first capture, CPU per file", first.cpu_seconds / count * 1e6, "µs"),
            ("first capture, peak RSS", first.peak_mib, "MiB"),
            ("unchanged, CPU per file", again.cpu_seconds / count * 1e6, "µs"),
            ("unchanged, peak RSS", again.peak_mib, "MiB"),
            ("catalog per file", catalog / count, "B"),
            ("vault per file", tool.size_bytes() / count, "B"),
        ):
            found.setdefault(f"{what} ({unit})", []).append((count, value))
            yield Figure("growth, files", f"{what}, {count:,} files", value, unit)
    yield from _flat("growth, files", found, ("CPU per file", "per file"))
    _draw(place, "growth-files", "files", found)


def chunks(place: Place) -> Iterator[Figure]:
    """The index with ever more chunks."""
    found: dict[str, list[tuple[int, float]]] = {}
    longest = (CHUNKS_LONG,) if os.environ.get("STREAMD_BENCH_LONG") else ()
    for count in CHUNKS + longest:
        facts = _module(place, "bench.index_scale", str(count))
        for what, value, unit in (
            ("catalog per chunk", facts["catalog_bytes_per_chunk"], "B"),
            ("index per chunk", facts["index_bytes_per_chunk"], "B"),
            ("look-up of one that is there", facts["hit_us_per_chunk"], "µs"),
            ("look-up of one that is not", facts["miss_us_per_chunk"], "µs"),
            (
                "writing the index, CPU per chunk",
                facts["write_index_cpu_seconds"] / count * 1e6,
                "µs",
            ),
            ("rebuild, CPU per chunk", facts["rebuild_cpu_seconds"] / count * 1e6, "µs"),
            ("peak RSS of all that", facts["max_rss_mib"], "MiB"),
        ):
            found.setdefault(f"{what} ({unit})", []).append((count, value))
            yield Figure("growth, chunks", f"{what}, {count:,} chunks", value, unit)
    yield from _flat("growth, chunks", found, ("per chunk", "look-up"))
    _draw(place, "growth-chunks", "chunks", found)


def versions(place: Place) -> Iterator[Figure]:
    """Opening states of ever longer journals."""
    found: dict[str, list[tuple[int, float]]] = {}
    for segments, each in VERSIONS:
        facts = _module(place, "bench.open_scale", str(segments), str(each), "brief")
        count = segments * each
        for what in ("open latest", "open middle", "gaps", "history"):
            value = facts[f"{what}, runs"]["cpu_seconds"]
            found.setdefault(f"{what} (s)", []).append((count, value))
            yield Figure("growth, versions", f"{what}, {count:,} versions: CPU", value, "s")
            reads = facts[f"{what}, runs"]["reads"]
            yield Figure("growth, versions", f"{what}, {count:,} versions: reads", reads, "")
    _draw(place, "growth-versions", "versions", found)


def _flat(
    row: str, found: dict[str, list[tuple[int, float]]], judged: tuple[str, ...]
) -> Iterator[Figure]:
    """Compare the largest size with the one before: smaller ones carry the start of the process."""
    for what, points in found.items():
        if any(word in what for word in judged) and len(points) > 1:
            share = points[-1][1] / points[-2][1]
            yield Figure(row, f"{what}, the largest to the one before", share, "", FLAT)


def _draw(place: Place, name: str, items: str, found: dict[str, list[tuple[int, float]]]) -> None:
    lines = [Curve(what, tuple(points)) for what, points in found.items()]
    place.plots.mkdir(parents=True, exist_ok=True)
    (place.plots / f"{name}.svg").write_text(curves(f"by the number of {items}", lines))


def _module(place: Place, *command: str) -> dict[str, Any]:
    """Run a module of the benchmark in a process of its own; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True,
        timeout=_SECONDS_MAX, check=False, env={**os.environ, "TMPDIR": str(place.folder)},
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
