"""The unit file under a real systemd: the service starts, reloads, dies and stops as promised."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPOSURE_MAX = 2.5
STOP_SECONDS_MAX = 20
EXIT_CONFIGURATION = "4"
BOX_SECONDS = 180


@pytest.fixture(scope="module")
def life() -> dict[str, Any]:
    """One boot and one life of the service, told as JSON."""
    # bound below /opt: the service's user cannot reach below /root or some home directories
    checkout, venv = "/opt/streamd", "/opt/streamd-venv"
    program = ["env", f"PYTHONPATH={checkout}", f"{venv}/bin/python", "-P", "-m", "streamd"]
    done = subprocess.run(
        [
            str(HERE / "sdbox"),
            *("-t", str(BOX_SECONDS), "-b", f"{ROOT}:{checkout}", "-b", f"{sys.prefix}:{venv}"),
            *("--", "/usr/bin/python3", f"{checkout}/tests/system/inside_systemd.py", checkout),
            *program,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_the_unit_file_is_valid(life) -> None:
    # keys of newer systemd releases are ignored by older ones, with a warning
    newer = "FileDescriptorStorePreserve|RestartSteps|RestartMaxDelaySec"
    lines = life["verify"]["output"].splitlines()
    assert [line for line in lines if "streamd" in line and not re.search(newer, line)] == []


def test_little_of_the_host_is_exposed(life) -> None:
    found = re.search(r"exposure level for streamd\.service: ([\d.]+)", life["security"]["output"])
    assert found
    assert float(found[1]) <= EXPOSURE_MAX


def test_init_makes_a_vault(life) -> None:
    assert life["init"]["status"] == 0, life["init"]["output"]


def test_start_returns_when_the_service_is_ready(life) -> None:
    assert life["start"]["status"] == 0, life["journal"]
    started = life["started"]
    assert (started["Type"], started["User"]) == ("notify", "streamd")
    assert (started["ActiveState"], started["SubState"]) == ("active", "running")
    assert started["StatusText"]


def test_the_service_is_well_and_protects_inside_its_sandbox(life) -> None:
    assert life["healthz"] == 200
    assert life["protectedz"] == 200, life["journal"]


def test_reload_says_when_it_is_done(life) -> None:
    assert life["reload"]["status"] == 0, life["reload"]["output"]


def test_an_invalid_configuration_fails_the_reload_and_nothing_else(life) -> None:
    assert life["bad_reload"]["status"] != 0
    assert "config-invalid" in life["bad_reload_journal"]
    after = life["after_bad_reload"]
    assert (after["ActiveState"], after["SubState"]) == ("active", "running")
    assert after["MainPID"] == life["started"]["MainPID"]
    assert life["reload_again"]["status"] == 0


def test_a_killed_service_is_started_again(life) -> None:
    after = life["after_kill"]
    assert (after["ActiveState"], after["SubState"]) == ("active", "running")
    assert after["NRestarts"] == "1"
    assert after["MainPID"] not in ("0", life["before_kill"]["MainPID"])


def test_what_was_written_while_the_daemon_was_dead_is_delivered_and_the_time_is_a_gap(
    life,
) -> None:
    facts = life["delivered_after_kill"]
    assert facts["page"] == 200, life["journal"]
    names = {f"while-dead-{number}" for number in range(20)}
    assert {name for name in names if name in facts["listed"]} == names
    assert facts["events"] >= 20, "the kept queue had them"
    assert facts["rescans"] >= 1
    assert "unclean-stop" in {gap["reason"] for gap in _gaps(facts)}


def test_a_restart_is_no_gap_and_needs_no_scan(life) -> None:
    restart = life["restart"]
    assert restart["command"]["status"] == 0
    facts = restart["facts"]
    names = {f"during-restart-{number}" for number in range(restart["written"])}
    assert len(names) > 20
    assert {name for name in names if f'/{name}"' in facts["listed"]} == names
    assert facts["page"] == 200
    assert facts["rescans"] == 0, restart["journal"]
    assert '"event": "resumed"' in restart["journal"]
    assert '"event": "scanned"' not in restart["journal"]
    assert _gaps(facts) == _gaps(life["delivered_after_kill"])


def test_a_stop_takes_at_most_twenty_seconds(life) -> None:
    assert life["stop"]["status"] == 0
    assert life["stop"]["seconds"] < STOP_SECONDS_MAX
    stopped = life["stopped"]
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")


def test_an_invalid_configuration_is_not_tried_again_and_again(life) -> None:
    assert life["bad_start"]["status"] != 0
    after = life["after_bad_start"]
    assert (after["ActiveState"], after["ExecMainStatus"]) == ("failed", EXIT_CONFIGURATION)


def _gaps(facts: dict[str, Any]) -> list[dict[str, Any]]:
    (source,) = json.loads(facts["points"])["sources"]
    return source["gaps"]
