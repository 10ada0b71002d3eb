"""Much of everything. The sizes of the promises: STREAMD_SCALE=1000000; CI runs a small part of it.

The bounds on time are generous on purpose: the machine may have other work. What is measured is
printed (`pytest -s`).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_process import Daemon, resident_mib

SCALE = int(os.environ.get("STREAMD_SCALE", "5000"))
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(180 + SCALE // 100)]
PER_DIRECTORY = 20
ENTRIES_IN_ONE = max(SCALE, 25_000)  # more than are listed at once
BURST = min(SCALE, 20_000)
RENAMED = min(SCALE // 2, 100_000)
DEPTH = 2000
MEMORY_MIB_MAX = 300
NOT_FOUND = 9
WAIT_SECONDS = 120 + SCALE // 500


def total(daemon: Daemon, name: str, **labels: str) -> float:
    return sum(
        value
        for found, value in daemon.metrics(name)
        if all(found.get(key) == wanted for key, wanted in labels.items())
    )


def wait_until(daemon: Daemon, what: str, holds: Callable[[], bool]) -> float:
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < WAIT_SECONDS, f"{what}\n{daemon.log_tail()}"
        time.sleep(0.1)
    return time.monotonic() - begin


def wait_durable(daemon: Daemon, what: str) -> float:
    """Wait until everything done so far is durable; print and return how long that took."""
    now = time.time()
    name = "streamd_protected_through_timestamp_seconds"
    seconds = wait_until(
        daemon, what, lambda: min((value for _, value in daemon.metrics(name)), default=0) > now
    )
    assert daemon.process is not None
    memory = resident_mib(daemon.process.pid)
    print(f"\n{what}: {seconds:.1f} s, peak {daemon.memory.peak_mib:.0f} MiB, now {memory:.0f}")
    return seconds


def write(directory: Path, count: int, prefix: str = "f") -> None:
    """Make small files, as fast as this process can."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(count):
            file = os.open(f"{prefix}{number}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
            os.write(file, b"%s %d\n" % (prefix.encode(), number))
            os.close(file)
    finally:
        os.close(fd)


def make_daemon(tmp_path: Path, tree: Path, **options: object) -> Daemon:
    checks = {"reconcile": "1d", "reread": "0s", "canary": "0s", **options}
    return Daemon(tmp_path / "work", tree, rpo="5s", source_options=checks)


def test_t_f5_many_files_a_burst_a_renamed_directory_and_a_scan_without_changes(tmp_path) -> None:
    tree = tmp_path / "tree"
    for number in range(SCALE // PER_DIRECTORY):
        directory = tree / str(number % 200) / str(number)
        directory.mkdir(parents=True)
        write(directory, PER_DIRECTORY)
    (tree / "big").mkdir()
    for number in range(RENAMED // 5000 + 1):
        (tree / f"big/{number}").mkdir()
        write(tree / f"big/{number}", min(RENAMED, 5000), prefix=f"b{number}-")
    with make_daemon(tmp_path, tree) as daemon:
        daemon.init()
        daemon.start()
        wait_until(daemon, "first scan", lambda: total(daemon, "streamd_rescans_total") >= 1)
        wait_durable(daemon, "first capture")

        (tree / "burst").mkdir()
        write(tree / "burst", BURST)
        wait_durable(daemon, f"{BURST} files at once")
        assert total(daemon, "streamd_watch_overflows_total") == 0

        sent = total(daemon, "streamd_source_bytes_total")
        (tree / "big").rename(tree / "renamed")
        wait_durable(daemon, f"a directory of {RENAMED} files renamed")
        assert total(daemon, "streamd_source_bytes_total") == sent, "a rename moves no bytes"
        assert daemon.memory.peak_mib < MEMORY_MIB_MAX

        daemon.kill()
        daemon.start()
        wait_until(daemon, "second scan", lambda: total(daemon, "streamd_rescans_total") >= 1)
        (seconds,) = (value for _, value in daemon.metrics("streamd_rescan_last_duration_seconds"))
        print(f"\nnothing had changed: {seconds:.1f} s")
        assert total(daemon, "streamd_source_bytes_total") == 0, "nothing is read again"
        assert daemon.memory.peak_mib < MEMORY_MIB_MAX
        daemon.stop()


def test_t_f5_one_directory_with_very_many_entries(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    write(tree, ENTRIES_IN_ONE)
    with make_daemon(tmp_path, tree, reconcile="5s") as daemon:
        daemon.init()
        daemon.start()
        wait_until(daemon, "first scan", lambda: total(daemon, "streamd_rescans_total") >= 1)
        wait_durable(daemon, f"{ENTRIES_IN_ONE} entries in one directory")
        (tree / "one-more").write_text("x")
        (tree / "f7").unlink()
        wait_durable(daemon, "two changes in it")
        wait_until(
            daemon,
            "a reconcile",
            lambda: total(daemon, "streamd_rescans_total", reason="periodic") >= 1,
        )
        assert total(daemon, "streamd_rescan_missed_changes_total", reason="periodic") == 0
        assert daemon.memory.peak_mib < MEMORY_MIB_MAX
        daemon.stop()
        assert "one-more" in daemon.command("find", "tree", "one-more")
        assert "f7" not in daemon.command("find", "tree", "f7", codes=(0, NOT_FOUND))


def test_t_f5_a_path_two_thousand_directories_deep(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("ddd", dir_fd=fd)
        deeper = os.open("ddd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    write_here(fd, "before")
    with make_daemon(tmp_path, tree) as daemon:
        daemon.init()
        daemon.start()
        wait_until(daemon, "first scan", lambda: total(daemon, "streamd_rescans_total") >= 1)
        wait_durable(daemon, f"{DEPTH} directories below each other")
        write_here(fd, "after")
        os.close(fd)
        wait_durable(daemon, "a file at the bottom")
        wait_until(
            daemon,
            "captured",
            lambda: total(daemon, "streamd_catalog_entries", type="file") >= DEPTH + 2,
        )
        assert daemon.memory.peak_mib < MEMORY_MIB_MAX
        daemon.stop()
        daemon.restore(tmp_path / "out")
    bottom = os.open(tmp_path / "out", os.O_RDONLY)
    for _ in range(DEPTH):
        deeper = os.open("ddd", os.O_RDONLY, dir_fd=bottom)
        os.close(bottom)
        bottom = deeper
    assert set(os.listdir(bottom)) == {"before", "after"}
    os.close(bottom)


def write_here(fd: int, name: str) -> None:
    file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
    os.write(file, name.encode())
    os.close(file)
