"""A host in a few lines: real catalog, journal and vault, and files that are only in memory.

    host = SmallHost(tmp_path)
    at_us = await host.capture("web", {b"a": b"content"})      # the whole source, as it is now

Small content goes inline into the segment, content of `PACKED` bytes and more into a pack, and long
files get chunk lists, all through the catalog's chunk index, as in the pipeline.
"""

import copy
import shutil
from pathlib import Path

import msgspec
from vaultbuilder import ManualClock, documents_of, version_of

from streamd.catalog import objects
from streamd.catalog.db import FILE_NAME, Catalog
from streamd.catalog.journal import next_fid_floor
from streamd.catalog.lookup import TreeLookup
from streamd.catalog.objects import ObjectState
from streamd.catalog.tree import Intent, load_source
from streamd.effects import SystemEntropy
from streamd.format import chunklist, crypto
from streamd.format.codec import Codec
from streamd.format.crypto import Kem
from streamd.format.frame import SealedBatch
from streamd.format.keys import KeyChain, Role
from streamd.maintenance.site import Site
from streamd.model.entry import ContentRun, EntryType, SourceInfo
from streamd.model.host import HostStat
from streamd.model.ids import WriterId
from streamd.model.record import Mark
from streamd.pipeline.commit import CommitResult, Entry, Journal, SourceIdentity
from streamd.pipeline.findings import Ready
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import Vault, new_host_key
from streamd.vault.writer import VaultWriter

CHUNK = 1000
PACKED = 3000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ROOT = b"/srv"


