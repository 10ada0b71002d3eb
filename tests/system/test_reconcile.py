"""The periodic comparison finds what no event announces, and only that is counted as missed."""

import array
import fcntl
import os
import threading
import time

import pytest
from daemon_process import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, NODUMP = 0x80086601, 0x40086602, 0x40
RECONCILES_SECONDS = 100


def set_nodump(path) -> None:
    """Change a file in a way of which neither fanotify nor inotify tells: its flags (chattr)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
        flags[0] |= NODUMP
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, flags)
    finally:
        os.close(fd)


def total(daemon: Daemon, name: str, **labels: str) -> float:
    return sum(
        value
        for found, value in daemon.metrics(name)
        if all(found.get(key) == wanted for key, wanted in labels.items())
    )


def reconciled(daemon: Daemon) -> float:
    return total(daemon, "streamd_rescans_total", reason="periodic")


def wait_for_reconciles(daemon: Daemon, count: int) -> None:
    goal, end = reconciled(daemon) + count, time.monotonic() + RECONCILES_SECONDS
    while reconciled(daemon) < goal:
        assert time.monotonic() < end, daemon.log_tail()
        time.sleep(0.2)


def test_only_what_no_event_announced_is_counted_as_missed(tmp_path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for number in range(50):
        (tree / f"d/f{number}").write_text("x")
    stop = threading.Event()

    def write_all_the_time() -> None:
        number = 0
        while not stop.is_set():
            (tree / f"d/busy{number % 40}").write_text(str(number))
            (tree / f"d/new{number}").mkdir()
            if number % 3:
                (tree / f"d/new{number}").rename(tree / f"d/was{number}")
            number += 1
            time.sleep(0.005)

    options = {"reconcile": "2s"}
    with Daemon(tmp_path / "work", tree, rpo="5s", source_options=options) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        writer = threading.Thread(target=write_all_the_time)
        writer.start()
        try:
            wait_for_reconciles(daemon, 2)
            missed = total(daemon, "streamd_rescan_missed_changes_total", reason="periodic")
            assert missed == 0, daemon.log_tail(20_000)
            set_nodump(tree / "d/f7")
            wait_for_reconciles(daemon, 2)
            missed = total(daemon, "streamd_rescan_missed_changes_total", reason="periodic")
            assert missed == 1, daemon.log_tail(20_000)
        finally:
            stop.set()
            writer.join()
        assert "changes-missed" in daemon.log.read_text()
        daemon.stop()
