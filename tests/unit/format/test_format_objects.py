"""Packs, segments, checkpoints and control objects: they come back, and contradictions do not."""

import msgspec
import pytest
from golden.materials import (
    ADMIN_PUBLIC,
    CREATED_US,
    DOMAIN,
    IDENTITY,
    SIGNER,
    VAULT,
    WRITER,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    key_chain,
    recorded_session,
    sealed_batch,
)

from streamd.errors import KeyRejected, VaultDamaged
from streamd.format import checkpoint as checkpoint_module
from streamd.format import envelope, layout
from streamd.format import segment as segment_module
from streamd.format.checkpoint import (
    CheckpointRoot,
    JournalMark,
    PageRow,
    decode_checkpoint,
    encode_checkpoint,
    merkle_of,
)
from streamd.format.codec import Codec
from streamd.format.control import (
    Condemned,
    EpochRecord,
    Finalised,
    decode_condemned,
    decode_epoch,
    decode_finalised,
    encode_condemned,
    encode_epoch,
    encode_finalised,
)
from streamd.format.envelope import UNSEALED, Header, Kind, SectionDraft
from streamd.format.frame import FrameOpener, FrameTable, SealedBatch, SealedFrame, encode_table
from streamd.format.keys import KeySource, Role, index_source
from streamd.format.layout import JournalPosition
from streamd.format.pack import (
    PACK_STEP,
    FrameHolder,
    decode_pack_index,
    encode_pack,
    index_end,
    padded_pack_size,
    verify_pack_name,
)
from streamd.format.segment import (
    FIRST_PREVIOUS,
    Segment,
    SegmentDraft,
    decode_segment,
    encode_segment,
)
from streamd.model.ids import SourceId
from streamd.model.record import NO_SOURCE, Op, Record, StateSum

CHAIN = key_chain()
META = recorded_session("meta")
DATA = recorded_session("data")
OTHER = recorded_session("data-2")
SOURCE = SourceId(fixed("source", 16))
SALTS = [fixed(f"salt {i}", 16) for i in range(4)]
RECORDS = [Record(Op.SET, 0, 0, b"k", b"v"), Record(Op.SEAL, 9, NO_SOURCE, b"", b"stop")]


def batch(session=DATA, salt: bytes = SALTS[0], text: bytes = b"content ") -> SealedBatch:
    frames = [(Codec.ZSTD, [text * 9, text]), (Codec.RAW, [text * 2])]
    return sealed_batch(session, salt, frames, CHAIN)


def pack_of(*batches: SealedBatch) -> bytes:
    return bytes(
        encode_pack(
            batches, role=Role.DATA, keys=CHAIN, now_us=CREATED_US, entropy=CountedEntropy()
        ).data
    )


def frames_of(holder: FrameHolder, data: bytes) -> list[bytes]:
    """Open all frames of an object."""
    opener = FrameOpener(CHAIN.secret_for, CHAIN.domain_keys, IDENTITY)
    table = holder.table
    return [
        bytes(opener.open(table, row, holder.origins[row.origin], stored(holder, table, i, data)))
        for i, row in enumerate(table.frames)
    ]


def stored(holder: FrameHolder, table: FrameTable, index: int, data: bytes) -> bytes:
    row = table.frames[index]
    at = holder.frames_at + row.offset
    return data[at : at + row.stored_size]


def signed(kind: Kind, header: Header, *drafts: SectionDraft, secret: bytes = META.secret) -> bytes:
    """Build an object that only the holder of all keys can build, and contradictory if wanted."""
    return bytes(
        envelope.build(
            kind,
            header,
            drafts,
            secrets={0: secret},
            entropy=CountedEntropy(),
            signer=SIGNER,
        )
    )


# -- packs ---------------------------------------------------------------------------------------


