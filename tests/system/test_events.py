"""How many events are carried, how late a change is durable, and what it costs.

STREAMD_BURST (default 2,000; 20,000 for acceptance) files are changed within about a second;
STREAMD_STORM_SECONDS (default 1; 20) is how long changes go on as fast as a process can make them;
STREAMD_SINGLES (default 3, to Azurite only; 100) is how many single changes are timed. Figures are printed
(`pytest -s`); bounds are generous, for the machine may have other work.
"""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from azurite import azurite  # noqa: F401 - a fixture
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon
from system.tree import difference, listing

BURST = int(os.environ.get("STREAMD_BURST", "2000"))
STORM_SECONDS = float(os.environ.get("STREAMD_STORM_SECONDS", "1"))
SINGLES = int(os.environ.get("STREAMD_SINGLES", "3"))
DURABLE_SECONDS = 30.0 if "STREAMD_BURST" in os.environ else 120.0
QUEUE_FILE = Path("/proc/sys/fs/fanotify/max_queued_events")
QUEUE = 262_144  # as the package's sysctl sets it
PER_DIRECTORY = 200
PLACES = ["directory", "azurite"] if "STREAMD_SINGLES" in os.environ else ["azurite"]
TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def long_queue():
    """The queue that an installed streamd has; groups made from now on have it."""
    before = QUEUE_FILE.read_text()
    QUEUE_FILE.write_text(str(max(QUEUE, int(before))))
    yield
    QUEUE_FILE.write_text(before)


def total(daemon: Daemon, name: str) -> float:
    return sum(value for _, value in daemon.metrics(name))


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def populate(tree: Path, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        directory = tree / str(number // PER_DIRECTORY)
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        paths.append(directory / f"file-{number}")
        paths[-1].write_bytes(b"first %d\n" % number)
    return paths


def change(paths: list[Path], text: bytes) -> None:
    for path in paths:
        fd = os.open(path, os.O_WRONLY)  # to cut it first would make ext4 write it out at the close
        os.write(fd, text)
        os.close(fd)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("long_queue")
@pytest.mark.timeout(600)
def test_a_burst_of_changes_is_durable_soon_and_nothing_is_lost(tmp_path) -> None:
    tree = tmp_path / "tree"
    paths = populate(tree, BURST)
    checks = {"reconcile": "1d", "reread": "0s", "canary": "0s"}
    with Daemon(tmp_path / "streamd", tree, rpo="5s", source_options=checks) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected(seconds=240)
        cpu, events = cpu_seconds(daemon), total(daemon, "streamd_watch_events_total")
        began = time.monotonic()
        halves = [
            threading.Thread(target=change, args=(paths[start::2], b"in the burst\n"))
            for start in (0, 1)
        ]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        took = time.monotonic() - began
        late = daemon.wait_protected(seconds=DURABLE_SECONDS)
        assert total(daemon, "streamd_watch_overflows_total") == 0
        spent, seen = (
            cpu_seconds(daemon) - cpu,
            total(daemon, "streamd_watch_events_total") - events,
        )
        print(
            f"\n{BURST:,} files changed in {took:.2f} s: durable {late:.1f} s later,"
            f" {seen:,.0f} events, {spent:.1f} CPU s ({spent / BURST * 1e6:.0f} µs a file),"
            f" peak {daemon.memory.peak_mib:.0f} MiB"
        )
        cpu, events = cpu_seconds(daemon), total(daemon, "streamd_watch_events_total")
        writes, began = 0, time.monotonic()
        while time.monotonic() - began < STORM_SECONDS:
            change(paths[:1000], b"in the storm\n")
            writes += 1000
        rate = writes / (time.monotonic() - began)
        late = daemon.wait_protected(seconds=DURABLE_SECONDS)
        lost = total(daemon, "streamd_watch_overflows_total")
        spent, seen = (
            cpu_seconds(daemon) - cpu,
            total(daemon, "streamd_watch_events_total") - events,
        )
        print(
            f"{rate:,.0f} changes a second for {STORM_SECONDS:.0f} s to 1,000 files:"
            f" {lost:.0f} overflows, {seen:,.0f} events ({seen / (STORM_SECONDS + late):,.0f} /s),"
            f" {spent / max(seen, 1) * 1e6:.1f} CPU s for 10⁶ events with the captures they caused,"
            f" durable {late:.1f} s after the end"
        )
        assert lost == 0
        daemon.stop()
        daemon.restore(tmp_path / "back")
    assert difference(listing(tree), listing(tmp_path / "back")) == []


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.timeout(400)
@pytest.mark.parametrize("where", PLACES)
def test_a_single_change_is_durable_within_the_rpo(tmp_path, azurite, where) -> None:
    tree = tmp_path / "tree"
    paths = populate(tree, 100)
    options = azurite_vault(azurite, tmp_path) if where == "azurite" else {}
    checks = {"reconcile": "1d", "reread": "0s", "canary": "0s"}
    rng = random.Random(7)
    with Daemon(tmp_path / "streamd", tree, rpo="5s", source_options=checks, **options) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected(seconds=120)
        delays = []
        for number in range(SINGLES):
            time.sleep(rng.random() * 1.5)
            change([paths[number % 100]], b"changed %d\n" % number)
            delays.append(daemon.wait_protected(seconds=60))
        delays.sort()
        print(
            f"\nclose(2) to durable, {where}, {SINGLES} single changes, rpo 5 s:"
            f" p50 {delays[len(delays) // 2]:.2f} s, p99 {delays[len(delays) * 99 // 100]:.2f} s"
        )
        assert delays[len(delays) // 2] < 20
        daemon.stop()
