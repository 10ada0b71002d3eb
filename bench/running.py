"""A running daemon of this checkout, and what its processes have used up so far."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Failed
from bench.peers import CHECKOUT, Streamd

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 60.0
_UTIME_AT, _CHILD_STIME_AT = 11, 14  # in /proc/PID/stat, after the name
_STATUS_STARTED_SECONDS = 30.0


class Daemon:
    """`streamd run`, started by `running`. CPU counts its children once they have ended."""

    def __init__(self, tool: Streamd, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.tool = tool
        self._process = process
        self._log = log

    @property
    def cpu_seconds(self) -> float:
        """Return the processor time of the daemon and of the children it has waited for."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        facts = text.rpartition(")")[2].split()
        return sum(map(int, facts[_UTIME_AT : _CHILD_STIME_AT + 1])) * _TICK_SECONDS

    @property
    def rss_mib(self) -> float:
        """Return the resident size now, of the daemon and of its children."""
        mine = self._process.pid
        children = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
        return sum(_rss_mib(pid) for pid in (mine, *map(int, children)))

    @property
    def peak_mib(self) -> float:
        """Return the highest resident size of the daemon itself so far."""
        return _status_mib(self._process.pid, "VmHWM:")

    def status(self) -> str:
        """Return what `streamd status` prints; empty while the daemon does not answer."""
        command = [sys.executable, "-m", "streamd", "status", "-c", self.tool.config]
        done = subprocess.run(
            command, env=self.tool.env, cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        return done.stdout

    def wait_for(self, word: str, seconds: float) -> None:
        """Return when the log has `word`. Raises Failed when it takes longer, or the daemon ends."""
        end = time.monotonic() + seconds
        while word not in self._log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > end:
                shown = self._log.read_text(errors="replace")[-3000:]
                raise Failed(f"no {word!r} from the daemon within {seconds:.0f} s\n{shown}")
            time.sleep(0.2)


@contextmanager
def running(tool: Streamd) -> Iterator[Daemon]:
    """Run a daemon on what `tool` was initialised for, until the block ends."""
    log = tool.folder / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamd", "run", "-c", tool.config],
            env=tool.env, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield Daemon(tool, process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _rss_mib(pid: int) -> float:
    try:
        return _status_mib(pid, "VmRSS:")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # a child that has just ended


def _status_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0
