"""How long streamd's commands take to answer: `--help`, and `status` of a running daemon."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.peers import CHECKOUT, Streamd

RUNS = 5
GOALS = {"--help": 0.3, "status": 0.5}
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The median of one command."""

    command: str
    seconds: float


def measure(folder: Path) -> list[Answer]:
    """Time both, with a daemon that protects a small tree."""
    tree = folder / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    tool = Streamd(folder / "streamd")
    tool.init(tree)
    config = str(tool.folder / "streamd.toml")
    command = [sys.executable, "-m", "streamd"]
    daemon = subprocess.Popen(
        [*command, "run", "-c", config],
        env=tool.env, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + _START_SECONDS
        while not (tool.folder / "control.sock").exists() and time.monotonic() < end:
            time.sleep(0.1)
        return [
            Answer("--help", _median([*command, "--help"], tool.env)),
            Answer("status", _median([*command, "status", "-c", config], tool.env)),
        ]
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def missed(answers: list[Answer]) -> list[str]:
    """Return one line for each command that takes longer than its goal."""
    return [
        f"streamd {one.command}: {one.seconds:.2f} s, goal {GOALS[one.command]:.1f} s"
        for one in answers
        if one.seconds > GOALS[one.command]
    ]


def _median(command: list[str], env: dict[str, str]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.monotonic()
        subprocess.run(command, env=env, cwd=CHECKOUT, capture_output=True, check=False)
        times.append(time.monotonic() - began)
    return median(times)
