"""Weeks of upkeep, one round after the other: the daemon is as large after them as before.

STREAMD_UPKEEP_ROUNDS (default 6; 60 for acceptance) sets how many rounds there are of each of the two
measured stretches. A round of retention, of checkpoints and indexes, of a whole verification: what is
due each hour, quarter of an hour and day comes every few seconds here (`system.hasty`).
"""

import os
import time
from pathlib import Path

import pytest
from blobserver.server import BlobServer, OwnLoop
from certificates import Authority, authority  # noqa: F401 - a fixture
from patience import Patience
from system import hasty
from system.blob_vault import blob_vault
from system.daemon_process import Daemon, resident_mib
from system.load import Load

ROUNDS = int(os.environ.get("STREAMD_UPKEEP_ROUNDS", "6"))
WARM_ROUNDS = max(5, ROUNDS // 4)
GROWTH_MAX = 0.05 if ROUNDS >= 50 else 0.15  # caches still fill; a leak in each round shows soon
ARENA = 64 << 20
RATE = 1.0  # a vault that grows makes each round longer


def rounds(daemon: Daemon) -> int:
    """Return how many rounds of retention there were; the others go on beside it."""
    return daemon.log.read_bytes().count(b'"event": "retention"')


def smallest_mib(daemon: Daemon, count: int, patience: Patience) -> float:
    """Return the least resident memory in the next `count` rounds: between two jobs."""
    assert daemon.process is not None
    seen = begin = rounds(daemon)
    least = float("inf")
    while seen < begin + count:
        assert daemon.process.poll() is None, daemon.log_tail()
        least = min(least, resident_mib(daemon.process.pid))
        if (now := rounds(daemon)) > seen:
            seen = now
            patience.progress()
        time.sleep(0.1)
    return least


def further_arenas(pid: int) -> list[str]:
    """Return where the C library's allocator has arenas besides the heap: 64 MiB of addresses each."""
    found, begin, end = [], 0, 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode = line.split()[:2]
        low, high = (int(part, 16) for part in span.split("-"))
        if mode == "---p" and low == end and high - begin == ARENA and begin % ARENA == 0:
            found.append(hex(begin))
        begin, end = (low, high) if mode == "rw-p" else (0, 0)
    return found


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(0)  # by progress
def test_many_rounds_of_upkeep_leave_nothing_behind(tmp_path: Path, authority: Authority) -> None:
    tree = tmp_path / "tree"
    load = Load(tree, tmp_path / "log", seed=11, rate=RATE, population=100)
    server = BlobServer(tls=authority.server())
    with OwnLoop() as own, load, Patience(300) as patience:
        own.run(server.start())
        options = blob_vault(server, tmp_path, authority)
        with Daemon(tmp_path / "streamd", tree, rpo="2s", tables=hasty.VERIFY, **options) as daemon:
            daemon.program, daemon.surroundings = hasty.program(), hasty.surroundings()
            daemon.init()
            daemon.start()
            daemon.wait_protected()
            load.start()
            smallest_mib(daemon, WARM_ROUNDS, patience)
            before = smallest_mib(daemon, ROUNDS, patience)
            after = smallest_mib(daemon, ROUNDS, patience)
            assert daemon.process is not None
            assert not further_arenas(daemon.process.pid), (
                "a thread came before the allocator's setup"
            )
            load.stop()
            text = daemon.log.read_text()
            for job in ("retention", "verified", "kept"):
                assert f'"event": "{job}"' in text, f"{job}: no round"
            assert "failed" not in text, daemon.log_tail()
            daemon.stop()
        own.run(server.stop())
    growth = after / before - 1
    print(f"\n{ROUNDS} rounds: {before:.1f} MiB → {after:.1f} MiB ({growth:+.1%})")
    assert growth < GROWTH_MAX
