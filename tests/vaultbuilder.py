"""Build a vault from a description, without the capture pipeline: for tests of everything that reads.

    builder = VaultBuilder()
    web = builder.source("web", b"/srv/www")
    web.directory(b"/srv/www")
    web.file(b"/srv/www/index.html", b"<p>hello", mtime_ns=5)
    await builder.commit()                  # one segment, content inline
    web.delete(b"/srv/www/index.html")
    await builder.commit(packed=True)       # content of this commit goes to a pack
    await web.checkpoint()

Time stands still until `tick`; every commit takes one tick by itself.
"""

from dataclasses import dataclass, field

import msgspec

from streamd.effects import SystemEntropy
from streamd.format import checkpoint, chunklist, crypto, envelope, layout
from streamd.format.checkpoint import CheckpointRoot, JournalMark, PageRow
from streamd.format.codec import Codec
from streamd.format.control import EpochRecord
from streamd.format.crypto import Kem
from streamd.format.envelope import MAJOR
from streamd.format.frame import SealedBatch
from streamd.format.keys import HostKey, KeyChain, Role
from streamd.format.layout import JournalPosition
from streamd.format.segment import FIRST_PREVIOUS, SegmentDraft
from streamd.format.state_sum import term, to_bytes
from streamd.format.vault_config import (
    FORMAT,
    Certificate,
    Features,
    Suite,
    VaultConfig,
    encode_signed,
)
from streamd.model.entry import ContentRun, Dirent, EntryType, FileVersion, SourceInfo, VersionFlag
from streamd.model.ids import ROOT_FID, SourceId, WriterId, to_text
from streamd.model.record import (
    SOURCE_KEY,
    Gap,
    Mark,
    Op,
    Record,
    StateSum,
    dirent_key,
    version_key,
)
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.documents import utc_text
from streamd.vault.vault import Vault, new_host_key
from streamd.vault.writer import VaultWriter

START_US = 1_760_000_000_000_000
TICK_US = 1_000_000
CHUNK = 64 * 1024
encode = msgspec.msgpack.encode


class ManualClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.us = START_US

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


@dataclass
class Content:
    """Chunks that wait to be written."""

    chunks: dict[bytes, bytes] = field(default_factory=dict)


