"""For half an hour something goes wrong every 20 seconds, and nothing is lost, leaked or doubled.

STREAMD_SOAK_SECONDS (default 20; 1800 for acceptance, `make soak`) sets the length. The daemon
writes to our own Blob server over TLS; restores take from the container alone, without the local
copy, while the faults go on, and are compared with the log of the changes.
"""

import base64
import itertools
import os
import random
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from blobserver.faults import Fault, FaultScript, operation
from blobserver.server import BlobServer, OwnLoop
from certificates import Authority, authority  # noqa: F401 - a fixture
from system.blob_vault import CONTAINER, blob_vault, write_key
from system.daemon_process import CommandFailed, Daemon, resident_mib
from system.load import Load
from system.oracle import Oracle
from system.tree import difference, listing

SECONDS = float(os.environ.get("STREAMD_SOAK_SECONDS", "20"))
EVERY_SECONDS = min(20.0, SECONDS / 12)
LASTS_SECONDS = EVERY_SECONDS * 0.4
RATE = 20.0
IS_LONG = SECONDS >= 600
RESTORES = 4 if SECONDS >= 40 else 2
# A short run still warms up: caches fill, and the catalog's first pages come in.
GROWTH_MAX = 0.05 if IS_LONG else 0.4
WRONG_SHARE_MAX = 0.005  # as in test_continuous
RPO_US = 2_000_000
TRIES = 20


class Trouble:
    """What goes wrong, one thing after the other, and what mends it."""

    def __init__(self, server: BlobServer, own: OwnLoop, folder: Path) -> None:
        self._server, self._own, self._folder = server, own, folder
        account = server.service.account
        faults: FaultScript = server.faults
        everything: dict[str, tuple[Fault, ...]] = {
            "slow answers": (Fault("latency", None, seconds=0.5),),
            "narrow link": (Fault("bandwidth", None, rate=256 << 10),),
            "throttled, with a time": (Fault("status", 6, status=503, retry_after="1"),),
            "throttled, without": (Fault("status", 6, status=429, code="TooManyRequests"),),
            "server errors": (Fault("status", 8, status=500, code="InternalError"),),
            "errors that committed": (
                Fault(
                    "status", 4, operation("put"), status=500, code="InternalError", commits=True
                ),
            ),
            "reset before": (Fault("reset-before", 6),),
            "reset during": (Fault("reset-during", 6, operation("put")),),
            "reset after": (Fault("reset-after", 6, operation("put")),),
            "cut answers": (Fault("truncate", 6, operation("get")),),
            "flipped bits": (Fault("corrupt", 6, operation("get")),),
            "other objects": (Fault("swap", 4, operation("get")),),
            "a login page": (Fault("html", 4),),
            "late commits": (Fault("late-commit", 4, operation("put"), seconds=1.0),),
            "everything twice": (Fault("twice", None, operation("put")),),
            "silence": (Fault("blackhole", 2),),
        }
        self._begin: dict[str, Callable[[], object]] = {
            name: lambda some=some: [faults.add(one) for one in some]  # type: ignore[misc]
            for name, some in everything.items()
        }
        self._begin["an outage"] = lambda: own.run(server.stop())
        self._begin["a closed firewall"] = lambda: setattr(account, "firewall", lambda _: False)
        self._begin["a new account key"] = self._rotate
        self._begin["a container that is gone"] = self._hide
        self._names = itertools.cycle(
            random.Random(5).sample(sorted(self._begin), len(self._begin))
        )
        self._hidden: object = None
        self.seen: list[str] = []

    def round(self, left: threading.Event) -> None:
        """Let one thing go wrong for a while, and mend it."""
        self.begin()
        left.wait(LASTS_SECONDS)
        self.end()
        left.wait(EVERY_SECONDS - LASTS_SECONDS)

    def begin(self) -> None:
        """Let the next thing go wrong."""
        self.seen.append(next(self._names))
        self._begin[self.seen[-1]]()

    def end(self) -> None:
        """Mend it."""
        server = self._server
        server.faults.clear()
        server.service.account.firewall = lambda _: True
        self._own.run(_started(server))
        if self._hidden is not None:
            server.service.account.containers[CONTAINER] = self._hidden  # type: ignore[assignment]
            self._hidden = None
        key = base64.b64encode(server.service.account.keys[0]).decode()
        if (self._folder / "account-key").read_text() != key:
            write_key(self._folder, key)

    def _rotate(self) -> None:
        self._server.service.account.replace_keys()

    def _hide(self) -> None:
        self._hidden = self._server.service.account.containers.pop(CONTAINER)


async def _started(server: BlobServer) -> None:
    if not server.is_running:
        await server.start()


class Beside(threading.Thread):
    """Does something again and again in a thread, until left."""

    def __init__(self, name: str, step: Callable[[threading.Event], None]) -> None:
        super().__init__(name=name)
        self._step = step
        self._left = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._left.is_set():
                self._step(self._left)
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()
        if self._failure is not None:
            raise self._failure