def test_a_pack_is_named_by_its_bytes_and_gives_its_frames_back() -> None:
    encoded = encode_pack(
        [batch()], role=Role.DATA, keys=CHAIN, now_us=CREATED_US, entropy=CountedEntropy()
    )
    verify_pack_name(encoded.name, encoded.data)
    holder = decode_pack_index(encoded.data, CHAIN.secret_for)
    assert frames_of(holder, bytes(encoded.data)) == [b"content " * 10, b"content " * 2]
    assert holder.created_us == CREATED_US
    header = envelope.parse(encoded.data, Kind.PACK).header
    assert (header.v, header.d, header.w, header.r) == (VAULT, DOMAIN, WRITER, Role.DATA)


def test_a_packs_index_can_be_read_from_its_beginning() -> None:
    data = pack_of(batch())
    end = index_end(data)
    assert decode_pack_index(data[:end], CHAIN.secret_for) == decode_pack_index(
        data, CHAIN.secret_for
    )
    with pytest.raises(VaultDamaged):
        decode_pack_index(data[: end - 1], CHAIN.secret_for)


def test_a_write_only_host_reads_the_index_and_not_the_frames() -> None:
    data, chain = pack_of(batch()), key_chain(full=False)
    holder = decode_pack_index(data, chain.secret_for)
    assert holder.table.chunk_count == 3
    with pytest.raises(KeyRejected):
        chain.secret_for(holder.origins[0].source)


def test_a_pack_under_another_name_is_damage() -> None:
    data = pack_of(batch())
    for name in (layout.pack_name(DOMAIN, bytes(32)), "README.txt"):
        with pytest.raises(VaultDamaged, match="match its name"):
            verify_pack_name(name, data)


def test_batches_of_one_origin_share_a_row_and_origins_of_one_session_share_a_key() -> None:
    one = batch()
    moved = SealedBatch(one.origin, one.frames[:1])
    data = pack_of(moved, SealedBatch(one.origin, one.frames[1:]), batch(salt=SALTS[1]))
    header = envelope.parse(data, Kind.PACK).header
    assert [salt for _, salt in header.og] == SALTS[:2]
    assert header.ks == [index_source(DOMAIN), DATA.source]
    assert len(frames_of(decode_pack_index(data, CHAIN.secret_for), data)) == 4


def test_an_empty_pack_is_read_too() -> None:
    holder = decode_pack_index(pack_of(), CHAIN.secret_for)
    assert (holder.table.frames, holder.origins) == ([], ())


@pytest.mark.parametrize("size", [0, 1, 1000, PACK_STEP * 4 - 1, PACK_STEP * 4, 5_000_001])
def test_packs_come_in_few_sizes(size: int) -> None:
    padded = padded_pack_size(size)
    assert padded >= size
    if size >= PACK_STEP * 4:
        assert padded % PACK_STEP == 0
        assert padded - size < PACK_STEP
    else:
        assert padded == envelope.padme(size)


def index_header(**more: object) -> Header:
    fields = {"v": VAULT, "d": DOMAIN, "w": WRITER, "t": 1, "ks": [index_source(DOMAIN)]}
    return Header(**(fields | more))


def odd_pack(header: Header, *drafts: SectionDraft) -> bytes:
    return bytes(
        envelope.build(
            Kind.PACK,
            header,
            drafts,
            secrets={0: CHAIN.domain_keys.index_key},
            entropy=CountedEntropy(),
        )
    )


def test_a_pack_without_index_or_frames_is_damage() -> None:
    table = SectionDraft("i", (encode_table([]),), 0)
    with pytest.raises(VaultDamaged, match="no index"):
        index_end(odd_pack(index_header()))
    with pytest.raises(VaultDamaged, match="missing"):
        decode_pack_index(odd_pack(index_header(), table), CHAIN.secret_for)
    with pytest.raises(VaultDamaged, match="missing"):
        frames = SectionDraft("c", (b"",), UNSEALED)
        decode_pack_index(odd_pack(index_header(), frames), CHAIN.secret_for)


def test_frames_that_do_not_fill_their_section_are_damage() -> None:
    one = batch()
    table = SectionDraft("i", (encode_table([(0, one)]),), 0)
    frames = SectionDraft("c", (one.frames[0].data,), UNSEALED)
    header = index_header(ks=[index_source(DOMAIN), DATA.source], og=[(1, SALTS[0])])
    with pytest.raises(VaultDamaged, match="not what the index says"):
        decode_pack_index(odd_pack(header, table, frames), CHAIN.secret_for)


