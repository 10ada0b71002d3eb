"""A catalog and a journal over a store in memory, without a pipeline."""

import msgspec
from vaultbuilder import VaultBuilder, version_of

from streamd.catalog.db import Catalog
from streamd.catalog.tree import Intent, load_source
from streamd.format.codec import Codec
from streamd.format.keys import Role
from streamd.format.segment import decode_segment
from streamd.model.entry import EntryType, SourceInfo
from streamd.model.host import HostStat
from streamd.pipeline.commit import Entry, Journal, SourceIdentity
from streamd.pipeline.findings import Ready
from streamd.storage.port import BlobName


class Host:
    """A catalog and a journal over a store in memory, without a pipeline."""

    def __init__(self, directory, *, remote: bool = False) -> None:
        self.builder = VaultBuilder()
        self.directory = str(directory)
        self.remote = remote
        self.next_fid = 1 << 40
        self.open()

    def open(self) -> None:
        self.catalog = Catalog(self.directory)
        self.journal = Journal(self.builder.writer, self.builder.clock, has_remote=self.remote)

    def reopen(self) -> None:
        self.catalog.close()
        self.open()

    def entry(self, ready: Ready, name: str = "web") -> Entry:
        source_id = self.builder.keys.domain_keys.source_id(name)
        return Entry(SourceIdentity(name, source_id, SourceInfo(name, (b"/r",))), ready)

    def number(self, name: str = "web") -> int:
        return self.catalog.write_now(load_source, name, self.entry(Ready(), name).source.id).number

    def intents(self, count: int, name: str = "web") -> list[Intent]:
        made = []
        for _ in range(count):
            self.next_fid += 1
            fid = self.next_fid
            stat = HostStat(EntryType.REGULAR, 0o644, 0, 0, 0, 1, 1, 1, fid, 1, 0)
            body = msgspec.msgpack.encode(version_of(EntryType.REGULAR))
            made.append(Intent(-self.number(name), b"%d" % fid, fid, stat, body, False, True))
        return made

    def commit(self, *readies: Ready):
        return self.catalog.write_now(self.journal.commit, [self.entry(each) for each in readies])

    async def put(self, result) -> None:
        for put in result.puts:
            await self.builder.store.put(BlobName(put.object.name), put.object.data)
        self.catalog.write_now(self.journal.mark_put, [put.number for put in result.puts])

    def records(self, put):
        keys = self.builder.keys
        segment = decode_segment(
            put.object.data, self.builder.vault.verify_keys[self.builder.writer_id]
        )
        return segment, segment.records(keys.secret_for)

    def sealed(self, *contents: bytes, role: Role = Role.DATA):
        chunk_id = self.builder.keys.domain_keys.chunk_id
        sealer = self.builder.writer.sealer(role)
        for content in contents:
            sealer.seal(content, chunk_id(content), [len(content)], codec=Codec.RAW)
        return sealer.finish()