class Samples:
    """Memory and descriptors of the daemon, and how far capture was behind, over time."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        self._daemon, self._pid = daemon, daemon.process.pid
        self.resident: list[float] = []
        self.descriptors: list[float] = []
        self.worst_lag_seconds = 0.0

    def take(self, left: threading.Event) -> None:
        """Take one of each."""
        self.resident.append(resident_mib(self._pid))
        self.descriptors.append(float(len(os.listdir(f"/proc/{self._pid}/fd"))))
        if len(self.resident) % 8 == 0:  # the page costs the daemon some work
            for labels, lag in self._daemon.metrics("streamd_rpo_lag_seconds"):
                if labels["destination"] == "local":
                    self.worst_lag_seconds = max(self.worst_lag_seconds, lag)
        left.wait(0.25)


def restore_from_the_container(daemon: Daemon, log: Path, samples: Samples) -> None:
    """Restore what the container is said to have, without the local copy; judge it by the log.

    A change is restorable from the instant of its capture on: on a machine that is busy with other
    things that is late, and the daemon says by how much.
    """
    until = time.monotonic() + 60
    while not (marks := daemon.watermarks()):  # a busy machine may answer late
        assert time.monotonic() < until, daemon.log_tail()
        time.sleep(0.5)
    at_us = int(marks[daemon.source, "vault"] * 1e6) - RPO_US
    target = daemon.workdir / f"at-{at_us}"
    elsewhere = daemon.workdir / "elsewhere.toml"
    text = daemon.config.read_text()
    for name in ("local", "state"):
        text = text.replace(str(daemon.workdir / name), str(daemon.workdir / f"other-{name}"))
    elsewhere.write_text(text)
    own, daemon.config = daemon.config, elsewhere
    try:
        restore_patiently(daemon, target, at_us)
    finally:
        daemon.config = own
    behind_us = RPO_US + int(samples.worst_lag_seconds * 1.2e6)
    violations = Oracle(log).judge(target, at_us=at_us, rpo_us=behind_us)
    count = sum(len(files) + len(folders) for _, folders, files in os.walk(os.fsencode(target)))
    assert count > 100
    assert len(violations) <= WRONG_SHARE_MAX * count, [str(one) for one in violations[:10]]
    shutil.rmtree(target)


def restore_patiently(daemon: Daemon, target: Path, at: str | int) -> None:
    """Restore; it gives up after half a minute without the service, and goes on when run again."""
    for attempt in range(TRIES):
        try:
            daemon.restore(target, at=at)
        except (CommandFailed, subprocess.TimeoutExpired):
            if attempt == TRIES - 1:
                raise
        else:
            return


def between(samples: list[float], begin: float, end: float) -> list[float]:
    return samples[int(begin * len(samples)) : int(end * len(samples))]


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(SECONDS * 2 + 400)
def test_half_an_hour_of_trouble_loses_nothing_and_leaks_nothing(
    tmp_path: Path, authority: Authority
) -> None:
    tree = tmp_path / "tree"
    load = Load(tree, tmp_path / "log", seed=11, rate=RATE, population=300)
    server = BlobServer(tls=authority.server())
    with OwnLoop() as own, load:
        own.run(server.start())
        options = blob_vault(server, tmp_path, authority)
        with Daemon(tmp_path / "streamd", tree, rpo="2s", **options) as daemon:  # type: ignore[arg-type]
            daemon.init()
            daemon.start()
            daemon.wait_protected()
            load.start()
            trouble = Trouble(server, own, tmp_path)
            samples = Samples(daemon)
            assert daemon.process is not None
            with Beside("trouble", trouble.round), Beside("samples", samples.take):
                began = time.monotonic()
                for number in range(RESTORES):
                    due = SECONDS * (number + 1) / (RESTORES + 1)
                    time.sleep(max(0.0, began + due - time.monotonic()))
                    restore_from_the_container(daemon, tmp_path / "log", samples)
                time.sleep(max(0.0, began + SECONDS - time.monotonic()))
                assert daemon.process.poll() is None, daemon.log_tail()
            load.stop()
            daemon.wait_protected(seconds=120)
            expected = listing(tree)
            daemon.stop()
            for name in ("local", "state"):
                shutil.rmtree(daemon.workdir / name)
            restore_patiently(daemon, tmp_path / "final", "now")
            assert difference(expected, listing(tmp_path / "final")) == []
            judge(server, trouble, samples)
        own.run(server.stop())


def judge(server: BlobServer, trouble: Trouble, samples: Samples) -> None:
    """Nothing was overwritten, and neither memory nor descriptors grew."""
    assert server.service.account.overwritten == 0
    early, late = between(samples.resident, 0.3, 0.45), between(samples.resident, 0.85, 1.0)
    growth = statistics.median(late) / statistics.median(early) - 1
    first, last = between(samples.descriptors, 0.3, 0.6), between(samples.descriptors, 0.7, 1.0)
    tenths = [
        f"{statistics.median(between(samples.resident, step / 10, (step + 1) / 10)):.0f}"
        for step in range(10)
    ]
    print(f"\nRSS in each tenth: {' '.join(tenths)} MiB, at most {max(samples.resident):.0f}")
    print(
        f"{len(trouble.seen)} faults in {SECONDS:.0f} s, RSS {statistics.median(early):.0f} MiB →"
        f" {statistics.median(late):.0f} MiB ({growth:+.1%}), descriptors"
        f" {statistics.median(first):.0f} → {statistics.median(last):.0f}, capture at most"
        f" {samples.worst_lag_seconds:.1f} s behind,"
        f" requests {dict(server.requests)}"
    )
    assert growth < GROWTH_MAX
    assert statistics.median(last) <= statistics.median(first) + 2
