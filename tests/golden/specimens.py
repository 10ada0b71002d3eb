"""One specimen of every kind of object, and the reader that says all that is in it.

They are the valid vectors, and what the hostile tests break.
"""

from functools import cache
from typing import Any, NamedTuple

import msgspec
from golden import keyring
from golden.materials import (
    ADMIN,
    ADMIN_KEY,
    ADMIN_PUBLIC,
    CREATED_US,
    DOMAIN,
    KEK,
    SIGNER,
    VAULT,
    WRITER,
    WRITER_PUBLIC,
    CountedEntropy,
    chunk_ids,
    fixed,
    host_key,
    sealed_batch,
)
from golden.readers import CHAIN, CURVE, DATA, META, OTHER, PACKS, READERS, SOURCE, as_json

from streamd.format import chunklist, envelope, keys, layout, ring, state_sum
from streamd.format.checkpoint import (
    CheckpointRoot,
    JournalMark,
    PageRow,
    encode_checkpoint,
    encode_page,
    merkle_of,
    split_pages,
)
from streamd.format.codec import Codec
from streamd.format.control import (
    Condemned,
    EpochRecord,
    Finalised,
    encode_condemned,
    encode_epoch,
    encode_finalised,
)
from streamd.format.frame import SealedBatch, SealedFrame
from streamd.format.history_run import (
    Cover,
    HistoryRoot,
    HistoryRow,
    encode_run,
)
from streamd.format.index_run import (
    IndexManifest,
    IndexShard,
    ObjectRow,
    ShardRow,
    encode_manifest,
    encode_shard,
)
from streamd.format.keys import Role
from streamd.format.layout import JournalPosition
from streamd.format.pack import (
    EncodedObject,
    encode_pack,
)
from streamd.format.ring import RingContent
from streamd.format.segment import FIRST_PREVIOUS, SegmentDraft, encode_segment
from streamd.format.vault_config import (
    Certificate,
    Features,
    Suite,
    VaultConfig,
    encode_signed,
)
from streamd.model.entry import ContentRun, Dirent, EntryType, FileVersion, SourceInfo, VersionFlag
from streamd.model.ids import ROOT_FID, Fid, to_text
from streamd.model.record import (
    NO_SOURCE,
    SOURCE_KEY,
    Gap,
    Mark,
    Op,
    Record,
    StateSum,
    dirent_key,
    version_key,
)

__all__ = ["CHAIN", "CURVE", "DATA", "META", "OTHER", "PACKS", "READERS", "SOURCE", "as_json"]


class Specimen(NamedTuple):
    """An object as it stands in a vault, and the reader (a key of `READERS`) for it."""

    file: str
    reader: str
    name: str
    data: bytes


# -- writing -------------------------------------------------------------------------------------


def _data_batch() -> SealedBatch:
    text = b"streamd vector, " * 20
    return sealed_batch(
        DATA,
        fixed("origin 1", 16),
        [
            (Codec.RAW, [b"raw chunk"]),
            (Codec.LZ4, [text]),
            (Codec.ZSTD, [text[1:]]),
            (Codec.ZSTD, [b"small " * 5, b"files " * 6, b"share " * 7, b""]),
        ],
        CHAIN,
    )


def _moved(batch: SealedBatch, ordinals: list[int]) -> SealedBatch:
    frames = [batch.frames[i] for i in ordinals]
    return SealedBatch(
        batch.origin,
        [SealedFrame(f.ordinal, f.codec, f.plain_size, f.ids, f.sizes, f.data) for f in frames],
    )


def _pack_of(batches: list[SealedBatch], role: Role, label: str) -> EncodedObject:
    return encode_pack(
        batches, role=role, keys=CHAIN, now_us=CREATED_US, entropy=CountedEntropy(label)
    )