class VaultBuilder:
    """Writes like one host."""

    def __init__(
        self, store: BlobStore | None = None, host_key: HostKey | None = None, *, chunk=CHUNK
    ) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryBlobStore(self.clock)
        self.host_key = host_key or new_host_key(Kem.X25519, SystemEntropy())
        self.keys = KeyChain(self.host_key)
        self.writer_id = WriterId(self.host_key.writer)
        verify = {self.writer_id: crypto.verify_key_of(self.host_key.signing_key)}
        self.config, self.certificate = documents_of(self.host_key)
        self.vault = Vault(self.store, self.keys, self.config, verify)
        self.writer = VaultWriter(self.vault, self.clock, SystemEntropy())
        self.chunk = chunk
        self.sources: list[SourceBuilder] = []
        self.position = JournalPosition(1, 0)
        self.previous = FIRST_PREVIOUS
        self.last: JournalMark | None = None
        self.records: list[tuple[int, SourceBuilder, Op, bytes, bytes]] = []
        self.data: dict[bytes, bytes] = {}
        self.meta: dict[bytes, bytes] = {}
        self.known: set[bytes] = set()
        self.names: list[str] = []

    async def install(self) -> None:
        """Put configuration and certificate, so that `open_vault` finds the vault."""
        admin = self.host_key.private.admin
        await self.put(
            layout.certificate_name(self.writer_id, 0), encode_signed(self.certificate, admin)
        )
        await self.put(layout.config_name(0), encode_signed(self.config, admin))

    async def put(self, name: str, data: bytes) -> str:
        await self.store.put(BlobName(name), data)
        self.names.append(name)
        return name

    def tick(self, us: int = TICK_US) -> int:
        """Let time pass; return the new time."""
        self.clock.us += us
        return self.clock.us

    def source(self, name: str, *paths: bytes) -> "SourceBuilder":
        built = SourceBuilder(self, name, paths)
        self.sources.append(built)
        return built

    def add(self, source: "SourceBuilder", op: Op, key: bytes, value: bytes) -> None:
        self.records.append((self.clock.us, source, op, key, value))

    def store_content(self, content: bytes, *, chunk: int | None = None) -> list[ContentRun]:
        """Remember content for the next commit; return its runs."""
        step, runs = chunk or self.chunk, []
        for start in range(0, len(content), step):
            piece = content[start : start + step]
            chunk_id = self.keys.domain_keys.chunk_id(piece)
            if chunk_id not in self.known:
                self.data[chunk_id] = piece
                self.known.add(chunk_id)
            runs.append(ContentRun(chunk_id, len(piece)))
        return runs

    def seal(
        self, role: Role, chunks: dict[bytes, bytes], frame_bytes: int = 256 * 1024
    ) -> list[SealedBatch]:
        """Seal chunks, several in a frame."""
        if not chunks:
            return []
        sealer = self.writer.sealer(role)
        group: list[bytes] = []
        size = 0

        def flush() -> None:
            nonlocal group, size
            if group:
                plain = b"".join(chunks[each] for each in group)
                sizes = [len(chunks[each]) for each in group]
                sealer.seal(plain, b"".join(group), sizes, codec=Codec.ZSTD)
            group, size = [], 0

        for chunk_id, piece in chunks.items():
            if size + len(piece) > frame_bytes:
                flush()
            group.append(chunk_id)
            size += len(piece)
        flush()
        return [sealer.finish()]

    async def pack(
        self, role: Role, chunks: dict[bytes, bytes], *, pack_bytes: int = 16 << 20
    ) -> list[str]:
        """Put packs of these chunks; return their names."""
        names, part, size = [], {}, 0
        for chunk_id, piece in chunks.items():
            part[chunk_id] = piece
            size += len(piece)
            if size >= pack_bytes:
                names.append(await self._put_pack(role, part))
                part, size = {}, 0
        if part:
            names.append(await self._put_pack(role, part))
        return names

    async def _put_pack(self, role: Role, chunks: dict[bytes, bytes]) -> str:
        encoded = self.writer.encode_pack(self.seal(role, chunks), role)
        return await self.put(encoded.name, encoded.data)

    async def commit(self, *, packed: bool = False, sums: bool = True) -> str:
        """Put what has been recorded since the last commit as one segment; return its name."""
        self.tick()
        data, meta, self.data, self.meta = self.data, self.meta, {}, {}
        if packed:
            await self.pack(Role.DATA, data)
            await self.pack(Role.META, meta)
            data, meta = {}, {}
        if sums:
            for source in self.sources:
                if any(record[1] is source for record in self.records):
                    self.add(source, Op.STATE, b"", encode(source.state_sum()))
        sources = [source for source in self.sources if any(r[1] is source for r in self.records)]
        start = self.records[0][0]
        records = [
            Record(op, at - start, sources.index(source), key, value)
            for at, source, op, key, value in self.records
        ]
        encoded = self.writer.encode_segment(
            SegmentDraft(
                position=self.position,
                previous=self.previous,
                start_us=start,
                end_us=self.records[-1][0],
                sources=tuple(source.id for source in sources),
                records=records,
                data=self.seal(Role.DATA, data),
                meta=self.seal(Role.META, meta),
            )
        )
        await self.put(encoded.name, encoded.data)
        self.previous = envelope.signed_hash(encoded.data)
        self.last = JournalMark(self.writer_id, *self.position, self.previous)
        self.position = JournalPosition(self.position.epoch, self.position.seq + 1)
        self.records = []
        return encoded.name

    async def new_epoch(self, reason: str = "restart") -> str:
        """Begin a new epoch of the journal."""
        epoch = self.position.epoch + 1
        record = EpochRecord(
            epoch=epoch,
            created_us=self.tick(),
            reason=reason,
            previous_hash=self.previous,
            previous_seq=max(self.position.seq - 1, 0),
        )
        encoded = self.writer.encode_epoch(record)
        self.position = JournalPosition(epoch, 0)
        return await self.put(encoded.name, encoded.data)


