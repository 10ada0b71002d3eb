"""Hooks around each capture: they run, they are told, and a failing one counts as configured."""

import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon

HOOK = """#!/bin/sh
echo "$STREAMD_HOOK $STREAMD_SOURCE $STREAMD_RESULT" >> "{log}"
if [ "$STREAMD_HOOK" = before_capture ] && [ -e "{broken}" ]; then
    echo "cannot freeze" >&2
    exit 5
fi
"""


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    path = tmp_path / "hook"
    path.write_text(HOOK.format(log=tmp_path / "log", broken=tmp_path / "broken"))
    path.chmod(0o755)
    return path


def installation(tmp_path: Path, hook: Path, failure: str) -> Daemon:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("first")
    options = {
        "before_capture": [str(hook)],
        "after_capture": [str(hook)],
        "hook_failure": failure,
    }
    return Daemon(tmp_path / "streamd", tree, source_options=options)


def log(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().split("\n")[:-1]


def hook_runs(daemon: Daemon) -> dict[tuple[str, str], float]:
    samples = daemon.metrics("streamd_hook_runs_total")
    return {(labels["hook"], labels["result"]): value for labels, value in samples}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("failure", ["mark", "refuse"])
def test_hooks_run_in_pairs_and_a_failing_one_marks_or_refuses(tmp_path, hook, failure) -> None:
    with installation(tmp_path, hook, failure) as daemon:
        daemon.init()
        daemon.command("capture")
        lines = log(tmp_path)
        assert lines[:2] == ["before_capture tree ", "after_capture tree ok"]
        assert len(lines) % 2 == 0
        (tmp_path / "broken").touch()
        (daemon.tree / "f").write_text("second")
        assert daemon.facts("capture", codes=(3,))["complete"] is False
        problem = daemon.facts("problems", codes=(3,))["problems"][0]
        assert problem["reason"] == "hook-failed"
        assert "cannot freeze" in problem["detail"]
        captured = "second" if failure == "mark" else "first"
        assert daemon.command("cat", "tree:f") == captured
        assert log(tmp_path)[len(lines)] == "before_capture tree "
        if failure == "refuse":
            assert len(log(tmp_path)) == len(lines) + 1, "captured nothing: nothing to end"
        (tmp_path / "broken").unlink()
        (daemon.tree / "f").write_text("third")
        daemon.command("capture")
        assert daemon.command("cat", "tree:f") == "third"
        assert daemon.facts("problems")["problems"] == []


@pytest.mark.timeout(300)
def test_a_refused_cut_waits_and_is_made_when_the_hook_succeeds(tmp_path, hook) -> None:
    with installation(tmp_path, hook, "refuse") as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        (tmp_path / "broken").touch()
        (daemon.tree / "g").touch()  # a cut whose hook succeeded before may still be under way
        until = time.monotonic() + 100
        while not daemon.facts("problems", codes=(0, 3))["problems"]:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        (daemon.tree / "f").write_text("second")
        refused = hook_runs(daemon)["before_capture", "failed"]
        while hook_runs(daemon)["before_capture", "failed"] == refused:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        assert daemon.command("cat", "tree:f") == "first"
        lags = [value for _, value in daemon.metrics("streamd_rpo_lag_seconds")]
        assert max(lags) > 0
        (tmp_path / "broken").unlink()
        daemon.wait_protected()
        assert daemon.command("cat", "tree:f") == "second"
        assert hook_runs(daemon)["before_capture", "failed"] >= 1
        until = time.monotonic() + 100  # durable comes first, then the hook after the capture
        while True:
            runs = hook_runs(daemon)
            if runs["before_capture", "ok"] == runs["after_capture", "ok"]:
                break
            assert time.monotonic() < until, runs
            time.sleep(0.1)
        daemon.stop()


@pytest.mark.timeout(300)
def test_a_hook_that_hangs_does_not_hold_up_the_stop(tmp_path, hook) -> None:
    hook.write_text(
        f'#!/bin/sh\necho "$STREAMD_HOOK" >> "{tmp_path}/log"\n'
        '[ "$STREAMD_HOOK" = after_capture ] || exec sleep 600\n'
    )
    with installation(tmp_path, hook, "refuse") as daemon:
        daemon.init()
        daemon.start(wait=False)
        until = time.monotonic() + 100
        while not (tmp_path / "log").exists():
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.1)
        daemon.stop()
        assert log(tmp_path) == ["before_capture", "after_capture"]
