"""What proves that nothing is missed: the canary's round trip, and reading unchanged files again."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_process import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]
FIBMAP = 1
BLOCK = 4096
WAIT_SECONDS = 100


def total(daemon: Daemon, name: str, **labels: str) -> float:
    return sum(
        value
        for found, value in daemon.metrics(name)
        if all(found.get(key) == wanted for key, wanted in labels.items())
    )


def wait_until(daemon: Daemon, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, daemon.log_tail()
        time.sleep(0.2)


def test_a_canary_arrives_and_its_way_is_measured(tmp_path) -> None:
    tree = tmp_path / "tree"
    (tree / ".streamd").mkdir(parents=True)
    with Daemon(
        tmp_path / "work", tree, rpo="2s", source_options={"canary": "1s", "reread": "0s"}
    ) as daemon:
        daemon.init()
        daemon.start()
        for destination in ("local", "vault"):
            wait_until(
                daemon,
                lambda wanted=destination: (
                    total(daemon, "streamd_canary_round_trip_seconds_count", destination=wanted)
                    >= 2
                ),
            )
        assert total(daemon, "streamd_canary_late_total") == 0
        assert total(daemon, "streamd_canary_last_success_timestamp_seconds") > 0
        daemon.stop()
        daemon.restore(tmp_path / "out")
        assert "streamd" in (tmp_path / "out/.streamd/canary").read_text()


def test_where_nobody_made_a_place_for_it_there_is_no_canary(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("x")
    with Daemon(tmp_path / "work", tree, rpo="1s", source_options={"canary": "1s"}) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        time.sleep(3)
        assert os.listdir(tree) == ["f"]
        assert total(daemon, "streamd_canary_round_trip_seconds_count") == 0
        daemon.stop()


@pytest.fixture
def disk(tmp_path):
    maker = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert maker, "mkfs.ext4 is needed: apt-get install e2fsprogs"
    image, point = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run([maker, "-q", "-F", "-b", str(BLOCK), image], check=True)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    yield image, point
    subprocess.run(["umount", "--lazy", point], check=False)


def change_behind_the_file_system(image: Path, file: Path, content: bytes) -> None:
    """Change a file's content on the disk below: no event, no other time, nothing to be seen."""
    os.sync()
    before = file.stat()
    with file.open("rb") as opened:
        (block,) = struct.unpack("i", fcntl.ioctl(opened, FIBMAP, struct.pack("i", 0)))
        with image.open("r+b") as disk:
            disk.seek(block * BLOCK)
            disk.write(content)
            disk.flush()
            os.fsync(disk.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert file.read_bytes() == content, "the change is there"
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_content_that_rots_under_an_unchanged_stat_is_found_named_and_captured(
    tmp_path, disk
) -> None:
    image, point = disk
    tree = point / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"f{number}").write_bytes(b"%4095d\n" % number)
    options = {"reread": "5s", "canary": "0s"}
    with Daemon(tmp_path / "work", tree, rpo="2s", source_options=options) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        change_behind_the_file_system(image, tree / "f7", b"%4095d\n" % 999)
        wait_until(
            daemon, lambda: total(daemon, "streamd_reread_files_total", result="differs") > 0
        )
        wait_until(daemon, lambda: total(daemon, "streamd_reread_files_total", result="ok") > 20)
        assert total(daemon, "streamd_reread_files_total", result="differs") == 1
        lines = [line for line in daemon.log.read_text().splitlines() if "content-differs" in line]
        assert len(lines) == 1
        assert str(tree / "f7") in lines[0]
        daemon.stop()
        daemon.restore(tmp_path / "out")
        assert (tmp_path / "out/f7").read_bytes() == b"%4095d\n" % 999
