"""A local copy on a small disk, with the service away: nothing is lost, and the disk never full."""

import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest
from azurite import Azurite, require_azurite
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon
from system.tree import difference, listing

FILES = 12
FILE_BYTES = 12 << 20  # together twice the disk, incompressible


@pytest.fixture
def small_disk(tmp_path):
    image, point = tmp_path / "image", tmp_path / "small"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path}
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, env=environment)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True, env=environment)
    yield point
    subprocess.run(["umount", str(point)], check=True, env=environment)


class LowestFree(threading.Thread):
    """Watches how much of a file system stays free for those who need no root."""

    def __init__(self, point: Path) -> None:
        super().__init__(daemon=True)
        self.point, self.lowest, self.ended = point, 1.0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            disk = os.statvfs(self.point)
            self.lowest = min(self.lowest, disk.f_bavail / disk.f_blocks)


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_copy_is_told_and_everything_arrives_when_the_service_is_back(
    tmp_path, small_disk
) -> None:
    require_azurite()
    tree, location = tmp_path / "tree", tmp_path / "azurite"
    tree.mkdir()
    location.mkdir()
    with Azurite(location=location) as azurite:
        options = azurite_vault(azurite, tmp_path)
        local = {"path": str(small_disk / "copy"), "min_free": "20%"}
        with Daemon(tmp_path / "streamd", tree, local_options=local, **options) as daemon:
            daemon.init()
            daemon.start()
            daemon.wait_protected()
            azurite.stop()
            watch = LowestFree(small_disk)
            watch.start()
            rng = random.Random(4)
            for number in range(FILES):
                (tree / f"large-{number}").write_bytes(rng.randbytes(FILE_BYTES))
            _wait_until(lambda: _value(daemon, "spool_full") == 1, 100)
            assert daemon.facts("status", codes=(3,))["spool_full_since_us"] > 0
            (tree / "small").write_bytes(b"a change that has to wait with the others")
            time.sleep(3)
            azurite.start()
            daemon.wait_protected(seconds=120)
            watch.ended.set()
            assert _value(daemon, "spool_full") == 0
            assert _value(daemon, "spool_bypassed_bytes_total") > 0
            _wait_until(lambda: "spool-full" in _gap_reasons(daemon), 100)
            assert watch.lowest >= 0.10 - 0.02  # half of min_free is for segments
            daemon.stop()
            daemon.restore(tmp_path / "restored")
            assert difference(listing(tree), listing(tmp_path / "restored")) == []


def _gap_reasons(daemon: Daemon) -> set[str]:
    return {gap["reason"] for one in daemon.facts("points")["sources"] for gap in one["gaps"]}


def _wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _value(daemon: Daemon, name: str) -> float:
    return sum(value for _, value in daemon.metrics(f"streamd_{name}"))
