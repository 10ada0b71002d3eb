"""SIGTERM while the service says nothing at all: an end within 20 s, and everything kept."""

import shutil
from pathlib import Path

import pytest
from blobserver.faults import Fault
from blobserver.server import BlobServer, OwnLoop
from certificates import Authority, authority  # noqa: F401 - a fixture
from system.blob_vault import blob_vault
from system.daemon_process import STOP_SECONDS, Daemon
from system.tree import difference, listing


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stop_with_a_silent_service_is_in_time_and_keeps_everything(
    tmp_path: Path, authority: Authority
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "before").write_bytes(b"before")
    server = BlobServer(tls=authority.server())
    with OwnLoop() as own:
        own.run(server.start())
        options = blob_vault(server, tmp_path, authority)
        with Daemon(tmp_path / "streamd", tree, **options) as daemon:  # type: ignore[arg-type]
            daemon.init()
            daemon.start()
            daemon.wait_protected()
            server.faults.add(Fault("blackhole", None))
            (tree / "large").write_bytes(bytes(range(256)) * (24 << 12))
            (tree / "small").write_bytes(b"small")
            daemon.wait_protected(destination="local")
            _wait_for_requests_that_hang(server)
            assert daemon.stop() <= STOP_SECONDS
            server.faults.clear()
            expected = listing(tree)
            daemon.start()
            daemon.wait_protected()
            daemon.stop()
            for name in ("local", "state"):
                shutil.rmtree(daemon.workdir / name)
            daemon.restore(tmp_path / "restored")
            assert difference(expected, listing(tmp_path / "restored")) == []
        own.run(server.stop())


def _wait_for_requests_that_hang(server: BlobServer) -> None:
    import time

    until = time.monotonic() + 100
    while server.in_flight == 0:
        assert time.monotonic() < until, "nothing was sent"
        time.sleep(0.05)
