"""Rotten copies in front of sound ones: an operator gets back what is whole somewhere.

Real processes, and a container in our own Blob server that keeps versions.
"""

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blobserver.records import EMULATOR_KEY, Blob
from blobserver.server import BlobServer, OwnLoop
from system.blob_vault import CONTAINER, write_key
from system.daemon_process import Daemon
from system.tree import difference, listing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FORGED = "forged-"  # the versions of somebody else


class Container:
    """The container, as somebody sees it who may do there what streamd never does."""

    def __init__(self, server: BlobServer) -> None:
        self._account = server.service.account

    def objects(self, kind: str) -> dict[str, Blob]:
        """Return the objects whose names have `/kind/` in them: p are packs, j segments."""
        blobs = self._account.containers[CONTAINER].blobs
        return {name: blob for name, blob in blobs.items() if f"/{kind}/" in name}

    def overwrite(self, blob: Blob) -> None:
        """Put rotten bytes in place of the current ones, which become an earlier version."""
        current = blob.current
        assert current is not None
        blob.older[current.id] = current
        rotten = bytearray(current.content)
        for at in range(len(rotten) // 2, len(rotten), 1000):  # not what says what it is
            rotten[at] ^= 1
        blob.current = replace(current, id=FORGED + current.id, content=bytes(rotten), etag='"0x1"')

    def forget_versions(self) -> None:
        """Have every earlier version expire."""
        for blob in self._account.containers[CONTAINER].blobs.values():
            blob.older.clear()


@pytest.fixture
def container_and_daemon(tmp_path: Path) -> Iterator[tuple[Container, Daemon]]:
    tree = tmp_path / "tree"
    tree.mkdir()
    rng = random.Random(8)
    for index in range(30):
        (tree / f"small{index}").write_bytes(rng.randbytes(2_000 + index))
    (tree / "large").write_bytes(rng.randbytes(6_000_000))
    server = BlobServer()
    server.service.account.versioning = True
    with OwnLoop() as own:
        own.run(server.start())
        write_key(tmp_path, EMULATOR_KEY)
        options = {
            "auth": "shared-key",
            "shared_key_file": str(tmp_path / "account-key"),
            "create_container": True,
        }
        url = f"{server.account_url}/{CONTAINER}/host"
        with Daemon(tmp_path / "streamd", tree, vault_url=url, vault_options=options) as daemon:
            daemon.init()
            daemon.command("capture")
            yield Container(server), daemon
        own.run(server.stop())


def _local_objects(daemon: Daemon) -> list[Path]:
    """Return every object of the copy, those that open the vault included."""
    return [path for path in (daemon.workdir / "local").rglob("*") if path.is_file()]


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 4096):
        content[at] ^= 1
    path.write_bytes(content)


def _lose_host(daemon: Daemon) -> None:
    """Leave nothing but the configuration, the kit and the container."""
    for name in ("local", "state"):
        shutil.rmtree(daemon.workdir / name)
    (daemon.workdir / "vault.key").unlink()


def test_what_only_an_earlier_version_has_is_healed_into_a_new_pack(
    container_and_daemon: tuple[Container, Daemon], tmp_path: Path
) -> None:
    container, daemon = container_and_daemon
    then = listing(daemon.tree)
    before = daemon.facts("points", "tree")["sources"][0]["points"][-1]
    for path in daemon.tree.iterdir():  # now only the past has the content of then
        path.write_bytes(os.urandom(500))
    daemon.command("capture")
    packs = container.objects("p")
    assert packs
    for blob in packs.values():
        container.overwrite(blob)
    for path in _local_objects(daemon):
        if "/p/" in str(path):
            path.unlink()
    found = daemon.facts("verify", "--level", "full", codes=(7,))
    assert found["missing_chunks"] > 30
    told = {line["name"]: line["what"] for line in found["damage"]}
    assert {f"host/{name}" for name in told} == set(packs)
    assert all("an earlier version of it is whole" in what for what in told.values())
    healed = daemon.facts("verify", "--level", "full", "--heal", codes=(7,))
    assert healed["lost_chunks"] == 0
    assert healed["healed_chunks"] < 2 * found["missing_chunks"]  # not again and again
    assert healed["healed_chunks"] >= found["missing_chunks"]  # a chunk list names more
    again = daemon.facts("verify", "--level", "full")
    assert again["sound"], again
    container.forget_versions()
    _lose_host(daemon)
    back = tmp_path / "back"
    daemon.command(
        "restore", "tree", "--to", str(back), "--at", str(before["at"]),
        "--kit", str(daemon.workdir / "kit.txt"),
    )  # fmt: skip
    assert difference(then, listing(back)) == []


def test_a_kit_restores_past_a_rotten_copy_and_past_a_replaced_object(
    container_and_daemon: tuple[Container, Daemon], tmp_path: Path
) -> None:
    container, daemon = container_and_daemon
    kit = str(daemon.workdir / "kit.txt")
    (daemon.workdir / "vault.key").unlink()
    rotten = _local_objects(daemon)
    assert len(rotten) > 5
    for path in rotten:
        _spoil(path)
    daemon.command("restore", "tree", "--to", str(tmp_path / "one"), "--kit", kit)
    assert difference(listing(daemon.tree), listing(tmp_path / "one")) == []
    for kind in "pj":  # and now the container's are no better
        for blob in container.objects(kind).values():
            container.overwrite(blob)
    daemon.command("restore", "tree", "--to", str(tmp_path / "two"), "--kit", kit)
    assert difference(listing(daemon.tree), listing(tmp_path / "two")) == []
    container.forget_versions()  # to see that it was there that they came from
    daemon.command("restore", "tree", "--to", str(tmp_path / "lost"), "--kit", kit, codes=(7,))
