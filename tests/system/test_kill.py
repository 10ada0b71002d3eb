"""kill -9 at any moment loses nothing, needs no operator and leaves no litter.

STREAMD_KILLS (default 20; 200 for acceptance) says how often.
"""

import os
import random
import shutil
import time

import pytest
from system.daemon_process import Daemon
from system.load import Load
from system.tree import difference, listing

KILLS = int(os.environ.get("STREAMD_KILLS", "20"))
RATE = float(os.environ.get("STREAMD_KILL_RATE", "250"))
SEED = int(os.environ.get("STREAMD_KILL_SEED", "4"))


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(KILLS * 20 + 120)
def test_killed_under_load_it_loses_nothing(tmp_path) -> None:
    tree = tmp_path / "tree"
    rng = random.Random(SEED)
    load = Load(tree, tmp_path / "log", seed=SEED, rate=RATE, population=150)
    with load, Daemon(tmp_path / "streamd", tree, rpo="2s") as daemon:
        daemon.init()
        load.start()
        daemon.start()
        for number in range(KILLS):
            time.sleep(rng.choice((0.05, 0.5, 2.0)) * rng.random())
            daemon.kill()
            time.sleep(0.2 * rng.random())  # changes that nobody watches
            if rng.random() < 0.3:  # in the midst of starting, too
                daemon.start(wait=False)
                time.sleep(1.5 * rng.random())
                daemon.kill()
            daemon.start()
            _compare(daemon, load, f"kill {number}")
        load.stop()
        daemon.wait_protected()
        daemon.stop()
        assert daemon.litter() == []
        daemon.restore(tmp_path / "final")
        assert difference(listing(tree), listing(tmp_path / "final")) == []
        daemon.command("verify", "--level", "full")


def _compare(daemon: Daemon, load: Load, when: str) -> None:
    """Freeze the tree, and compare it with what the vault gives back."""
    load.pause()
    try:
        daemon.wait_protected()
        target = daemon.workdir / "restored"
        daemon.restore(target)
        assert difference(listing(load.root), listing(target)) == [], when
        shutil.rmtree(target)
    finally:
        load.resume()
