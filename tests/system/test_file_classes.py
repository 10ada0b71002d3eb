"""Every file below a source is in exactly one class, and the sums are what a scan counts."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon

WRITER = (
    "import os, sys, time\nfd = os.open(sys.argv[1], os.O_RDWR)\nwhile True: os.pwrite(fd, b'x', 0)"
)
OPTIONS = {
    "exclude": ["*.tmp", "cache/"],
    "exclude_if_present": [".nobackup"],
    "max_file_size": "1MiB",
}


def build(tree: Path) -> int:
    """Make a tree; return how many entries a full listing of it counts by the rules."""
    for name in ("plain/a", "plain/b", "plain/x.tmp", "cache/one", "cache/two", "tagged/.nobackup"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "tagged/lost").write_text("not wanted")
    (tree / "tagged/lost too").write_text("not wanted")
    (tree / "big").write_bytes(bytes(1 << 20) + b"x")
    os.link(tree / "plain/a", tree / "plain/c")
    # . plain plain/a b c x.tmp cache tagged tagged/.nobackup lost "lost too" big
    return 12


def source_of(daemon: Daemon) -> dict:
    (source,) = daemon.facts("status", codes=(0, 3))["sources"]
    return source


def wait_for(daemon: Daemon, classes: dict[str, int], seconds: float = 60) -> dict:
    until = time.monotonic() + seconds
    while True:
        source = source_of(daemon)
        found = {name: count for name, count in source["classes"].items() if count}
        if found == classes:
            return source
        assert time.monotonic() < until, f"{found}\n{daemon.log_tail()}"
        time.sleep(0.3)


@pytest.mark.timeout(300)
def test_the_classes_add_up_to_what_a_scan_counts_and_follow_what_happens(tmp_path) -> None:
    tree = tmp_path / "tree"
    total = build(tree)
    with Daemon(tmp_path / "streamd", tree, source_options=OPTIONS) as daemon:
        daemon.init()
        daemon.start()
        source = wait_for(daemon, {"protected": 7, "excluded": 4, "too-large": 1})
        assert sum(source["classes"].values()) == source["reconcile_entries"] == total
        samples = daemon.metrics("streamd_files")
        assert {s["class"]: v for s, v in samples if v} == {
            "protected": 7,
            "excluded": 4,
            "too-large": 1,
        }
        text = daemon.command("status", codes=(0, 3))
        assert "tree: 7 protected, 4 excluded, 1 too-large" in text
        # too large, and then not; protected, and then too large: it keeps its last version
        (tree / "big").write_bytes(b"small")
        (tree / "plain/b").write_bytes(bytes(2 << 20))
        wait_for(daemon, {"protected": 7, "excluded": 4, "too-large": 1})
        assert daemon.command("cat", "tree:plain/b") == "plain/b"
        (tree / "plain/b").unlink()
        wait_for(daemon, {"protected": 7, "excluded": 4})
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tree / "plain/a")]) as writer:
            try:
                until = time.monotonic() + 100
                while not (now := source_of(daemon)["classes"])["fuzzy"] and not now["pending"]:
                    assert time.monotonic() < until, daemon.log_tail()
                    time.sleep(0.2)
                assert sum(now.values()) == 11
            finally:
                writer.kill()
        wait_for(daemon, {"protected": 7, "excluded": 4})
        shutil.rmtree(tree / "plain")
        wait_for(daemon, {"protected": 4, "excluded": 4})  # counted by the last scan
        tree.rename(tmp_path / "away")
        wait_for(daemon, {"vanished": 4, "excluded": 4})
        assert source_of(daemon)["state"] == "source-missing"
        (tmp_path / "away").rename(tree)
        wait_for(daemon, {"protected": 4, "excluded": 3})
        assert daemon.facts("problems", codes=(0, 3))["problems"] == []
        daemon.stop()
