"""Pausing stops what goes to the container, and nothing else; resuming sends all of it."""

import random
import time

import pytest
from azurite import azurite  # noqa: F401 - a fixture
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon
from system.tree import difference, listing

SIZE = 3_000_000


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.timeout(300)
def test_a_paused_daemon_protects_locally_and_catches_up_afterwards(tmp_path, azurite) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "before").write_bytes(b"1")
    options = azurite_vault(azurite, tmp_path)
    with Daemon(tmp_path / "streamd", tree, **options) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        assert daemon.facts("pause", "--for", "1h")["bytes_per_second"] == 0
        (tree / "during").write_bytes(random.Random(1).randbytes(SIZE))
        daemon.wait_protected(destination="local")
        daemon.stop()
        daemon.start()  # an order outlives a restart
        time.sleep(3)
        status = daemon.facts("status", codes=(0, 3))
        assert (status["upload_limit_reason"], status["upload_state"]) == ("paused", "paused")
        assert status["spool_bytes"] > SIZE
        assert _value(daemon, "upload_paused") == 1
        assert _value(daemon, "uploaded_bytes_total") == 0
        assert daemon.facts("limit", "100MiB/s")["reason"] == "ordered"
        daemon.wait_protected()
        assert daemon.facts("resume")["reason"] == "none"
        daemon.stop()
        daemon.restore(tmp_path / "restored")
        assert difference(listing(tree), listing(tmp_path / "restored")) == []


def _value(daemon: Daemon, name: str) -> float:
    [(_, value)] = daemon.metrics(f"streamd_{name}")
    return value
