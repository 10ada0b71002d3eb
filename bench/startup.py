"""How long streamd's commands take to answer: `--help`, and `status` of a running daemon."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from bench.figures import Figure, Place
from bench.peers import CHECKOUT, Streamd
from bench.running import running

RUNS = 7
_START_SECONDS = 60.0


def measure(place: Place) -> Iterator[Figure]:
    """Time both, with a daemon that protects a small tree."""
    tree = place.folder / "tree"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    tool = Streamd(place.folder / "streamd")
    shutil.rmtree(tool.folder, ignore_errors=True)
    tool.folder.mkdir()
    tool.configure(tree)
    command = [sys.executable, "-m", "streamd"]
    with running(tool) as daemon:
        daemon.wait_for("protected, lag", _START_SECONDS)
        for what, arguments, goal in (
            ("`streamd --help`", ["--help"], 0.3),
            ("`streamd status`, daemon running", ["status", "-c", tool.config], 0.5),
        ):
            yield Figure("start", what, _median([*command, *arguments], tool.env), "s", goal)


def _median(command: list[str], env: dict[str, str]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.monotonic()
        subprocess.run(command, env=env, cwd=CHECKOUT, capture_output=True, check=True)
        times.append(time.monotonic() - began)
    return median(times)