def version(content: tuple[ContentRun, ...], **change: Any) -> FileVersion:
    """Return a file version with every field in use."""
    fields: dict[str, Any] = {
        "type": EntryType.REGULAR,
        "mode": 0o640,
        "uid": 1000,
        "gid": 1000,
        "user": b"ada",
        "group": b"users",
        "mtime_ns": -1,
        "ctime_ns": 1_767_225_600_123_456_789,
        "btime_ns": 0,
        "size": sum(run.size for run in content),
        "nlink": 1,
        "rdev": 0,
        "target": b"",
        "xattrs": ((b"user.note", b"\x00\xff"),),
        "profile": 1,
        "levels": 0,
        "content": content,
        "fhash": b"",
        "flags": VersionFlag.SPARSE,
    }
    return FileVersion(**(fields | change))


def _records() -> list[Record]:
    encode = msgspec.msgpack.encode
    home, note = Fid((1 << 40) + 1), Fid((1 << 40) + 2)
    raw_id = CHAIN.domain_keys.chunk_id(b"raw chunk")
    content = (ContentRun(raw_id, 9), ContentRun(None, 4096))
    folder = version((), type=EntryType.DIRECTORY, mode=0o755, xattrs=(), flags=0, profile=0)
    rows: list[tuple[int, int, bytes, bytes]] = [
        (Op.SET, 0, SOURCE_KEY, encode(SourceInfo("home", (b"/home",)))),
        (Op.SET, 0, dirent_key(ROOT_FID, b"/home"), encode(Dirent(home, EntryType.DIRECTORY))),
        (Op.SET, 0, version_key(home), encode(folder)),
        (Op.SET, 0, dirent_key(home, b"n\xf6te"), encode(Dirent(note, EntryType.REGULAR))),
        (Op.SET, 0, version_key(note), encode(version(content))),
        (Op.DEL, 0, dirent_key(home, b"gone"), b""),
        (Op.MARK, 0, b"", encode(Mark("before upgrade", "application", 7))),
        (Op.GAP, 0, b"", encode(Gap(CREATED_US - 5, CREATED_US, "start", b"/home"))),
        (Op.CKPT, 0, b"d/x/c/y/z", b""),
        (Op.STATE, 0, b"", encode(StateSum(bytes(range(32)), 5))),
        (Op.ACK, NO_SOURCE, b"", (3).to_bytes(8, "big")),
        (Op.NOTE, NO_SOURCE, b"", b"any"),
        (Op.SEAL, NO_SOURCE, b"", b"stop"),
    ]
    return [Record(op, i * i, ix, key, value) for i, (op, ix, key, value) in enumerate(rows)]


def _segment_of(seq: int, previous: bytes, label: str, **more: Any) -> EncodedObject:
    records = _records()
    draft = SegmentDraft(
        position=JournalPosition(1, seq),
        previous=previous,
        start_us=CREATED_US,
        end_us=CREATED_US + records[-1].dt_us,
        sources=(SOURCE,),
        records=records,
        **more,
    )
    return encode_segment(
        draft, keys=CHAIN, meta=META, signer=SIGNER, entropy=CountedEntropy(label)
    )


@cache
def checkpoint_pages() -> list[list[tuple[bytes, bytes]]]:
    """Return the three pages of the checkpoint specimen."""
    value = msgspec.msgpack.encode(Dirent(2, EntryType.REGULAR))
    rows = [(dirent_key(ROOT_FID, b"%05d" % i), value) for i in range(5000)]
    return list(split_pages(rows))[:3]


def long_list() -> list[ContentRun]:
    """Return a content list that needs one level of pages."""
    return [ContentRun(None if i % 7 == 0 else fixed(f"run {i}"), 65_536 + i) for i in range(1500)]


