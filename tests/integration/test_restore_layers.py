"""A local copy that rots: what is wrong here is read from the container, chunk by chunk."""

import os
import random

import pytest
from test_restore import content_of, noise, restore, vault_with_tree
from vaultbuilder import ManualClock

from streamd.storage.layered import LayeredBlobStore
from streamd.storage.local import LocalBlobStore
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import Vault

HURTS = {
    "flipped": lambda data, rng: _flipped(data, rng),
    "cut": lambda data, _: data[: len(data) // 2],
    "emptied": lambda _, __: b"",
    "replaced": lambda data, rng: rng.randbytes(len(data)),
}


def _flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


class Layers:
    """A vault whose every object is in a local copy and in a container."""

    def __init__(self, builder, tmp_path) -> None:
        self.root = tmp_path / "vault"
        self.local = LocalBlobStore(self.root)
        self.remote = MemoryBlobStore(ManualClock())
        self.builder = builder

    async def upload(self) -> None:
        async for info in self.local.scan(""):
            await self.remote.put(info.name, await self.local.get(info.name))

    def open(self) -> None:
        """Open it anew: nothing is known of what earlier readers found."""
        self.store = LayeredBlobStore(self.local, self.remote)
        old = self.builder.vault
        self.builder.vault = Vault(
            self.store, old.keys, old.config, old.verify_keys, self.store.distrust
        )

    async def names(self) -> list[str]:
        return [info.name async for info in self.local.scan("d/")]


@pytest.mark.asyncio
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hurt", HURTS)
async def test_a_bad_local_object_of_any_kind_is_read_from_the_container(
    tmp_path, hurt, packed
) -> None:
    rng = random.Random(hurt)
    builder, web = await vault_with_tree(tmp_path, packed=packed)
    await web.checkpoint()
    web.file(b"/srv/www/later", noise(5000, 9))
    await builder.commit(packed=packed)
    layers = Layers(builder, tmp_path)
    await layers.upload()
    for number, name in enumerate(await layers.names()):
        path = layers.root / name
        whole = path.read_bytes()
        path.write_bytes(HURTS[hurt](whole, rng))
        out = tmp_path / f"out-{number}"
        layers.open()
        report = await restore(builder, out)
        assert not report.refused, name
        assert not report.is_damaged, name
        assert content_of(out / "sub/big") == noise(1_000_000)
        assert content_of(out / "later") == noise(5000, 9)
        path.write_bytes(whole)
    assert layers.store.local_bytes_read > 0


@pytest.mark.asyncio
@pytest.mark.parametrize("hurt", HURTS)
async def test_a_source_is_found_and_listed_although_its_local_journal_is_rotten(
    tmp_path, hurt
) -> None:
    rng = random.Random(hurt)
    builder, web = await vault_with_tree(tmp_path, packed=False)
    web.file(b"/srv/www/later", noise(5000, 9))
    await builder.commit(packed=False)
    layers = Layers(builder, tmp_path)
    await layers.upload()
    layers.open()
    reader = StateReader(builder.vault)
    source = await reader.find_source("web")
    sound = [item async for item in reader.changes("web", 0, 1 << 62)]
    for name in await layers.names():
        if "/j/" in name:
            path = layers.root / name
            whole = path.read_bytes()  # its beginning is what listings read
            path.write_bytes(HURTS[hurt](whole[:60], rng) + (whole[60:] if len(hurt) > 4 else b""))
    layers.open()
    reader = StateReader(builder.vault)
    assert await reader.find_source("web") == source
    assert [item async for item in reader.changes("web", 0, 1 << 62)] == sound


@pytest.mark.asyncio
async def test_what_is_bad_in_both_layers_is_damage_and_the_rest_comes_back(tmp_path) -> None:
    builder, web = await vault_with_tree(tmp_path, packed=True)
    web.file(b"/srv/www/later", noise(5000, 9))
    await builder.commit(packed=True)
    layers = Layers(builder, tmp_path)
    packs = [name for name in await layers.names() if "/p/" in name]
    victim = max(packs, key=lambda name: os.path.getsize(layers.root / name))
    path = layers.root / victim
    data = path.read_bytes()
    path.write_bytes(data[:-300_000] + bytes(300_000))
    await layers.upload()
    layers.open()
    report = await restore(builder, tmp_path / "out")
    assert report.is_damaged
    assert b"big" in {os.path.basename(each.path) for each in report.refused}
    assert content_of(tmp_path / "out/later") == noise(5000, 9)


def test_an_object_is_distrusted_once() -> None:
    store = LayeredBlobStore(MemoryBlobStore(ManualClock()), MemoryBlobStore(ManualClock()))
    assert store.distrust(BlobName("d/x"))
    assert not store.distrust(BlobName("d/x"))
