"""A container that keeps versions: what somebody replaced is read from the version that was ours."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from blobserver.server import BlobServer
from integration.remote_stack import RemoteStack, shared_key
from msgspec.structs import replace
from test_restore import content_of, noise, restore, vault_with_tree
from test_restore_layers import HURTS

from streamd.daemon.compose import minding_layers
from streamd.effects import SystemClock
from streamd.errors import BlobNotFound, StorageRefused, VaultDamaged
from streamd.maintenance.verify import Level, Verifier
from streamd.maintenance.verify_versions import WHOLE, note_versions
from streamd.storage.layered import LayeredBlobStore
from streamd.storage.local import LocalBlobStore
from streamd.storage.port import BlobName
from streamd.storage.versions import TRIED_MAX, EarlierVersions, VersionedBlobStore


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BlobServer]:
    async with BlobServer() as server:
        server.service.account.versioning = True
        yield server


@pytest_asyncio.fixture
async def stack(server: BlobServer) -> AsyncIterator[RemoteStack]:
    async with RemoteStack(shared_key(server)) as stack:
        await stack.plain.ensure_container()
        yield stack


class Kept:
    """A vault with a tree in the container, and somebody who may overwrite there."""

    def __init__(self, stack: RemoteStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.earlier = [EarlierVersions(stack.plain, number) for number in range(TRIED_MAX)]

    async def fill(self, *, packed: bool) -> None:
        self.builder, web = await vault_with_tree(self.folder, packed=packed)
        await web.checkpoint()
        web.file(b"/srv/www/later", noise(5000, 9))
        await self.builder.commit(packed=packed)
        await self.builder.install()
        self.local = LocalBlobStore(self.folder / "vault")
        self.truth = {
            info.name: await self.local.get(info.name) async for info in self.local.scan("")
        }
        for name, data in self.truth.items():
            await self.stack.store.put(name, data)
        self.vault = self.builder.vault

    @property
    def names(self) -> list[BlobName]:
        return [name for name in sorted(self.truth) if name.startswith("d/")]

    async def overwrite(self, name: str, data: bytes) -> None:
        await self.stack.plain.ask(
            "put",
            lambda container, _: container.upload_blob(
                f"{self.stack.plain.prefix}{name}", data, overwrite=True
            ),
        )

    def open(self, *, with_versions: bool = True, with_local: bool = False) -> None:
        """Open it anew: nothing is known of what earlier readers found."""
        store = VersionedBlobStore(self.stack.store, self.earlier if with_versions else ())
        reading = (
            LayeredBlobStore(self.local, store, distrust_remote=store.distrust)
            if with_local
            else store
        )
        self.builder.vault = minding_layers(replace(self.vault, store=reading))

    async def assert_restores(self, out: Path) -> None:
        report = await restore(self.builder, out)
        assert not report.refused
        assert not report.is_damaged
        assert content_of(out / "sub/big") == noise(1_000_000)
        assert content_of(out / "later") == noise(5000, 9)


@pytest_asyncio.fixture
async def kept(stack: RemoteStack, tmp_path: Path) -> Kept:
    kept = Kept(stack, tmp_path)
    await kept.fill(packed=True)
    return kept


@pytest.mark.asyncio
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hurt", HURTS)
async def test_a_replaced_object_of_any_kind_is_read_from_its_earlier_version(
    stack: RemoteStack, tmp_path: Path, hurt: str, packed: bool
) -> None:
    kept, rng = Kept(stack, tmp_path), random.Random(hurt)
    await kept.fill(packed=packed)
    for name in kept.names:
        await kept.overwrite(name, HURTS[hurt](kept.truth[name], rng))
    kept.open(with_versions=False)
    with pytest.raises(VaultDamaged):
        await restore(kept.builder, tmp_path / "without")
    kept.open()
    await kept.assert_restores(tmp_path / "with")


@pytest.mark.asyncio
async def test_it_is_also_the_last_resort_of_a_rotten_local_copy(kept, tmp_path) -> None:
    rng = random.Random(2)
    for name in kept.names:
        hurt = HURTS["flipped"](kept.truth[name], rng)
        (tmp_path / "vault" / name).write_bytes(hurt)
        await kept.overwrite(name, HURTS["replaced"](kept.truth[name], rng))
    kept.open(with_local=True)
    await kept.assert_restores(tmp_path / "out")


@pytest.mark.asyncio
async def test_what_was_ours_is_found_behind_any_number_of_replacements(kept, tmp_path) -> None:
    for name in kept.names:
        for number in range(8):
            await kept.overwrite(name, b"%d of somebody" % number)
    kept.open()
    await kept.assert_restores(tmp_path / "out")


@pytest.mark.asyncio
async def test_another_good_object_under_the_name_is_no_good_one(kept, tmp_path) -> None:
    packs = [name for name in kept.names if "/p/" in name]
    segments = [name for name in kept.names if "/j/" in name]
    for group in (packs, segments):
        for name, other in zip(group, group[1:] + group[:1], strict=True):
            await kept.overwrite(name, kept.truth[other])
    kept.open()
    await kept.assert_restores(tmp_path / "out")


@pytest.mark.asyncio
async def test_verification_names_the_damage_and_the_version_that_undoes_it(kept) -> None:
    rng = random.Random(4)
    victims = kept.names[::2]
    for name in victims:
        await kept.overwrite(name, HURTS["flipped"](kept.truth[name], rng))
    record = replace(kept.vault, store=kept.stack.store)
    report = await Verifier(record, Level.FULL, clock=SystemClock()).run()
    assert {one.name for one in report.damage} >= set(victims)
    await note_versions(record, report, kept.earlier)
    assert {one.name for one in report.damage if WHOLE in one.what} == set(victims)
    report = await Verifier(record, Level.FULL, clock=SystemClock()).run()
    await note_versions(record, report, kept.earlier[1:])  # those of somebody else
    assert not [one for one in report.damage if WHOLE in one.what]


@pytest.mark.asyncio
async def test_a_deleted_object_is_read_by_its_name(kept) -> None:
    name = kept.names[0]
    await kept.stack.plain.delete(name)
    kept.open()
    store = kept.builder.vault.store
    with pytest.raises(BlobNotFound):
        await store.get(name)
    assert store.distrust(name)
    assert await store.get(name) == kept.truth[name]
    assert await store.get(name, offset=10, size=20) == kept.truth[name][10:30]
    assert [info.size_bytes async for info in store.scan(name)] == [len(kept.truth[name])]


@pytest.mark.asyncio
async def test_without_an_earlier_version_what_is_wrong_is_what_is_there(kept) -> None:
    kept.open()
    store, name, nothing = kept.builder.vault.store, kept.names[0], BlobName("d/nothing")
    for one in (name, nothing):
        tries = 0
        while store.distrust(one):
            tries += 1
            if one == name:
                assert await store.get(one) == kept.truth[one]
            else:
                with pytest.raises(BlobNotFound, match="no object"):
                    await store.get(one)
        assert tries == 1


@pytest.mark.asyncio
async def test_the_past_is_only_read(kept) -> None:
    with pytest.raises(StorageRefused):
        await kept.earlier[0].put(kept.names[0], b"x")
    with pytest.raises(StorageRefused):
        await kept.earlier[0].delete(kept.names[0])
