"""A host whose clock is years ahead expires nothing in a container: the storage says what time it is."""

import pytest
from blobserver.server import BlobServer, in_thread
from system.azure_vault import azurite_vault
from system.daemon_process import Daemon


@pytest.mark.root
@pytest.mark.parametrize("ahead_days", [3650, -3650])
def test_retention_goes_by_the_clock_of_the_storage(tmp_path, ahead_days) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    policy = {"continuous": "1h", "daily": 1}
    with in_thread(BlobServer()) as server:
        options = azurite_vault(server, tmp_path)
        daemon = Daemon(tmp_path / "streamd", tree, policy=policy, **options)
        daemon.init()
        for number in range(3):
            (tree / "file").write_text(str(number))
            daemon.command("capture")
        # as this host would see it, were its clock that much ahead
        server.service.clock.advance(days=-ahead_days)
        [source] = daemon.facts("retention", "run")["sources"]
        if ahead_days > 0:
            assert source["expired"] == 0
            assert source["kept"] >= 3
        else:  # behind: the storage knows that the versions are old
            assert source["expired"] >= 2
            assert source["kept"] == 1
