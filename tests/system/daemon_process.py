"""streamd as an operator runs it: a real process with a configuration of its own.

A `Daemon` owns a work directory with everything but the protected tree: configuration, key file,
vault (unless elsewhere), state, socket and log. Nothing of streamd is imported: what these tests
see is the command line, the metrics page and the restored files.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import stretching
from ports import free_port

START_SECONDS = 100
PROTECT_SECONDS = 100  # patience, not a promise: on a machine that does much else
COMMAND_SECONDS = 300
STOP_SECONDS = 20  # the promise for SIGTERM
POLL_SECONDS = 0.05
SAMPLE_SECONDS = 0.2


class CommandFailed(AssertionError):
    """A streamd command ended with another exit code than the test allows."""


class Daemon:
    """One streamd installation. As a context manager it leaves no process behind."""

    def __init__(
        self,
        workdir: Path,
        tree: Path,
        *,
        vault_url: str = "",
        vault_options: dict[str, object] | None = None,
        rpo: str = "2s",
        policy: dict[str, object] | None = None,
        source_options: dict[str, object] | None = None,
        tables: str = "",
        source: str = "tree",
        local_options: dict[str, object] | None = None,
    ) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self.workdir, self.tree, self.source = workdir, tree, source
        self.config = workdir / "streamd.toml"
        self.log = workdir / "daemon.log"
        self.vault = workdir / "vault"
        self.port = free_port()
        self.rpo_seconds = float(rpo.removesuffix("s"))
        self.process: subprocess.Popen[bytes] | None = None
        self.program, self.surroundings = streamd(), environment()  # of the daemon
        self.memory = MemorySamples()
        self._text = _toml(
            {
                "vault": {
                    "url": vault_url or f"file://{self.vault}",
                    "key_file": str(workdir / "vault.key"),
                    **(vault_options or {}),
                },
                **(
                    {
                        "local": {
                            "path": str(workdir / "local"),
                            "min_free": "1%",
                            **(local_options or {}),
                        }
                    }
                    if vault_url
                    else {}
                ),
                f"sources.{source}": {
                    "paths": [str(tree)],
                    "policy": "test",
                    "rpo": rpo,
                    **(source_options or {}),
                },
                "policies.test": {"continuous": "48h", **(policy or {})},
                "daemon": {
                    "state": str(workdir / "state"),
                    "socket": str(workdir / "control.sock"),
                },
                "metrics": {"listen": f"127.0.0.1:{self.port}"},
            }
        )
        self.config.write_text(self._text + tables)

    # -- commands --------------------------------------------------------------------------------

    def init(self) -> None:
        """Create the vault and this host's key file; its secrets are cheap to stretch."""
        kit = ["--kit", str(self.workdir / "kit.txt")]
        line = [*stretching.program(), "init", "-c", str(self.config), *kit]
        self._finished(line, environment() | stretching.surroundings(), (0,))

    def command(self, name: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run one command to its end and return what it printed; CommandFailed on other codes."""
        line = [*streamd(), name, "-c", str(self.config), *arguments]
        return self._finished(line, environment(), codes)

    def _finished(self, line: list[str], variables: dict[str, str], codes: tuple[int, ...]) -> str:
        done = subprocess.run(
            line, capture_output=True, check=False, timeout=COMMAND_SECONDS, env=variables
        )
        output, errors = (
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        if done.returncode not in codes:
            shown = " ".join(line[2:])
            raise CommandFailed(
                f"{shown}: exit {done.returncode}\n{errors[-3000:]}\n{output[-1000:]}\n{self.log_tail()}"
            )
        return output

    def facts(self, name: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a command with --json and return the parsed object."""
        return json.loads(self.command(name, "--json", *arguments, codes=codes))

    def restore(self, to: Path, *, at: str | int = "now", path: str = "") -> None:
        """Restore the source into `to`; `at` is any T, an integer is microseconds since 1970."""
        moment = instant(at) if isinstance(at, int) else at
        what = f"{self.source}:{path}" if path else self.source
        self.command("restore", what, "--to", str(to), "--at", moment, "--devices")

    # -- the process -----------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> None:
        """Start `streamd run` and, unless told not to, wait until its metrics page answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.surroundings,
            )
        self.memory.watch(self.process.pid)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the metrics page shows a watermark: from then on the tree is watched."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self._assert_runs()
            if self.watermarks():
                return
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"no watermark after {START_SECONDS} s\n{self.log_tail()}")

    def kill(self) -> None:
        """End it with SIGKILL, at whatever it is doing."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.memory.pause()

    def stop(self, *, seconds: float = STOP_SECONDS) -> float:
        """End it with SIGTERM; return the seconds it took, assert that it drained in time."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"still there {seconds} s after SIGTERM\n{self.log_tail()}"
            ) from None
        self.memory.pause()
        assert code in (0, -signal.SIGTERM), f"exit {code} after SIGTERM\n{self.log_tail()}"
        return time.monotonic() - begin

    def reload(self) -> None:
        """Send SIGHUP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def wait_protected(
        self, *, seconds: float = PROTECT_SECONDS, destination: str = "vault"
    ) -> float:
        """Wait until every change made before this call is durable; return how long that took."""
        begin, now = time.monotonic(), time.time()
        while (waited := time.monotonic() - begin) < seconds:
            self._assert_runs()
            marks = [at for (_, where), at in self.watermarks().items() if where == destination]
            if marks and min(marks) >= now:
                return waited
            time.sleep(POLL_SECONDS)
        raise AssertionError(
            f"not protected after {seconds} s: {self.watermarks()}, now {now}\n{self.log_tail()}"
        )

    def watermarks(self) -> dict[tuple[str, str], float]:
        """Return (source, destination) → protected-through time; {} while nobody answers."""
        samples = self.metrics("streamd_protected_through_timestamp_seconds")
        return {(labels["source"], labels["destination"]): value for labels, value in samples}

    def metrics(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return (labels, value) of every sample of one metric; [] while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                text = page.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return []
        return [
            (_labels(line), float(line.rsplit(" ", 1)[1]))
            for line in text.splitlines()
            if line.startswith((f"{name}{{", f"{name} "))
        ]

    def log_tail(self, size: int = 4000) -> str:
        """Return the end of the daemon's log, for a message of failure."""
        if not self.log.exists():
            return "(no log)"
        return self.log.read_bytes()[-size:].decode("utf-8", "replace")

    def litter(self) -> list[str]:
        """Return temporary files left in vault, local copy and state; meant for a stopped daemon."""
        folders = (self.vault, self.workdir / "local", self.workdir / "state")
        return [
            str(path)
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and any(map(_is_temporary, path.relative_to(folder).parts))
        ]

    def _assert_runs(self) -> None:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"streamd run ended with {code}\n{self.log_tail()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.memory.end()
        if self.process is not None and self.process.poll() is None:
            self.kill()


class MemorySamples:
    """The resident memory of a process, sampled in a thread of the test."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._pid = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def watch(self, pid: int) -> None:
        """From now on sample this process."""
        self._pid = pid
        if not self._thread.is_alive():
            self._thread.start()

    def pause(self) -> None:
        self._pid = 0

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak_mib = max(self.peak_mib, resident_mib(self._pid) if self._pid else 0)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0]) / 1024 if sizes else 0


def streamd() -> list[str]:
    """Return the start of a command line that runs this checkout's streamd."""
    return [sys.executable, "-m", "streamd"]


def environment() -> dict[str, str]:
    """Return the environment for streamd processes: this checkout's package, plain output."""
    checkout = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": checkout, "NO_COLOR": "1", "COLUMNS": "200"}


def instant(at_us: int) -> str:
    """Return a time in microseconds since 1970 as RFC 3339, exactly."""
    seconds, micros = divmod(at_us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}Z"


def now_us() -> int:
    """Return the wall clock in microseconds since 1970."""
    return time.time_ns() // 1000


def _is_temporary(name: str) -> bool:
    return name.startswith(("tmp", ".tmp", ".new")) or name.endswith((".tmp", ".new"))


def _labels(line: str) -> dict[str, str]:
    inside = line[line.index("{") + 1 : line.rindex("}")] if "{" in line else ""
    pairs = (pair.split("=", 1) for pair in inside.split(",") if "=" in pair)
    return {name: value.strip('"') for name, value in pairs}


def _toml(tables: dict[str, dict[str, object]]) -> str:
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        # JSON's strings, numbers, booleans and lists of strings are TOML's
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"
