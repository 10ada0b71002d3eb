"""Read index generations: which object holds a chunk, without opening every object.

A generation is an accelerator. Whatever is wrong with one is noted, and the one before it is used,
or none; what it does not know is found in the objects themselves.
"""

from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Final

from streamd.errors import VaultDamaged
from streamd.format import envelope, layout
from streamd.format.crypto import Buffer
from streamd.format.envelope import Kind, WriterKeys
from streamd.format.index_run import (
    IndexManifest,
    IndexShard,
    ObjectRow,
    ShardRow,
    decode_manifest,
    decode_shard,
    shard_of,
)
from streamd.model.ids import WriterId
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import Damage
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.vault import Vault

_SHARDS_KEPT: Final = 4  # decoded shards held in memory: 60 MiB or so


class IndexGeneration:
    """The newest complete generation of a vault."""

    def __init__(self, vault: Vault, manifest: IndexManifest, name: BlobName) -> None:
        self.manifest = manifest
        self.name = name
        self.damage: list[Damage] = []
        self._vault = vault
        self._prefix = layout.domain_prefix(vault.keys.domain)
        self._shards: dict[int, IndexShard] = {}
        self._rows = {row.shard: row for row in manifest.shards}

    def full_name(self, row: ObjectRow | ShardRow) -> BlobName:
        """Return the whole name of what a row is about."""
        return BlobName(self._prefix + row.name)

    def objects(self) -> dict[BlobName, ObjectRow]:
        """Return the objects that the generation knows."""
        return {self.full_name(row): row for row in self.manifest.objects}

    async def find(self, ids: Iterable[bytes]) -> dict[bytes, BlobName]:
        """Return an object that holds a chunk, for those that are known."""
        by_shard: dict[int, list[bytes]] = {}
        for chunk in ids:
            by_shard.setdefault(shard_of(chunk, self.manifest.bits), []).append(chunk)
        found: dict[bytes, BlobName] = {}
        for number, wanted in by_shard.items():
            shard = await self._shard(number)
            if shard is None:
                continue
            for chunk in wanted:
                place = shard.find(chunk)
                if place is not None and place < len(self.manifest.objects):
                    found[chunk] = self.full_name(self.manifest.objects[place])
        return found

    async def shards(self) -> AsyncIterator[IndexShard]:
        """Yield every shard, one at a time. Raises VaultDamaged, BlobNotFound."""
        for row in self.manifest.shards:
            yield await self.read(row)

    async def _shard(self, number: int) -> IndexShard | None:
        row = self._rows.get(number)
        if row is None:
            return None
        known = self._shards.get(number)
        if known is None:
            try:
                known = await self.read(row)
            except OBJECT_FAULTS as error:
                self.damage.append(Damage(self.full_name(row), str(error)))
                del self._rows[number]
                return None
            if len(self._shards) >= _SHARDS_KEPT:
                del self._shards[next(iter(self._shards))]
            self._shards[number] = known
        return known

    async def read(self, row: ShardRow) -> IndexShard:
        """Return one shard, authenticated. Raises VaultDamaged, BlobNotFound."""
        data = await self._vault.store.get(self.full_name(row))
        if envelope.signed_hash(data) != row.hash:
            raise VaultDamaged("an index shard is not the one that the manifest names")
        verify_key = _verify_key(self._vault, data)
        secret_for = self._vault.keys.secret_for
        shard = await in_thread(partial(decode_shard, data, verify_key, secret_for))
        if (shard.shard, shard.bits) != (row.shard, self.manifest.bits):
            raise VaultDamaged("an index shard stands in another's place")
        return shard


async def generations(vault: Vault) -> dict[int, list[BlobName]]:
    """Return the names below x/ by generation; the manifest, if it is there, is the last."""
    found: dict[int, list[BlobName]] = {}
    async for info in vault.store.scan(layout.index_prefix(vault.keys.domain)):
        parsed = layout.parse_index_name(info.name)
        if parsed is not None:
            found.setdefault(parsed.generation, []).append(info.name)
    return found


async def newest_index(vault: Vault, damage: list[Damage]) -> IndexGeneration | None:
    """Return the newest generation whose manifest is good; what is wrong goes to `damage`."""
    known = await generations(vault)
    for generation in sorted(known, reverse=True):
        name = BlobName(layout.index_manifest_name(vault.keys.domain, generation))
        if name not in known[generation]:
            continue  # never completed
        try:
            return IndexGeneration(vault, await read_manifest(vault, name), name)
        except OBJECT_FAULTS as error:
            damage.append(Damage(name, str(error)))
    return None


async def read_manifest(vault: Vault, name: BlobName) -> IndexManifest:
    """Return an authenticated manifest. Raises VaultDamaged, BlobNotFound."""
    data = await vault.store.get(name)
    verify_key, secret_for = _verify_key(vault, data), vault.keys.secret_for
    manifest = await in_thread(partial(decode_manifest, data, verify_key, secret_for))
    if layout.parse_index_name(name) != (manifest.generation, None):
        raise VaultDamaged("an index manifest stands under another's name")
    return manifest


def _verify_key(vault: Vault, data: Buffer) -> WriterKeys:
    header = envelope.parse(data, Kind.INDEX).header
    verify_key = vault.verify_keys.get(WriterId(header.w))
    if verify_key is None or (header.v, header.d) != (vault.keys.vault, vault.keys.domain):
        raise VaultDamaged("an index is not of a writer of this domain")
    return verify_key
