"""Condemn lists and final lists: what a deletion is written down in before it happens.

Generation n is `g/n` (what shall go) and `g/n.fin` (what goes). Nothing is deleted that no final
list names. Finished generations are removed, but for the newest, which keeps the count.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from streamd.catalog import objects
from streamd.catalog.db import get_int, put_value
from streamd.catalog.journal import load_head
from streamd.format import control, layout
from streamd.format.checkpoint import JournalMark
from streamd.format.control import Condemned, Finalised
from streamd.format.envelope import Kind
from streamd.maintenance.site import Site
from streamd.storage.port import BlobName
from streamd.vault.parallel import in_waves
from streamd.vault.vault import Vault

_FINISHED: Final = "collected_generation"  # in table meta: everything up to it was deleted
_WIDTH: Final = 8
IsDurable = Callable[[Sequence[int]], Awaitable[bool]]


class Generations:
    """The deletions of a domain, one at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._open = 0  # the generation under way
        self._final: Finalised | None = None
        self._final_number = 0

    async def condemn(self, names: Sequence[BlobName]) -> None:
        """Publish a new condemn list."""
        listed = await self._list()
        self._open = max(listed, default=0) + 1
        head = await self._site.catalog.read(load_head)
        mark = JournalMark(
            self._site.vault.keys.writer, head.epoch, max(head.next_seq - 1, 0), head.hash
        )
        condemned = Condemned(self._open, (mark,), tuple(names))
        await self._site.publish(Kind.CONDEMN, self._site.writer.encode_condemned(condemned))

    async def finalise(self, delete: Sequence[str], cancel: Sequence[str]) -> None:
        """Publish the verdict over the condemn list."""
        self._final = Finalised(self._open, tuple(delete), tuple(cancel))
        encoded = self._site.writer.encode_finalised(self._final)
        self._final_number = await self._site.publish(Kind.FINAL, encoded)

    async def carry_out(self, is_durable: IsDurable) -> bool:
        """Delete what the final list says, once it is durable itself. False: not yet."""
        final = self._final
        assert final is not None, "finalise first"
        if self._final_number and not await is_durable([self._final_number]):
            return False
        await self._delete(final.delete)
        await self._site.catalog.write(put_value, _FINISHED, final.generation)
        await self._sweep(final.generation)
        return True

    async def _delete(self, names: Sequence[str]) -> None:
        """Delete in the order given; the journal strictly so, for what is left must be dense."""
        store, catalog = self._site.vault.store, self._site.catalog
        ordered = [name for name in names if layout.parse_segment_name(name) is not None]
        others = [BlobName(name) for name in names if layout.parse_segment_name(name) is None]
        roots = [name for name in others if layout.parse_checkpoint_name(name) is not None]
        rest = [name for name in others if layout.parse_checkpoint_name(name) is None]
        # Roots first: one whose segments are gone would look like damage. Packs last.
        await self._delete_all(roots)
        for name in ordered:
            await store.delete(BlobName(name))
        await self._delete_all(rest)
        await catalog.write(objects.forget, names)

    async def _delete_all(self, names: Sequence[BlobName]) -> None:
        async for _, failure in in_waves(names, self._site.vault.store.delete, width=_WIDTH):
            if isinstance(failure, Exception):
                raise failure

    async def _sweep(self, newest: int) -> None:
        """Remove the lists of generations before `newest`: they are finished."""
        domain, store = self._site.vault.keys.domain, self._site.vault.store
        for generation in sorted(await self._list()):
            if generation < newest:
                names = (
                    layout.condemn_name(domain, generation),
                    layout.final_name(domain, generation),
                )
                for name in names:
                    await store.delete(BlobName(name))
                await self._site.catalog.write(objects.forget, names)

    async def finish(self, is_durable: IsDurable) -> bool:
        """Bring what an interrupted run left to its end. False: not everything is durable yet."""
        finished = await self._site.catalog.read(get_int, _FINISHED)
        for generation, has_final in sorted((await self._list()).items()):
            if generation <= finished:
                continue
            self._open = generation
            if has_final:
                await self._load_final(generation)
            else:
                condemned = await self._load_condemned(generation)
                await self.finalise((), condemned.names)
            if not await self.carry_out(is_durable):
                return False
        return True

    async def _list(self) -> dict[int, bool]:
        """Return the generations there are, and whether each has its final list."""
        found: dict[int, bool] = {}
        prefix = layout.condemn_prefix(self._site.vault.keys.domain)
        async for info in self._site.vault.store.scan(prefix):
            parsed = layout.parse_condemn_name(info.name)
            if parsed is not None:
                found[parsed[0]] = found.get(parsed[0], False) or parsed[1]
        return found

    async def _load_final(self, generation: int) -> None:
        name = layout.final_name(self._site.vault.keys.domain, generation)
        self._final = await _read_final(self._site.vault, name)
        self._final_number = await self._site.catalog.read(_number_of, name)

    async def _load_condemned(self, generation: int) -> Condemned:
        vault = self._site.vault
        name = BlobName(layout.condemn_name(vault.keys.domain, generation))
        verify_key = vault.verify_keys[vault.keys.writer]
        return control.decode_condemned(
            await vault.store.get(name), verify_key, vault.keys.secret_for
        )


def _number_of(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT number FROM object WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


async def _read_final(vault: Vault, name: str) -> Finalised:
    verify_key = vault.verify_keys[vault.keys.writer]
    data = await vault.store.get(BlobName(name))
    return control.decode_finalised(data, verify_key, vault.keys.secret_for)


async def read_doomed(vault: Vault) -> set[str]:
    """Return the names in final lists: what is still there of them must not be built upon."""
    names: set[str] = set()
    async for info in vault.store.scan(layout.condemn_prefix(vault.keys.domain)):
        parsed = layout.parse_condemn_name(info.name)
        if parsed is not None and parsed[1]:
            names.update((await _read_final(vault, info.name)).delete)
    return names