@pytest.mark.parametrize("row", [-1, 1, 2**40])
def test_an_origin_without_a_key_is_damage(row: int) -> None:
    drafts = (
        SectionDraft("i", (encode_table([]),), 0),
        SectionDraft("c", (b"",), UNSEALED),
    )
    with pytest.raises(VaultDamaged, match="names no key"):
        decode_pack_index(odd_pack(index_header(og=[(row, SALTS[0])]), *drafts), CHAIN.secret_for)


def test_a_pack_of_another_domain_is_refused() -> None:
    other = key_chain()
    other.domain_keys = type(other.domain_keys)(bytes(32), bytes(32), 0)
    with pytest.raises(VaultDamaged):
        decode_pack_index(pack_of(batch()), other.secret_for)


# -- segments ------------------------------------------------------------------------------------


def draft(**change: object) -> SegmentDraft:
    fields: dict[str, object] = {
        "position": JournalPosition(1, 2),
        "previous": FIRST_PREVIOUS,
        "start_us": CREATED_US,
        "end_us": CREATED_US + 9,
        "sources": (SOURCE,),
        "records": RECORDS,
        "ack": 3,
    }
    return SegmentDraft(**(fields | change))


def segment_of(**change: object) -> bytes:
    encoded = encode_segment(
        draft(**change), keys=CHAIN, meta=META, signer=SIGNER, entropy=CountedEntropy()
    )
    assert layout.parse_segment_name(encoded.name) == draft(**change).position
    return bytes(encoded.data)


def test_a_segment_comes_back() -> None:
    data = segment_of()
    segment = decode_segment(data, WRITER_PUBLIC)
    assert segment.records(CHAIN.secret_for) == RECORDS
    assert (segment.position, segment.previous) == (JournalPosition(1, 2), FIRST_PREVIOUS)
    assert (segment.start_us, segment.end_us) == (CREATED_US, CREATED_US + 9)
    assert (segment.sources, segment.ack) == ((SOURCE,), 3)
    assert segment.hash == envelope.signed_hash(data)
    assert segment.frames(Role.DATA, CHAIN.secret_for) is None
    assert segment.frames(Role.META, CHAIN.secret_for) is None


def test_a_segment_carries_frames_of_both_roles() -> None:
    data = segment_of(data=[batch()], meta=[batch(META, SALTS[2], b"page ")])
    segment = decode_segment(data, WRITER_PUBLIC)
    for role, text in ((Role.DATA, b"content "), (Role.META, b"page ")):
        holder = segment.frames(role, CHAIN.secret_for)
        assert holder is not None
        assert frames_of(holder, data) == [text * 10, text * 2]
    assert segment.records(CHAIN.secret_for) == RECORDS


def test_batches_without_frames_leave_no_trace() -> None:
    data = segment_of(data=[SealedBatch(batch().origin, [])])
    assert decode_segment(data, WRITER_PUBLIC).frames(Role.DATA, CHAIN.secret_for) is None


def test_a_write_only_host_reads_a_segments_index_and_not_its_records() -> None:
    segment = decode_segment(segment_of(data=[batch()]), WRITER_PUBLIC)
    chain = key_chain(full=False)
    holder = segment.frames(Role.DATA, chain.secret_for)
    assert holder is not None
    assert holder.table.chunk_count == 3
    with pytest.raises(KeyRejected):
        segment.records(chain.secret_for)


def test_a_segment_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(VaultDamaged, match="not signed"):
        decode_segment(segment_of(), ADMIN_PUBLIC)


def odd_segment(records: object, *, sources: tuple[bytes, ...] = (SOURCE,)) -> Segment:
    header = index_header(ks=[META.source], src=list(sources), t=5, t1=9)
    section = SectionDraft("j", (msgspec.msgpack.encode(records),), 0)
    return decode_segment(signed(Kind.SEGMENT, header, section), WRITER_PUBLIC)


