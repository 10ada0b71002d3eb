"""Events that are held up are a lag: status, problems, explain, metrics and health pages say so."""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from system.daemon_process import Daemon

WAIT_SECONDS = 90
RPO_SECONDS = 5


def wait_until(daemon: Daemon, what: str, holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, f"{what}\n{daemon.log_tail()}"
        time.sleep(0.1)


def lag(daemon: Daemon) -> float:
    return max(value for _, value in daemon.metrics("streamd_rpo_lag_seconds"))


def is_protected(daemon: Daemon) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/protectedz", timeout=5):
            return True
    except urllib.error.HTTPError:
        return False


@pytest.mark.root
@pytest.mark.timeout(300)
def test_events_that_wait_are_shown_as_a_lag_with_its_reason(tmp_path) -> None:
    tree, held = tmp_path / "tree", tmp_path / "held"
    tree.mkdir()
    (tree / "old").write_text("one")
    daemon = Daemon(tmp_path / "streamd", tree, rpo=f"{RPO_SECONDS}s")
    daemon.program = [sys.executable, "-m", "system.held_events", str(held)]
    daemon.surroundings["PYTHONPATH"] += f":{Path(__file__).parents[1]}"
    with daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected(seconds=WAIT_SECONDS)
        wait_until(daemon, "no lag", lambda: is_protected(daemon))
        held.touch()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "f").write_text("not protected, and in the way")
        (tree / "new").write_text("two")
        began = time.time()
        wait_until(daemon, "a lag", lambda: lag(daemon) > RPO_SECONDS)
        assert not is_protected(daemon)

        [source] = daemon.facts("status", codes=(3,))["sources"]
        assert source["state"] == "lagging"
        assert source["events_wait_since_us"] <= began * 1e6
        assert source["destinations"][0]["lag_seconds"] > RPO_SECONDS
        assert f"events of {tree} wait" in source["message"]
        assert f"events of {tree} wait" in daemon.command("status", codes=(3,))
        [problem] = daemon.facts("problems", codes=(0, 3))["problems"]
        assert (problem["path"], problem["reason"]) == (str(tree), "events-wait")
        why = daemon.facts("explain", str(tree / "new"), codes=(3,))
        assert why["class"] == "pending"
        assert why["why"].startswith(f"events-wait: events of {tree} wait")
        assert daemon.facts("explain", str(tree / "old"))["class"] == "protected"
        before = lag(daemon)
        wait_until(daemon, "it grows", lambda: lag(daemon) > before + 2)
        wait_until(daemon, "said in the log", lambda: "events-wait" in daemon.log.read_text())

        held.unlink()
        daemon.wait_protected(seconds=WAIT_SECONDS)
        wait_until(daemon, "no lag any more", lambda: is_protected(daemon))
        [source] = daemon.facts("status")["sources"]
        assert (source["message"], source["events_wait_since_us"]) == ("", 0)
        daemon.stop()
