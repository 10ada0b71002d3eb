"""Rows of growth: what an item costs as there are more of them. Flat is good.

Files: one-shot captures of trees of 10^4, 10^5, 10^6 files of 200 bytes. Chunks: the chunk table, the
index and a rebuild with 10^5, 10^6, 10^7 (`bench.index_scale`). Versions: opening a vault with 10^4,
10^5, 10^6 of them in its journal (`bench.version_scale`). Each is a process of its own, so that memory
is its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure, Place
from bench.measure import Failed
from bench.peers import CHECKOUT, Streamd
from bench.plot import Curve, curves
from bench.trees import many_files

FILES = (10_000, 100_000, 1_000_000)
CHUNKS = (100_000, 1_000_000)
CHUNKS_LONG = 10_000_000  # with STREAMD_BENCH_LONG=1: some three minutes more
VERSIONS = (10_000, 100_000, 1_000_000)
FLAT = 1.3  # what an item may cost at the largest size, as a share of what it costs in the middle
_SECONDS_MAX = 900.0
_ROOM_BYTES: Final = 3 << 30
_MEMORY: Final = Path("/dev/shm")
_QUESTIONS: Final = {
    "latest": "the latest state",
    "middle": "a state in the middle",
    "history": "all records",
    "gaps": "gaps",
}


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
        with _in_memory(place) as folder:
            (facts,) = _module(folder, "bench.index_scale", str(count))
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
    sizes = [str(size) for size in VERSIONS[: -1 if place.quick else None]]
    with _in_memory(place) as folder:
        lines = _module(folder, "bench.version_scale", str(folder / "vault"), *sizes)
    for facts in lines:
        count = facts["versions"]
        for what, value, unit in _of_versions(facts):
            found.setdefault(f"{what} ({unit})", []).append((count, value))
            yield Figure("growth, versions", f"{what}, {count:,} versions", value, unit)
    yield from _flat("growth, versions", found, ("per version",))
    _draw(place, "growth-versions", "versions", found)


def _of_versions(facts: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Yield each figure of a vault with so many versions, with its unit."""
    count = facts["versions"]
    yield "written, CPU per version", facts["build_us_per_version"], "µs"
    for part in ("catalog", "vault", "index"):
        yield f"{part} per version", facts[f"{part}_bytes"] / count, "B"
    for what, name in _QUESTIONS.items():
        asked = facts[what]
        yield f"{name}, CPU", asked["cpu_seconds"], "s"
        yield f"{name}, by the clock", asked["seconds"], "s"
        yield f"{name}, memory", asked["grown_mib"], "MiB"
        yield f"{name}, reads", asked["reads"], "objects"
    yield "all records, CPU per version", facts["history"]["cpu_seconds"] / count * 1e6, "µs"


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


@contextmanager
def _in_memory(place: Place) -> Iterator[Path]:
    """Lend a directory in memory, or else on disk, where the flushes of building take their time."""
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    where = _MEMORY if has_room else place.folder
    with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=where) as folder:
        yield Path(folder)


def _module(folder: Path, *command: str) -> list[dict[str, Any]]:
    """Run a module of the benchmark in a process of its own; return what it prints as JSON lines."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True,
        timeout=_SECONDS_MAX, check=False,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(CHECKOUT / "tests")},
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]