class SmallHost:
    """One host, one vault in memory."""

    def __init__(self, directory: Path, *, store=None, remote=False) -> None:
        self.clock = ManualClock()
        self.directory = directory
        self.store = store or MemoryBlobStore(self.clock)
        self.key = new_host_key(Kem.X25519, SystemEntropy())
        self.put_state = ObjectState.LOCAL if remote else ObjectState.VAULT
        self.open()

    def open(self, store=None) -> None:
        """Start the process; what the catalog in `directory` remembers is all that it knows."""
        keys = KeyChain(self.key)
        verify = {WriterId(self.key.writer): crypto.verify_key_of(self.key.signing_key)}
        self.vault = Vault(store or self.store, keys, documents_of(self.key)[0], verify)
        self.catalog = Catalog(str(self.directory))
        self.writer = VaultWriter(self.vault, self.clock, SystemEntropy())
        has_remote = self.put_state is ObjectState.LOCAL
        self.journal = Journal(self.writer, self.clock, has_remote=has_remote)
        self.next_fid = self.catalog.write_now(next_fid_floor)
        self.site = Site(
            vault=self.vault,
            catalog=self.catalog,
            writer=self.writer,
            clock=self.clock,
            put_state=self.put_state,
        )

    async def reopen(self, store=None) -> None:
        """The process died; it starts again and puts what was sealed."""
        self.catalog.close()
        self.open(store)
        for row, data in await self.catalog.read(objects.unput):
            await self.vault.store.put(BlobName(row.name), data)
            await self.catalog.write(objects.mark_put, row.number, self.put_state)

    def fork(self, directory: Path) -> "SmallHost":
        """Return a copy of this host with everything it has; close this one's catalog first."""
        directory.mkdir()
        shutil.copy(self.directory / FILE_NAME, directory / FILE_NAME)
        other = copy.copy(self)
        other.clock = ManualClock()
        other.clock.us = self.clock.us
        other.store = MemoryBlobStore(other.clock)
        other.store._blobs = dict(self.store._blobs)
        other.directory = directory
        other.open()
        return other

    def identity(self, source: str) -> SourceIdentity:
        source_id = self.vault.keys.domain_keys.source_id(source)
        return SourceIdentity(source, source_id, SourceInfo(source, (ROOT,)))

    # -- capture ---------------------------------------------------------------------------------

    async def seal(self, source: str, files: dict[bytes, bytes], *, mark: Mark | None = None):
        """Look chunks up, seal the new ones, put packs: everything but the commit."""
        chunk_id = self.vault.keys.domain_keys.chunk_id
        state = await self.catalog.write(load_source, source, self.identity(source).id)
        lookup = TreeLookup(self.catalog.open_reader(), state.number)
        ready = Ready()
        root = lookup.directory(-state.number, ROOT)
        root_fid = root[0] if root else self._fid()
        if not root:
            version = version_of(EntryType.DIRECTORY, mode=0o755)
            ready.intents.append(_intent(-state.number, ROOT, root_fid, version, fresh=True))
        known = lookup.children(root_fid)
        ready.gone = [(root_fid, name) for name in known if name not in files]
        data: dict[bytes, bytes] = {}
        pages: dict[bytes, bytes] = {}
        for name, content in files.items():
            pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
            runs = [ContentRun(chunk_id(piece), len(piece)) for piece in pieces]
            data.update(zip([run.id for run in runs], pieces, strict=True))
            levels, top, more = chunklist.paginate(runs, chunk_id)
            pages.update(more)
            version = version_of(EntryType.REGULAR, size=len(content), content=top, levels=levels)
            fid = known[name].fid if name in known else self._fid()
            ready.intents.append(_intent(root_fid, name, fid, version, fresh=name not in known))
        await self._seal_new(ready, data, Role.DATA, ready.inline_data)
        await self._seal_new(ready, pages, Role.META, ready.inline_meta)
        if mark is not None:
            ready.marks.append(mark)
        lookup._connection.close()
        return Entry(self.identity(source), ready)

    async def _seal_new(
        self, ready: Ready, chunks: dict[bytes, bytes], role: Role, inline: list[SealedBatch]
    ) -> None:
        found = await self.catalog.read(objects.find_chunks, list(chunks))
        ready.needs |= set(found.values())
        new = {chunk: body for chunk, body in chunks.items() if chunk not in found}
        if not new:
            return
        sealer = self.writer.sealer(role)
        items = list(new.items())
        for at in range(0, len(items), 4):
            group = items[at : at + 4]
            plain = b"".join(body for _, body in group)
            ids = b"".join(chunk for chunk, _ in group)
            sealer.seal(plain, ids, [len(body) for _, body in group], codec=Codec.RAW)
        batch = sealer.finish()
        if sum(map(len, new.values())) < PACKED:
            inline.append(batch)
            return
        encoded = self.writer.encode_pack([batch], role)
        await self.vault.store.put(BlobName(encoded.name), encoded.data)
        number = await self.catalog.write(self.journal.add_pack, encoded)
        ready.new_chunks[number] = list(new)
        ready.needs.add(number)

    async def commit(self, *entries: Entry) -> int:
        """Commit and put; returns the instant."""
        result = await self.catalog.write(self.journal.commit, list(entries))
        await self.put_all(result)
        return result.at_us

    async def put_all(self, result: CommitResult) -> None:
        for put in result.puts:
            await self.vault.store.put(BlobName(put.object.name), put.object.data)
        await self.catalog.write(self.journal.mark_put, [put.number for put in result.puts])

    async def capture(
        self, source: str, files: dict[bytes, bytes], *, mark: Mark | None = None
    ) -> int:
        """The source holds these files now; returns the instant of the record."""
        return await self.commit(await self.seal(source, files, mark=mark))

    async def finish_epoch(self) -> None:
        """Stop in good order: the epoch is sealed."""
        await self.put_all(await self.catalog.write(self.journal.seal))

    def _fid(self) -> int:
        self.next_fid += 1
        return self.next_fid

    # -- looking ---------------------------------------------------------------------------------

    async def files_at(self, source: str, at_us: int, store=None) -> dict[bytes, bytes]:
        """Restore: every file's name and content at an instant."""
        vault = self.vault if store is None else _on(self.vault, store)
        reader = StateReader(vault)
        found = {}
        with await reader.state_at(source, at_us) as state:
            assert not state.damage, state.damage
            for entry in state.walk():
                if entry.version is not None and entry.dirent.type == EntryType.REGULAR:
                    parts = [part async for part in reader.chunks.content(entry.version)]
                    found[entry.path.removeprefix(ROOT + b"/")] = b"".join(map(bytes, parts))
        return found

    async def size_bytes(self) -> int:
        return sum([info.size_bytes async for info in self.store.scan("d/")])

    async def names(self) -> list[str]:
        return [info.name async for info in self.store.scan("d/")]


def _on(vault: Vault, store) -> Vault:
    return Vault(store, vault.keys, vault.config, vault.verify_keys)


def _intent(parent: int, name: bytes, fid: int, version, *, fresh: bool) -> Intent:
    stat = HostStat(
        version.type, version.mode, 0, 0, version.size, version.mtime_ns, 0, 1, fid, 1, 0
    )
    encoded = msgspec.msgpack.encode(version)
    return Intent(parent, name, fid, stat, encoded, again=False, is_fresh=fresh)
