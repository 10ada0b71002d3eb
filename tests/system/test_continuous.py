"""Any instant of a busy minute can be had back, as the log of the changes says it was.

STREAMD_CONTINUOUS_SECONDS (default 20; 60 for acceptance), STREAMD_CONTINUOUS_INSTANTS (default
8; 20 for acceptance) and STREAMD_CONTINUOUS_RATE (operations a second, default 300) set the size;
STREAMD_CONTINUOUS_PROFILES (default mixed; also small, append) says what kind of load it is, and
STREAMD_CONTINUOUS_SEED which operations they are.

The last state must be equal exactly. Some instants of the past are restored, as a user would; of
*every* commit is judged what the vault holds, right when it was made and right before the next one.
No path may be wrong, but in a gap, where nothing is claimed; and gaps must be few.

On a machine that is busy with something else the daemon can be late by a moment. So by default
LATE_US_MAX is no fault of what commits show, WRONG_SHARE_MAX of that may be later still, and of what is
restored RESTORED_SHARE_MAX may be late. Nothing may be as it never was. STREAMD_CONTINUOUS_STRICT=1
allows no lateness either.
"""

import asyncio
import os
import random
import shutil
from collections import Counter

import pytest
from system.daemon_process import Daemon, now_us
from system.every_commit import Verdict, judge
from system.load import Load
from system.oracle import Oracle
from system.tree import difference, listing

SECONDS = float(os.environ.get("STREAMD_CONTINUOUS_SECONDS", "20"))
INSTANTS = int(os.environ.get("STREAMD_CONTINUOUS_INSTANTS", "8"))
PROFILES = os.environ.get("STREAMD_CONTINUOUS_PROFILES", "mixed").split(",")
RATE = float(os.environ.get("STREAMD_CONTINUOUS_RATE", "300"))
SEED = int(os.environ.get("STREAMD_CONTINUOUS_SEED", "2"))
GAPS_MAX = 0.1  # of the time
STRICT = bool(os.environ.get("STREAMD_CONTINUOUS_STRICT"))
WRONG_SHARE_MAX = 0.0 if STRICT else 0.0003
RESTORED_SHARE_MAX = 0.0 if STRICT else 0.005  # late ones count here
LATE_US_MAX = 0 if STRICT else 1_000_000
MEMORY_MIB = 256 + 150  # memory_limit's default, and what the program itself may take


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(SECONDS * 8 + 240)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_instant_of_a_busy_time_is_restorable(tmp_path, profile) -> None:
    tree, log = tmp_path / "tree", tmp_path / "log"
    load = Load(tree, log, seed=SEED, rate=RATE, seconds=SECONDS, profile=profile)
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
        rpo_us = int(daemon.rpo_seconds * 1e6)
        verdict = asyncio.run(
            judge(daemon.config, tree, log, rpo_us=rpo_us, from_us=begin_us, to_us=end_us)
        )
        _assert_right(verdict)
        _judge_instants(daemon, Oracle(log), verdict, begin_us, end_us)
        daemon.stop()
        assert daemon.memory.peak_mib <= MEMORY_MIB


def _assert_right(verdict: Verdict) -> None:
    """No path is wrong where something is claimed, and nearly everywhere something is."""
    wrong = [
        each for each in verdict.wrong if not each.in_gap and not 0 < each.late_us <= LATE_US_MAX
    ]
    wrong.sort(key=lambda each: each.late_us)  # what never was comes first
    kinds = Counter((each.violation.fault, each.late_us > 0) for each in wrong)
    shown = [f"{each.at_us}: {each.violation} (late by {each.late_us} µs)" for each in wrong[:5]]
    told = f"{dict(kinds)} (fault, is only late) among {verdict.judged} at {verdict.commits} commits: {shown}"
    assert not wrong or wrong[0].late_us, told
    assert len(wrong) <= WRONG_SHARE_MAX * verdict.judged, told
    assert verdict.commits >= SECONDS / 3
    assert verdict.judged > 100 * verdict.commits
    assert sum(seconds for _, seconds in verdict.gaps) <= GAPS_MAX * SECONDS, verdict.gaps


def _judge_instants(
    daemon: Daemon, oracle: Oracle, verdict: Verdict, begin_us: int, end_us: int
) -> None:
    rpo_us = int(daemon.rpo_seconds * 1e6)
    rng = random.Random(SEED + 1)
    judged, wrong = 0, []
    for _ in range(INSTANTS):
        at_us = rng.randrange(begin_us, end_us)
        while verdict.is_in_gap(at_us):
            at_us = rng.randrange(begin_us, end_us)
        target = daemon.workdir / f"at-{at_us}"
        daemon.restore(target, at=at_us)
        judged += sum(
            len(folders) + len(files) for _, folders, files in os.walk(os.fsencode(target))
        )
        found = oracle.judge(target, at_us=at_us, rpo_us=rpo_us)
        wrong += [f"T={at_us}: {each}" for each in found]
        shutil.rmtree(target)
    assert judged > 100 * INSTANTS
    assert len(wrong) <= RESTORED_SHARE_MAX * judged, wrong[:5]
