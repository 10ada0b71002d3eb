"""A path that is gone with its mount is told and never taken for a deletion; with real mounts."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from integration.watch_tools import mounted
from system.daemon_process import Daemon

from streamd.catalog.lookup import NodeRow
from streamd.daemon.missing import CONFIRM_SECONDS, MissingRoots, is_deleted
from streamd.sources.filesystem.listing import host_stat

WAIT_SECONDS = 100
pytestmark = pytest.mark.root


def state(daemon: Daemon) -> str:
    return daemon.facts("status", codes=(0, 3))["sources"][0]["state"]


def wait_for(daemon: Daemon, wanted: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while (found := state(daemon)) != wanted:
        assert time.monotonic() < until, f"{found}\n{daemon.log_tail()}"
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_an_unmounted_source_is_missing_until_something_is_there_again(tmp_path) -> None:
    tree = tmp_path / "tree"
    with Daemon(tmp_path / "streamd", tree) as daemon:
        with mounted(tree, "-t", "tmpfs", "none"):
            (tree / "precious").write_text("one")
            device = tree.stat().st_dev
            daemon.init()
            daemon.start()
            daemon.wait_protected(seconds=120)
            subprocess.run(["umount", tree], check=True)  # nobody keeps it busy
            wait_for(daemon, "source-missing")
            time.sleep(6)  # longer than between two looks
            assert daemon.command("cat", "tree:precious") == "one"
            assert daemon.facts("status", codes=(3,))["sources"][0]["incident"] is None
        # Another one, and empty. The first takes the number of the device, which would be used again.
        with mounted(tmp_path / "n", "-t", "tmpfs", "x"), mounted(tree, "-t", "tmpfs", "none"):
            assert tree.stat().st_dev != device
            time.sleep(6)  # longer than between two looks
            assert state(daemon) == "source-missing"
            assert daemon.command("cat", "tree:precious") == "one"
            (tree / "precious").write_text("two")
            wait_for(daemon, "protected")
            daemon.wait_protected()
            assert daemon.command("cat", "tree:precious") == "two"
            daemon.stop()


class Known:
    """A catalog that knows the root as it was."""

    root = -1

    def __init__(self, path: Path) -> None:
        self._row = NodeRow(1, host_stat(os.lstat(path)), 0)

    def named(self, parent, names):
        return dict.fromkeys(names, self._row)


def test_after_ten_minutes_it_is_deleted_only_if_its_file_system_is_still_there(tmp_path) -> None:
    point = tmp_path / "disk"
    with mounted(point, "-t", "tmpfs", "none"):
        (point / "root").mkdir()
        root, known = os.fsencode(point / "root"), Known(point / "root")
        missing = MissingRoots()
        missing.saw({root}, set(), 0.0)
        assert missing.due(CONFIRM_SECONDS - 1) == []
        assert missing.due(CONFIRM_SECONDS) == [root]
        assert not is_deleted(root, known), "it is there"
        (point / "root").rmdir()
        assert is_deleted(root, known)
    assert not is_deleted(root, known), "its file system is gone"