@pytest.mark.parametrize(
    "records",
    [
        [[0, -1, 0, b"k", b"v"]],
        [[0, 5, 0, b"k", b"v"], [0, 4, 0, b"k", b"v"]],
        [[0, 0, 1, b"k", b"v"]],
        [[0, 0, -2, b"k", b"v"]],
    ],
)
def test_records_out_of_order_or_of_no_source_are_damage(records: object) -> None:
    with pytest.raises(VaultDamaged, match="out of order or name no source"):
        odd_segment(records).records(CHAIN.secret_for)


@pytest.mark.parametrize("records", [None, {}, [1], [[0, 0, 0, "k", b"v"]], [[0, 0]]])
def test_records_that_are_none_are_damage(records: object) -> None:
    with pytest.raises(VaultDamaged, match="does not parse"):
        odd_segment(records).records(CHAIN.secret_for)


def test_too_many_records_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = odd_segment([[0, 0, 0, b"k", b"v"]] * 3)
    monkeypatch.setattr(segment_module, "RECORDS_MAX", 2)
    with pytest.raises(VaultDamaged, match="too many"):
        segment.records(CHAIN.secret_for)


# -- checkpoints ---------------------------------------------------------------------------------

PAGES = tuple(PageRow(b"key %d" % i, fixed(f"page {i}"), 64 + i) for i in range(3))
ROOT = CheckpointRoot(
    source=SOURCE,
    at_us=CREATED_US,
    marks=(JournalMark(WRITER, 1, 7, fixed("hash")),),
    state=StateSum(bytes(32), 195),
    merkle=merkle_of(page.id for page in PAGES),
    pages=PAGES,
)


def checkpoint_of(root: CheckpointRoot = ROOT) -> bytes:
    return bytes(
        encode_checkpoint(root, keys=CHAIN, meta=META, signer=SIGNER, entropy=CountedEntropy()).data
    )