class SourceBuilder:
    """One source: what is changed here is recorded, and part of the next commit."""

    def __init__(self, builder: VaultBuilder, name: str, paths: tuple[bytes, ...]) -> None:
        self.builder = builder
        self.name = name
        self.paths = paths
        self.id: SourceId = builder.keys.domain_keys.source_id(name)
        self.rows: dict[bytes, bytes] = {}
        self.fids: dict[bytes, int] = {b"": ROOT_FID}
        self.next_fid = (1 << 40) + 1
        self.set(SOURCE_KEY, encode(SourceInfo(name, paths)))

    def set(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value
        self.builder.add(self, Op.SET, key, value)

    def drop(self, key: bytes) -> None:
        self.rows.pop(key, None)
        self.builder.add(self, Op.DEL, key, b"")

    def state_sum(self) -> StateSum:
        total = sum(term(key, value) for key, value in self.rows.items())
        return StateSum(to_bytes(total), len(self.rows))

    def split(self, path: bytes) -> tuple[int, bytes]:
        if path in self.paths:
            return ROOT_FID, path
        parent, _, name = path.rpartition(b"/")
        return self.fids[parent], name

    def entry(self, path: bytes, version: FileVersion, *, fid: int | None = None) -> int:
        """Record an entry with its version."""
        parent, name = self.split(path)
        if fid is None:
            fid = self.fids.get(path) or self.next_fid
            self.next_fid = max(self.next_fid, fid + 1)
        self.fids[path] = fid
        self.set(dirent_key(parent, name), encode(Dirent(fid, version.type)))
        self.set(version_key(fid), encode(version))
        return fid

    def directory(self, path: bytes, **fields) -> int:
        return self.entry(
            path, version_of(EntryType.DIRECTORY, mode=fields.pop("mode", 0o755), **fields)
        )

    def file(self, path: bytes, content: bytes = b"", *, chunk: int | None = None, **fields) -> int:
        return self.runs_file(path, self.builder.store_content(content, chunk=chunk), **fields)

    def runs_file(self, path: bytes, runs: list[ContentRun], **fields) -> int:
        """Record a regular file of given runs; long lists become chunk-list pages."""
        levels, top, pages = chunklist.paginate(runs, self.builder.keys.domain_keys.chunk_id)
        self.builder.meta.update(pages)
        fields.setdefault("size", sum(run.size for run in runs))
        if any(run.id is None for run in runs):
            fields.setdefault("flags", VersionFlag.SPARSE)
        return self.entry(path, version_of(EntryType.REGULAR, content=top, levels=levels, **fields))

    def symlink(self, path: bytes, target: bytes, **fields) -> int:
        return self.entry(path, version_of(EntryType.SYMLINK, mode=0o777, target=target, **fields))

    def link(self, path: bytes, other: bytes) -> None:
        """Give the file `other` another name."""
        fid = self.fids[other]
        parent, name = self.split(path)
        self.fids[path] = fid
        self.set(dirent_key(parent, name), self.rows[dirent_key(*self.split(other))])

    def delete(self, path: bytes) -> None:
        parent, name = self.split(path)
        fid = self.fids.pop(path)
        self.drop(dirent_key(parent, name))
        if fid not in self.fids.values():
            self.drop(version_key(fid))

    def gap(self, start_us: int, end_us: int, reason: str = "overflow") -> None:
        self.builder.add(self, Op.GAP, b"", encode(Gap(start_us, end_us, reason)))

    def mark(self, label: str) -> None:
        self.builder.add(self, Op.MARK, b"", encode(Mark(label)))

    async def checkpoint(self) -> str:
        """Put a checkpoint of the committed state; return its name."""
        builder = self.builder
        assert not builder.records, "commit first"
        assert builder.last is not None
        pages = {}
        rows = []
        for page in checkpoint.split_pages(sorted(self.rows.items())):
            body = checkpoint.encode_page(page)
            page_id = builder.keys.domain_keys.chunk_id(body)
            rows.append(PageRow(page[0][0], page_id, len(page)))
            pages[page_id] = body
        await builder.pack(Role.META, pages)
        root = CheckpointRoot(
            source=self.id,
            at_us=builder.clock.us,
            marks=(builder.last,),
            state=self.state_sum(),
            merkle=checkpoint.merkle_of(row.id for row in rows),
            pages=tuple(rows),
        )
        encoded = builder.writer.encode_checkpoint(root)
        return await builder.put(encoded.name, encoded.data)


def version_of(kind: EntryType, **fields) -> FileVersion:
    """Return a version with defaults for what is not given."""
    defaults = {
        "type": kind,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "user": b"root",
        "group": b"root",
        "mtime_ns": 1_700_000_000_123_456_789,
        "ctime_ns": 0,
        "btime_ns": 0,
        "size": 0,
        "nlink": 1,
        "rdev": 0,
        "target": b"",
        "xattrs": (),
        "profile": 1,
        "levels": 0,
        "content": (),
        "fhash": b"",
        "flags": 0,
    }
    return FileVersion(**(defaults | fields))


def documents_of(host: HostKey) -> tuple[VaultConfig, Certificate]:
    created = utc_text(START_US)
    writer, domain = to_text(host.writer), to_text(host.domain)
    config = VaultConfig(
        format=FORMAT,
        major=MAJOR,
        id=to_text(host.vault),
        created=created,
        number=0,
        suite=Suite(kem="x25519"),
        features=Features(),
        domains={domain: (writer,)},
        admin_public=host.public.admin.hex(),
        specification="docs/format.md",
    )
    certificate = Certificate(
        vault=to_text(host.vault),
        domain=domain,
        writer=writer,
        number=0,
        public=crypto.verify_key_of(host.signing_key).hex(),
        host="builder",
        created=created,
    )
    return config, certificate
