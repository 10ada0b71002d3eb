"""Runs a command and measures it: wall time, CPU of all its processes, peak memory."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
SECONDS_MAX = 1800.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


class Failed(Exception):
    """A command of the benchmark did not end with 0."""


def run(command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None) -> Cost:
    """Run a command to its end. Raises Failed with what it printed when it fails.

    CPU is that of the process and of every child it waited for; memory is the largest resident
    size of the process itself or of one of its children.
    """
    os.sync()  # no run pays for what another one left behind
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    process = subprocess.Popen(
        command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    peak = _Peak(process.pid)
    try:
        output, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failed(f"{' '.join(command)}: not done within {SECONDS_MAX:.0f} s") from None
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        shown = output.decode("utf-8", "replace")[-3000:]
        raise Failed(f"{' '.join(command)}: exit {process.returncode}\n{shown}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak.end())


class _Peak:
    """The high-water mark of a process, read from /proc until it ends.

    getrusage would give the largest of all children so far, not of this one.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """Stop sampling and return the peak in MiB."""
        self._ended.set()
        self._thread.join()
        return self._mib

    def _sample(self) -> None:
        while True:
            try:
                text = self._status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                return
            for line in text.splitlines():
                if line.startswith("VmHWM:"):
                    self._mib = max(self._mib, int(line.split()[1]) / 1024)
            if self._ended.wait(SAMPLE_SECONDS):
                return


def warm(path: Path) -> None:
    """Bring a tree into the page cache, so that all tools read from memory."""
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            if not os.path.islink(full):
                with open(full, "rb", buffering=0) as file:
                    while file.read(8 << 20):
                        pass
