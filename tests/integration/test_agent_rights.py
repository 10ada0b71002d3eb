"""What an agent has, its credential and its key file, neither reads content nor deletes (I14)."""

import asyncio
from pathlib import Path

import pytest
from blobserver.server import BlobServer, in_thread
from integration.test_doctor import _write_token, host
from system.daemon_process import Daemon

from streamd.config.load import load
from streamd.daemon.compose import open_reading_store
from streamd.errors import BlobConflict, StorageRefused
from streamd.storage.port import BlobName

AGENT = "rcl"  # read, create, list: what vault-format asks for


@pytest.fixture
def server():
    with in_thread(BlobServer()) as server:
        yield server


@pytest.fixture
def agent(tmp_path: Path, server) -> Daemon:
    """A write-only host whose token can create and read, and neither write over nor delete."""
    daemon = host(tmp_path, server)
    (daemon.tree / "a").write_bytes(b"the content of a" * 100)
    daemon.command("capture")
    kit = str(daemon.workdir / "kit.txt")
    daemon.command("key", "host-role", "write-only", "--kit", kit)
    _write_token(tmp_path / "sas", AGENT, 30.0)
    return daemon


@pytest.mark.root
@pytest.mark.timeout(300)
def test_an_agent_captures_and_can_neither_read_nor_delete(agent: Daemon, server) -> None:
    blobs = server.service.account.containers["backups"].blobs
    before = set(blobs)
    (agent.tree / "b").write_bytes(b"the content of b" * 100)
    agent.command("capture")
    assert set(blobs) > before, "it goes on writing"
    for command in (["cat", "tree:a"], ["retention", "run"]):
        refused = agent.facts(*command, codes=(5,))
        assert refused["error"]["code"] == "host-write-only"
    asyncio.run(_tries_to_destroy(agent))
    assert set(blobs) >= before
    kit = ("--kit", str(agent.workdir / "kit.txt"))
    assert agent.facts("verify", "--level", "full", *kit)["sound"]


async def _tries_to_destroy(agent: Daemon) -> None:
    store = open_reading_store(load(str(agent.config)))
    remote = getattr(store, "_remote", store)
    try:
        names = [info.name async for info in remote.scan("")]
        assert names
        for name in names:
            with pytest.raises(StorageRefused):
                await remote.delete(name)
            with pytest.raises((StorageRefused, BlobConflict)):
                await remote.put(BlobName(name), b"something else")
    finally:
        await store.aclose()
