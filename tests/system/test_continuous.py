"""Any instant of a busy minute can be had back, as the log of the changes says it was.

STREAMD_CONTINUOUS_SECONDS (default 20; 60 for acceptance), STREAMD_CONTINUOUS_INSTANTS (default
8; 20 for acceptance) and STREAMD_CONTINUOUS_RATE (operations a second, default 300) set the size;
STREAMD_CONTINUOUS_PROFILES (default mixed; also small, append) says what kind of load it is.

The last state must be equal exactly. Of the past, a cut is not a snapshot of the whole tree: while
files are renamed and changed at the same time and the machine has no time to spare, a path can show
for the length of one cut what was true under its former name (docs/durability.md). That may be
WRONG_SHARE_MAX of all paths looked at; STREAMD_CONTINUOUS_STRICT=1, for an idle machine, allows none.
"""

import os
import random
import shutil

import pytest
from system.daemon_process import Daemon, now_us
from system.load import Load
from system.oracle import Oracle
from system.tree import difference, listing

SECONDS = float(os.environ.get("STREAMD_CONTINUOUS_SECONDS", "20"))
INSTANTS = int(os.environ.get("STREAMD_CONTINUOUS_INSTANTS", "8"))
PROFILES = os.environ.get("STREAMD_CONTINUOUS_PROFILES", "mixed").split(",")
RATE = float(os.environ.get("STREAMD_CONTINUOUS_RATE", "300"))
WRONG_SHARE_MAX = 0.0 if os.environ.get("STREAMD_CONTINUOUS_STRICT") else 0.005
MEMORY_MIB = 256 + 150  # memory_limit's default, and what the program itself may take


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(SECONDS * 4 + 240)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_instant_of_a_busy_time_is_restorable(tmp_path, profile) -> None:
    tree = tmp_path / "tree"
    load = Load(tree, tmp_path / "log", seed=2, rate=RATE, seconds=SECONDS, profile=profile)
    with load, Daemon(tmp_path / "streamd", tree, rpo="2s") as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        begin_us = now_us()
        load.start()
        summary = load.wait(SECONDS + 60)
        end_us = now_us()
        assert summary["per_second"] >= 0.9 * RATE, f"the load was too light: {summary}"
        daemon.wait_protected()
        expected = listing(tree)
        daemon.restore(tmp_path / "final")
        assert difference(expected, listing(tmp_path / "final")) == []
        _judge_instants(daemon, Oracle(tmp_path / "log"), begin_us, end_us)
        daemon.stop()
        assert daemon.memory.peak_mib <= MEMORY_MIB


def _judge_instants(daemon: Daemon, oracle: Oracle, begin_us: int, end_us: int) -> None:
    rpo_us = int(daemon.rpo_seconds * 1e6)
    rng = random.Random(3)
    wrong = {}
    judged = 0
    for _ in range(INSTANTS):
        at_us = rng.randrange(begin_us, end_us)
        target = daemon.workdir / f"at-{at_us}"
        daemon.restore(target, at=at_us)
        judged += sum(
            len(folders) + len(files) for _, folders, files in os.walk(os.fsencode(target))
        )
        violations = oracle.judge(target, at_us=at_us, rpo_us=rpo_us)
        if violations:
            wrong[at_us] = [str(violation) for violation in violations]
        shutil.rmtree(target)
    report = [f"T={at_us}: {len(lines)} wrong: {lines[:5]}" for at_us, lines in wrong.items()]
    assert judged > 100 * INSTANTS
    assert sum(map(len, wrong.values())) <= WRONG_SHARE_MAX * judged, report
