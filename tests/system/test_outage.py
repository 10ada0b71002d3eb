"""While the blob service is away protection goes on; when it is back everything arrives."""

import shutil
import time
from pathlib import Path

import pytest
from azurite import Azurite, require_azurite
from system.azure_vault import azurite_vault
from system.daemon_process import STOP_SECONDS, Daemon
from system.load import Load
from system.tree import difference, listing

OUTAGE_SECONDS = 4


def _persistent(tmp_path: Path) -> Azurite:
    """An Azurite that still has its blobs after a restart."""
    require_azurite()
    location = tmp_path / "azurite"
    location.mkdir()
    return Azurite(location=location)


def _from_container(daemon: Daemon, target: Path) -> None:
    """Restore with nothing but the container and the key file."""
    for name in ("local", "state"):
        shutil.rmtree(daemon.workdir / name, ignore_errors=True)
    daemon.restore(target)


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_everything_arrives_after_an_outage(tmp_path) -> None:
    tree = tmp_path / "tree"
    load = Load(tree, tmp_path / "log", seed=6, rate=150, population=150)
    with (
        _persistent(tmp_path) as azurite,
        load,
        Daemon(tmp_path / "streamd", tree, **azurite_vault(azurite, tmp_path)) as daemon,
    ):
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        azurite.stop()
        load.start()
        time.sleep(OUTAGE_SECONDS)
        load.stop()
        daemon.wait_protected(destination="local")
        local, vault = (daemon.watermarks()[daemon.source, where] for where in ("local", "vault"))
        assert vault < local, "the watermark of the vault moved without the vault"
        azurite.start()
        daemon.wait_protected()
        daemon.stop()
        expected = listing(tree)
        _from_container(daemon, tmp_path / "restored")
        assert difference(expected, listing(tmp_path / "restored")) == []


@pytest.mark.root
@pytest.mark.azurite
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_ends_in_time_during_an_outage_and_goes_on_after_it(tmp_path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (
        _persistent(tmp_path) as azurite,
        Daemon(tmp_path / "streamd", tree, **azurite_vault(azurite, tmp_path)) as daemon,
    ):
        daemon.init()
        daemon.start()
        azurite.stop()
        (tree / "during").write_bytes(b"written during the outage" * 1000)
        daemon.wait_protected(destination="local")
        assert daemon.stop() <= STOP_SECONDS
        azurite.start()
        daemon.start()
        daemon.wait_protected()
        daemon.stop()
        expected = listing(tree)
        _from_container(daemon, tmp_path / "restored")
        assert difference(expected, listing(tmp_path / "restored")) == []