def _checkpoint() -> tuple[EncodedObject, EncodedObject]:
    bodies = [encode_page(page) for page in checkpoint_pages()]
    bodies += chunklist.paginate(long_list(), CHAIN.domain_keys.chunk_id)[2].values()
    frames = [(Codec.ZSTD, [body]) for body in bodies]
    pack = _pack_of([sealed_batch(META, fixed("origin m", 16), frames, CHAIN)], Role.META, "pages")
    pages = tuple(
        PageRow(page[0][0], CHAIN.domain_keys.chunk_id(encode_page(page)), len(page))
        for page in checkpoint_pages()
    )
    rows = [row for page in checkpoint_pages() for row in page]
    root = CheckpointRoot(
        source=SOURCE,
        at_us=CREATED_US + 144,
        marks=(JournalMark(WRITER, 1, 1, fixed("last segment")),),
        state=StateSum(state_sum.to_bytes(sum(state_sum.term(k, v) for k, v in rows)), len(rows)),
        merkle=merkle_of(page.id for page in pages),
        pages=pages,
    )
    entropy = CountedEntropy("checkpoint")
    return pack, encode_checkpoint(root, keys=CHAIN, meta=META, signer=SIGNER, entropy=entropy)


def _documents() -> tuple[bytes, bytes]:
    vault, domain, writer = to_text(VAULT), to_text(DOMAIN), to_text(WRITER)
    config = VaultConfig(
        format="streamd-vault",
        major=1,
        id=vault,
        created="2026-01-01T00:00:00Z",
        number=0,
        suite=Suite(),
        features=Features(),
        domains={domain: (writer,)},
        admin_public=ADMIN_PUBLIC.hex(),
        specification="docs/format.md",
    )
    certificate = Certificate(
        vault=vault,
        domain=domain,
        writer=writer,
        number=0,
        public=WRITER_PUBLIC.hex(),
        host="vector.example",
        created="2026-01-01T00:00:00Z",
    )
    return encode_signed(config, ADMIN_KEY), encode_signed(certificate, ADMIN_KEY)


def index_generation(names: list[str]) -> tuple[EncodedObject, EncodedObject]:
    """Return a shard and the manifest of generation 7: two chunks, in two objects."""
    ids = sorted(chunk_ids(CHAIN, [chunk]) for chunk in (b"raw chunk", b"second"))
    shard = IndexShard(0, 0, b"".join(ids), (1).to_bytes(4, "little") + bytes(4))
    made = encode_shard(
        shard,
        7,
        keys=CHAIN,
        now_us=CREATED_US,
        signer=SIGNER,
        entropy=CountedEntropy("index shard"),
    )
    prefix = layout.domain_prefix(DOMAIN)
    pack_name, segment_name = (name.removeprefix(prefix) for name in names)
    row = ShardRow(0, made.name.removeprefix(prefix), 2, envelope.signed_hash(made.data))
    objects = (
        ObjectRow(pack_name, 4096, CREATED_US, fixed("md5", 16), 1),
        ObjectRow(segment_name, 2048, 0, b"", 1, CREATED_US, CREATED_US + 144, (0,)),
    )
    manifest = encode_manifest(
        IndexManifest(7, 0, 3, (SOURCE,), (row,), objects),
        keys=CHAIN,
        now_us=CREATED_US,
        signer=SIGNER,
        entropy=CountedEntropy("index manifest"),
    )
    return made, manifest


def history_rows() -> list[HistoryRow]:
    """Return the rows of the history specimen: two pages, because one value is long."""
    notes = (Op.SET, Op.DEL, Op.MARK, Op.GAP)
    rows = [
        HistoryRow(record.key, number, CREATED_US + record.dt_us, int(record.op), record.value)
        for number, record in enumerate(each for each in _records() if each.op in notes)
    ]
    rows.append(HistoryRow(b"f" + bytes(8), 99, CREATED_US + 144, int(Op.SET), bytes(262_144)))
    return sorted(rows, key=lambda row: (row.key, row.number))


def history_root(last_hash: bytes) -> HistoryRoot:
    """Return the root of the history specimen, without its pages."""
    cover = Cover(WRITER, 1, 0, 1, 1, last_hash)
    return HistoryRoot(SOURCE, 1, CREATED_US, CREATED_US + 144, cover, ())


