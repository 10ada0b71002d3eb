"""T-F8: what hangs is reported and holds up nobody else; what is no file is not opened."""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable

import pytest
from hung_mount import hung_mount
from system.daemon_process import Daemon
from system.tree import difference, listing

WAIT_SECONDS = 90
SOURCE = """
[sources.{name}]
paths = ["{path}"]
policy = "test"
rpo = "2s"
"""


def wait_until(daemon: Daemon, what: str, holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, f"{what}: {daemon.watermarks()}\n{daemon.log_tail()}"
        time.sleep(0.1)


def wait_protected(daemon: Daemon, source: str) -> None:
    """Wait until a change made before is protected in one source, whatever the others do."""
    now = time.time()
    wait_until(daemon, source, lambda: daemon.watermarks().get((source, "vault"), 0) >= now)


def problems(daemon: Daemon) -> dict[str, str]:
    found = daemon.facts("problems", codes=(0, 3))["problems"]
    return {problem["path"]: problem["reason"] for problem in found}


@pytest.mark.root
@pytest.mark.timeout(400)
def test_t_f8_a_file_system_that_hangs_is_reported_and_holds_up_nobody_else(tmp_path) -> None:
    tree, other = tmp_path / "tree", tmp_path / "other"
    for path in (tree, other, other / "mount", tmp_path / "root"):
        path.mkdir()
    (tree / "f").write_text("one")
    (other / "beside").write_text("one")
    tables = SOURCE.format(name="other", path=other) + SOURCE.format(
        name="root", path=tmp_path / "root"
    )
    expected = {f"{other}/mount": "unreadable", f"{tmp_path}/root": "source-missing"}
    with Daemon(tmp_path / "streamd", tree, tables=tables) as daemon:
        daemon.init()
        with hung_mount(other / "mount"), hung_mount(tmp_path / "root"):
            daemon.start(wait=False)
            wait_until(daemon, "started", lambda: bool(daemon.watermarks()))
            (tree / "f").write_text("two")
            (other / "beside").write_text("two")
            wait_protected(daemon, "tree")
            wait_until(daemon, "told", lambda: problems(daemon).items() >= expected.items())
            assert daemon.log.read_text().count("mount-hangs") == 2
            wait_until(daemon, "beside", lambda: daemon.command("cat", "other:beside") == "two")
        (other / "mount/after").write_text("what was mounted is gone")
        wait_until(daemon, "well again", lambda: not problems(daemon))
        wait_protected(daemon, "other")
        assert daemon.command("cat", "other:mount/after").startswith("what was mounted")
        daemon.stop()


@pytest.mark.root
@pytest.mark.timeout(300)
def test_t_f8_devices_pipes_and_sockets_are_recorded_and_never_opened(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")  # to open it would wait for a writer
    os.mknod(tree / "tape", 0o600 | stat.S_IFCHR, os.makedev(9, 0))  # no such device: ENXIO
    os.mknod(tree / "disk", 0o600 | stat.S_IFBLK, os.makedev(259, 4095))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        here = os.getcwd()
        os.chdir(tree)  # a socket's name is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        with Daemon(tmp_path / "streamd", tree) as daemon:
            daemon.init()
            daemon.command("capture")
            assert daemon.facts("problems")["problems"] == []
            daemon.restore(tmp_path / "back")
    expected = listing(tree)
    assert {entry.kind for entry in expected.values()} >= {"fifo", "socket", "block device"}
    assert difference(expected, listing(tmp_path / "back")) == []
