"""What maintenance works on, and how it puts objects into the vault.

A pack is put and then registered: one that nobody registered is an orphan and is collected. All
other objects are registered together with their bytes and then put, so that an object that is in
the vault is always in the catalog, and therefore reaches the vault of record.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.effects import Clock
from streamd.format.envelope import Kind
from streamd.format.pack import EncodedObject
from streamd.storage.port import BlobName
from streamd.vault.vault import Vault
from streamd.vault.writer import VaultWriter

_POLL_SECONDS: Final = 0.2
_OURS: Final = (Kind.CHECKPOINT, Kind.HISTORY, Kind.INDEX, Kind.CONDEMN, Kind.FINAL)


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """An open vault, this host's catalog, and the means to write.

    `put_state` is how far an object has come when it is in `vault.store`: LOCAL if it still has to
    be uploaded, else VAULT. One task at a time does maintenance on a site.
    """

    vault: Vault
    catalog: Catalog
    writer: VaultWriter
    clock: Clock
    put_state: ObjectState

    async def publish_pack(self, pack: EncodedObject, chunks: Iterable[bytes] = ()) -> int:
        """Put a pack, then register it and the chunks that it is now the place of."""
        await self.vault.store.put(BlobName(pack.name), pack.data)
        return await self.catalog.write(self._register_pack, pack, list(chunks))

    def _register_pack(
        self, connection: sqlite3.Connection, pack: EncodedObject, chunks: list[bytes]
    ) -> int:
        number = objects.add(
            connection,
            name=pack.name,
            kind=Kind.PACK,
            size=len(pack.data),
            now_us=self.clock.now_us(),
            state=self.put_state,
        )
        objects.add_chunks(connection, number, chunks)
        return number

    async def publish(self, kind: Kind, encoded: EncodedObject, needs: Sequence[int] = ()) -> int:
        """Register an object that is no pack with its bytes, then put it."""
        number = await self.catalog.write(self._register, kind, encoded, needs)
        await self.vault.store.put(BlobName(encoded.name), encoded.data)
        await self.catalog.write(objects.mark_put, number, self.put_state)
        return number

    def _register(
        self,
        connection: sqlite3.Connection,
        kind: Kind,
        encoded: EncodedObject,
        needs: Sequence[int],
    ) -> int:
        return objects.add(
            connection,
            name=encoded.name,
            kind=kind,
            size=len(encoded.data),
            now_us=self.clock.now_us(),
            state=ObjectState.UNPUT,
            needs=needs,
            data=bytes(encoded.data),
        )

    async def are_durable(self, numbers: Sequence[int], *, patience_seconds: float) -> bool:
        """Wait a while for objects to arrive in the vault of record; say whether they did."""
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + patience_seconds
        while await self.catalog.read(objects.unfinished_among, numbers):
            if loop.time() >= patience_ends:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def finish_puts(self) -> None:
        """Put again what an interrupted run had registered: the same bytes, in the same order."""
        for row, data in await self.catalog.read(objects.unput):
            if row.kind in _OURS:
                await self.vault.store.put(BlobName(row.name), data)
                await self.catalog.write(objects.mark_put, row.number, self.put_state)