@cache
def specimens() -> dict[str, Specimen]:
    """Build every specimen, by file name."""
    batch, found = _data_batch(), []

    def add(file: str, reader: str, name: str, data: bytes | bytearray) -> None:
        found.append(Specimen(file, reader, name, bytes(data)))

    one = _pack_of([batch], Role.DATA, "pack 1")
    add("pack-codecs.bin", "pack", one.name, one.data)
    curve = sealed_batch(CURVE, fixed("origin 3", 16), [(Codec.RAW, [b"x25519"])], CHAIN)
    second = sealed_batch(OTHER, fixed("origin 2", 16), [(Codec.LZ4, [b"second " * 20])], CHAIN)
    two = _pack_of([second, _moved(batch, [2, 0]), curve], Role.DATA, "pack 2")
    add("pack-three-origins.bin", "pack", two.name, two.data)
    pages, root = _checkpoint()
    add("pack-pages.bin", "pack", pages.name, pages.data)
    add("checkpoint.bin", "checkpoint", root.name, root.data)
    for index, page in enumerate(checkpoint_pages()):
        add(f"checkpoint-page-{index}.bin", "checkpoint-page", "", encode_page(page))
    tree = chunklist.paginate(long_list(), CHAIN.domain_keys.chunk_id)[2]
    add("chunk-list-page.bin", "chunk-list-page", "", next(iter(tree.values())))
    first = _segment_of(0, FIRST_PREVIOUS, "segment 0")
    add("segment-plain.bin", "segment", first.name, first.data)
    meta = sealed_batch(META, fixed("origin i", 16), [(Codec.ZSTD, [b"meta " * 30])], CHAIN)
    inline = _segment_of(
        1, envelope.signed_hash(first.data), "segment 1", data=[second, batch], meta=[meta], ack=3
    )
    add("segment-inline.bin", "segment", inline.name, inline.data)
    for number, record in enumerate(
        (
            EpochRecord(epoch=1, created_us=CREATED_US, reason="init"),
            EpochRecord(
                epoch=2,
                created_us=CREATED_US + 1000,
                reason="start",
                previous_hash=envelope.signed_hash(inline.data),
                previous_seq=1,
            ),
        )
    ):
        epoch = encode_epoch(record, keys=CHAIN, signer=SIGNER, entropy=CountedEntropy())
        add(f"epoch-{number + 1}.bin", "epoch", epoch.name, epoch.data)
    shard, index = index_generation([one.name, inline.name])
    add("index-shard.bin", "index-shard", shard.name, shard.data)
    add("index-manifest.bin", "index-manifest", index.name, index.data)
    history = encode_run(
        history_root(envelope.signed_hash(inline.data)),
        history_rows(),
        keys=CHAIN,
        meta=META,
        signer=SIGNER,
        entropy=CountedEntropy("history"),
    )
    add("history.bin", "history", history.name, history.data)
    marks = (JournalMark(WRITER, 1, 1, envelope.signed_hash(inline.data)),)
    condemned = encode_condemned(
        Condemned(3, marks, (one.name, first.name)),
        keys=CHAIN,
        now_us=CREATED_US,
        signer=SIGNER,
        entropy=CountedEntropy("condemned"),
    )
    add("condemn.bin", "condemn", condemned.name, condemned.data)
    final = encode_finalised(
        Finalised(3, (one.name,), (first.name,)),
        keys=CHAIN,
        now_us=CREATED_US,
        signer=SIGNER,
        entropy=CountedEntropy("final"),
    )
    add("final.bin", "final", final.name, final.data)
    host = host_key()
    assert host.private is not None
    sealed = ring.encode_ring(
        RingContent(private=host.private, public=host.public),
        KEK,
        vault=VAULT,
        now_us=CREATED_US,
        signer=ADMIN,
        entropy=CountedEntropy("ring"),
    )
    add("ring.bin", "ring", sealed.name, sealed.data)
    add("slot.json", "slot", *keyring.old_slot())
    config, certificate = _documents()
    add("config.json", "config", layout.config_name(0), config)
    add("certificate.json", "certificate", layout.certificate_name(WRITER, 0), certificate)
    add("host-key-full.json", "host-key", "", keys.encode_host_key(host))
    add("host-key-write-only.json", "host-key", "", keys.encode_host_key(host_key(full=False)))
    for each in keyring.key_specimens():
        add(*each)
    return {each.file: each for each in found}
