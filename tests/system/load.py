"""A mutator in a process of its own, so that the test beside it cannot slow it down."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self


class Load:
    """A running mutator: populated after construction, changing the tree from `start` on."""

    def __init__(
        self,
        root: Path,
        log: Path,
        *,
        seed: int,
        rate: float,
        seconds: float = 1e6,
        profile: str = "mixed",
        population: int = 600,
    ) -> None:
        options = {
            "log": log,
            "seed": seed,
            "rate": rate,
            "seconds": seconds,
            "profile": profile,
            "population": population,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.root, self.log = root, log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "system.mutator", str(root), *arguments],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line("populated")

    def start(self) -> None:
        """Let it begin, now that the tree is populated."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def pause(self) -> None:
        """Freeze it: the tree stands still until `resume`, perhaps in the midst of an operation."""
        self._process.send_signal(signal.SIGSTOP)
        while "State:\tT" not in Path(f"/proc/{self._process.pid}/status").read_text():
            time.sleep(0.001)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> dict[str, float]:
        """End it after the operation at hand; return its summary."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
        return self.wait()

    def wait(self, seconds: float = 30) -> dict[str, float]:
        """Wait for its end; return its summary."""
        output, _ = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, f"the mutator failed: {output}"
        return json.loads(output.splitlines()[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        shutil.rmtree(f"{self.root}.outside", ignore_errors=True)

    def _line(self, expected: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line == expected, f"the mutator said {line!r} instead of {expected!r}"