def test_a_checkpoint_comes_back() -> None:
    encoded = encode_checkpoint(
        ROOT, keys=CHAIN, meta=META, signer=SIGNER, entropy=CountedEntropy()
    )
    assert decode_checkpoint(encoded.data, WRITER_PUBLIC, CHAIN.secret_for) == ROOT
    assert layout.parse_checkpoint_name(encoded.name) == (SOURCE, CREATED_US // 1000)
    with pytest.raises(VaultDamaged, match="not signed"):
        decode_checkpoint(encoded.data, ADMIN_PUBLIC, CHAIN.secret_for)
    with pytest.raises(KeyRejected):
        decode_checkpoint(encoded.data, WRITER_PUBLIC, key_chain(full=False).secret_for)


def test_a_checkpoint_whose_pages_are_not_its_own_is_damage() -> None:
    with pytest.raises(VaultDamaged, match="contradicts itself"):
        changed = msgspec.structs.replace(ROOT, pages=PAGES[::-1])
        decode_checkpoint(checkpoint_of(changed), WRITER_PUBLIC, CHAIN.secret_for)


@pytest.mark.parametrize("change", [{"src": []}, {"src": [SOURCE, SOURCE]}, {"t": 1}])
def test_a_checkpoint_that_contradicts_its_header_is_damage(change: dict[str, object]) -> None:
    header = index_header(**({"ks": [META.source], "src": [SOURCE], "t": CREATED_US} | change))
    data = signed(Kind.CHECKPOINT, header, SectionDraft("c", (msgspec.msgpack.encode(ROOT),), 0))
    with pytest.raises(VaultDamaged, match="contradicts its header"):
        decode_checkpoint(data, WRITER_PUBLIC, CHAIN.secret_for)


def test_a_checkpoint_that_does_not_parse_or_is_too_long_is_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = signed(Kind.CHECKPOINT, index_header(ks=[META.source]), SectionDraft("c", (b"\x90",), 0))
    with pytest.raises(VaultDamaged, match="does not parse"):
        decode_checkpoint(data, WRITER_PUBLIC, CHAIN.secret_for)
    data = checkpoint_of()
    monkeypatch.setattr(checkpoint_module, "PAGES_MAX", 2)
    with pytest.raises(VaultDamaged, match="too many pages"):
        decode_checkpoint(data, WRITER_PUBLIC, CHAIN.secret_for)


# -- control objects -----------------------------------------------------------------------------


def test_an_epoch_record_comes_back() -> None:
    record = EpochRecord(
        epoch=2, created_us=CREATED_US, reason="start", previous_hash=fixed("seal"), previous_seq=9
    )
    encoded = encode_epoch(record, keys=CHAIN, signer=SIGNER, entropy=CountedEntropy())
    assert decode_epoch(encoded.data, WRITER_PUBLIC) == record
    assert layout.parse_epoch_name(encoded.name) == 2
    with pytest.raises(VaultDamaged, match="not signed"):
        decode_epoch(encoded.data, ADMIN_PUBLIC)


CONDEMNED = Condemned(4, (JournalMark(WRITER, 1, 7, fixed("hash")),), ("d/x/p/aa/aa",))
FINAL = Finalised(4, ("d/x/p/aa/aa",), ("d/x/p/bb/bb",))
LISTS = [
    (CONDEMNED, encode_condemned, decode_condemned, Kind.CONDEMN),
    (FINAL, encode_finalised, decode_finalised, Kind.FINAL),
]


@pytest.mark.parametrize(("body", "encode", "decode", "kind"), LISTS)
def test_a_list_comes_back(body, encode, decode, kind) -> None:
    encoded = encode(body, keys=CHAIN, now_us=CREATED_US, signer=SIGNER, entropy=CountedEntropy())
    assert decode(encoded.data, WRITER_PUBLIC, CHAIN.secret_for) == body
    assert layout.parse_condemn_name(encoded.name) == (4, kind is Kind.FINAL)
    with pytest.raises(VaultDamaged, match="not signed"):
        decode(encoded.data, ADMIN_PUBLIC, CHAIN.secret_for)


@pytest.mark.parametrize(("body", "encode", "decode", "kind"), LISTS)
def test_a_list_that_contradicts_its_header_or_does_not_parse_is_damage(
    body, encode, decode, kind
) -> None:
    secret = CHAIN.domain_keys.index_key
    for generation, plain, match in (
        (5, msgspec.msgpack.encode(body), "contradicts"),
        (4, b"\x91\x04", "does not parse"),
    ):
        section = SectionDraft("g", (plain,), 0)
        data = signed(kind, index_header(g=generation), section, secret=secret)
        with pytest.raises(VaultDamaged, match=match):
            decode(data, WRITER_PUBLIC, CHAIN.secret_for)


def test_one_list_cannot_pass_for_the_other() -> None:
    data = encode_condemned(
        CONDEMNED, keys=CHAIN, now_us=CREATED_US, signer=SIGNER, entropy=CountedEntropy()
    ).data
    with pytest.raises(VaultDamaged, match="stands where"):
        decode_finalised(data, WRITER_PUBLIC, CHAIN.secret_for)


# -- moving --------------------------------------------------------------------------------------


def test_frames_move_to_another_pack_without_a_key_and_open_the_same() -> None:
    first = pack_of(batch(), batch(OTHER, SALTS[1], b"other "))
    holder = decode_pack_index(first, key_chain(full=False).secret_for)
    table = holder.table
    moved = [
        SealedBatch(
            holder.origins[row.origin],
            [
                SealedFrame(
                    row.ordinal,
                    row.codec,
                    row.plain_size,
                    table.ids_of(row),
                    table.sizes_of(row),
                    stored(holder, table, i, first),
                )
            ],
        )
        for i, row in reversed(list(enumerate(table.frames)))
    ]
    second = pack_of(batch(salt=SALTS[3], text=b"new "), *moved)
    again = decode_pack_index(second, CHAIN.secret_for)
    assert frames_of(again, second)[2:] == frames_of(holder, first)[::-1]
    assert isinstance(holder.origins[0].source, KeySource)
