"""Whatever is done to a tree and to the daemon, the vault ends with what is there, or says so.

STREAMD_CHAOS_OPERATIONS (default 2,000 on each file system) sets the size; STREAMD_CHAOS_DISKS says
which (default ext4,xfs,btrfs), STREAMD_CHAOS_SEED which operations. The daemon is stopped, killed and
made to lose events meanwhile. Now and then the tree stands still: such an instant must restore
exactly, unless it is in a gap; and so must the end, in any case. No byte of the vault may be wrong.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from system.chaos import Chaos
from system.daemon_process import Daemon, now_us
from system.every_commit import gaps_of
from system.tree import difference, listing

OPERATIONS = int(os.environ.get("STREAMD_CHAOS_OPERATIONS", "2000"))
DISKS = os.environ.get("STREAMD_CHAOS_DISKS", "ext4,xfs,btrfs").split(",")
SEED = int(os.environ.get("STREAMD_CHAOS_SEED", "1"))
BURST = 1000  # operations between two things done to the daemon
QUEUE = 512  # events the kernel keeps: fewer than a burst makes
DEFAULT_QUEUE = 16_384  # of fanotify(7)
MAKERS = {"ext4": ("-q", "-F"), "xfs": ("-q", "-f"), "btrfs": ("-q", "-f")}
QUEUE_FILE = Path("/proc/sys/fs/fanotify/max_queued_events")
SETTLE_SECONDS = 90.0
KEPT_MAX = 6  # instants to be restored


@pytest.fixture(params=DISKS)
def disk(request, tmp_path):
    """A file system of its own in a loop-mounted image."""
    maker = shutil.which(f"mkfs.{request.param}", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert maker, f"mkfs.{request.param} is needed: apt-get install e2fsprogs xfsprogs btrfs-progs"
    image, point = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([maker, *MAKERS[request.param], image], check=True, capture_output=True)
    point.mkdir()
    for _ in range(60):  # loop devices are few, and others use them too
        if subprocess.run(["mount", "-o", "loop", image, point], check=False).returncode == 0:
            break
        time.sleep(1)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


def start(daemon: Daemon) -> None:
    """Start it with a queue so short that it loses events when stopped.

    The setting is the whole machine's, and counts when a group is made: only daemons of others that
    start in this second get it, too.
    """
    before = max(int(QUEUE_FILE.read_text()), DEFAULT_QUEUE)  # a killed run has left its own
    QUEUE_FILE.write_text(str(QUEUE))
    try:
        daemon.start()
    finally:
        QUEUE_FILE.write_text(str(before))


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(OPERATIONS / 20 + 600)
def test_after_any_chaos_the_vault_holds_what_is_there(disk, tmp_path) -> None:
    tree = disk / "tree"
    tree.mkdir()
    chaos = Chaos(str(tree), str(disk / "outside"), seed=SEED)
    rng = random.Random(SEED)
    stood: dict[int, dict] = {}
    with Daemon(tmp_path / "streamd", tree, rpo="2s") as daemon:
        daemon.init()
        start(daemon)
        for begun in range(0, OPERATIONS, BURST):
            torment(daemon, chaos, rng, min(BURST, OPERATIONS - begun))
            if begun + BURST >= OPERATIONS or (len(stood) < KEPT_MAX and rng.random() < 0.5):
                stand_still(daemon)
                stood[now_us()] = listing(tree)
                time.sleep(0.01)
        assert sum(chaos.counts.values()) > OPERATIONS / 3, chaos.counts
        gaps = asyncio.run(gaps_of(daemon.config, "tree"))
        for at_us, expected in stood.items():
            restored = tmp_path / f"at-{at_us}"
            daemon.restore(restored, at=at_us)
            wrong = difference(expected, listing(restored))
            shutil.rmtree(restored)
            in_gap = any(gap.start_us <= at_us <= gap.end_us for gap in gaps)
            assert not wrong or in_gap, f"at {at_us} of {list(stood)}, gaps {gaps}: {wrong[:10]}"
        daemon.command("verify", "--level", "full")
        daemon.restore(tmp_path / "final")
        assert difference(listing(tree), listing(tmp_path / "final")) == []
        daemon.stop()


def torment(daemon: Daemon, chaos: Chaos, rng: random.Random, count: int) -> None:
    """Do a burst of operations, and something to the daemon in the midst of it."""
    what = rng.choice(("nothing", "term", "kill", "overflow", "mount"))
    chaos.run(count // 2)
    if what == "term":
        daemon.stop()
        chaos.run(count // 8)
        start(daemon)
    elif what == "kill":
        daemon.kill()
        chaos.run(count // 8)
        start(daemon)
    elif what == "overflow":
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        chaos.run(count // 2)
        daemon.process.send_signal(signal.SIGCONT)
    elif what == "mount":
        chaos.mount()
        chaos.run(count // 8)
        time.sleep(0.5)
        chaos.unmount()
    chaos.run(count // 2)


def stand_still(daemon: Daemon) -> None:
    """Wait until nothing is left to do: no change waits, no file has to be read again."""
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        daemon.wait_protected(seconds=SETTLE_SECONDS)
        waiting = [value for _, value in daemon.metrics("streamd_unprotected_changes")]
        fuzzy = [value for _, value in daemon.metrics("streamd_fuzzy_files")]
        scanning = [value for _, value in daemon.metrics("streamd_rescan_in_progress")]
        if waiting and not any(waiting) and not any(fuzzy) and not any(scanning):
            return
        time.sleep(0.2)
    raise AssertionError(f"it never comes to rest\n{daemon.log_tail()}")
