"""streamd commands at another time: a process that runs them one by one under a moved clock.

Only `time.time` and `time.time_ns` move, which is where streamd's one clock reads the time of day;
timeouts use the monotonic clock and stay. One process for all commands, since 400 days of captures
would otherwise spend most of their time on starting Python.

    with MovedClock() as host: host.run(at_us, "capture", "-c", "…")
"""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from system.daemon_process import environment


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    output: str
    errors: str
    began_us: int  # on the moved clock
    ended_us: int


class MovedClock:
    """The test's end: hands over commands, one at a time."""

    def __enter__(self) -> Self:
        checkout = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "system.moved_clock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment() | {"PYTHONPATH": f"{checkout}:{checkout / 'tests'}"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, at_us: int, *arguments: str, codes: tuple[int, ...] = (0,)) -> Outcome:
        """Run `streamd …` as if it were `at_us`; asserts that its exit code is one of `codes`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"at_us": at_us, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        outcome = Outcome(*json.loads(self._process.stdout.readline()))
        assert outcome.code in codes, f"{arguments}: exit {outcome.code}\n{outcome.errors}"
        return outcome


def main() -> None:
    """The other end: commands as lines on standard input, outcomes as lines on standard output."""
    real_ns = time.time_ns
    answers = sys.stdout
    shift_ns = 0
    time.time_ns = lambda: real_ns() + shift_ns
    time.time = lambda: (real_ns() + shift_ns) / 1e9
    from streamd.cli.main import main as streamd

    for line in sys.stdin:
        task = json.loads(line)
        shift_ns = task["at_us"] * 1000 - real_ns()
        began_us = time.time_ns() // 1000
        code, output, errors = _run(streamd, task["arguments"])
        ended_us = time.time_ns() // 1000
        answers.write(json.dumps([code, output, errors, began_us, ended_us]) + "\n")
        answers.flush()


def _run(streamd, arguments: Sequence[str]) -> tuple[int, str, str]:
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = int(streamd(list(arguments)))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    main()
