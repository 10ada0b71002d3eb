"""Whatever is written comes back: frames, packs, segments, checkpoints, wherever they were moved."""

from typing import NamedTuple

from golden.materials import (
    CREATED_US,
    IDENTITY,
    SIGNER,
    WRITER,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    key_chain,
    recorded_session,
    sealed_batch,
)
from hypothesis import given
from hypothesis import strategies as st

from streamd.format import crypto
from streamd.format.checkpoint import (
    CheckpointRoot,
    JournalMark,
    PageRow,
    decode_checkpoint,
    encode_checkpoint,
    merkle_of,
)
from streamd.format.codec import Codec, compress, decompress
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
from streamd.format.frame import FrameOpener, SealedBatch, SealedFrame
from streamd.format.keys import Role
from streamd.format.layout import JournalPosition, parse_checkpoint_name, parse_segment_name
from streamd.format.pack import FrameHolder, decode_pack_index, encode_pack, verify_pack_name
from streamd.format.segment import SegmentDraft, decode_segment, encode_segment
from streamd.model.ids import SourceId
from streamd.model.record import NO_SOURCE, Record, StateSum

CHAIN = key_chain()
SESSIONS = {label: recorded_session(label) for label in ("meta", "data", "data-2")}
u16 = st.integers(0, 2**16)
u32 = st.integers(0, 2**32 - 1)
chunks = st.one_of(
    st.binary(max_size=200),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 400)).map(lambda p: p[0] * p[1]),
)
frames = st.tuples(st.sampled_from(Codec), st.lists(chunks, max_size=5))
frame_lists = st.lists(frames, max_size=5)
object_names = st.text(max_size=30)
hashes = st.binary(min_size=32, max_size=32)


class Plan(NamedTuple):
    """Batches to be sealed: each a session, and its frames. Salts are drawn in order."""

    batches: list[tuple[str, list[tuple[Codec, list[bytes]]]]]

    def seal(self, label: str = "salts") -> list[SealedBatch]:
        entropy = CountedEntropy(label)
        return [
            sealed_batch(SESSIONS[session], entropy.token(16), content, CHAIN)
            for session, content in self.batches
        ]

    @property
    def plains(self) -> list[bytes]:
        return [b"".join(chunks) for _, content in self.batches for _, chunks in content]


plans = st.lists(st.tuples(st.sampled_from(["data", "data-2"]), frame_lists), max_size=4).map(Plan)


def stored(holder: FrameHolder, index: int, data: bytes) -> bytes:
    row = holder.table.frames[index]
    return data[holder.frames_at + row.offset : holder.frames_at + row.offset + row.stored_size]


def opened(holder: FrameHolder, data: bytes) -> list[bytes]:
    opener = FrameOpener(CHAIN.secret_for, CHAIN.domain_keys, IDENTITY)
    return [
        bytes(opener.open(holder.table, row, holder.origins[row.origin], stored(holder, i, data)))
        for i, row in enumerate(holder.table.frames)
    ]


def packed(batches: list[SealedBatch]) -> bytes:
    encoded = encode_pack(
        batches, role=Role.DATA, keys=CHAIN, now_us=CREATED_US, entropy=CountedEntropy()
    )
    verify_pack_name(encoded.name, encoded.data)
    return bytes(encoded.data)


@given(st.sampled_from(Codec), chunks, st.integers(1, 9))
def test_compression_comes_back(codec: Codec, plain: bytes, level: int) -> None:
    used, stored_bytes = compress(plain, codec, level)
    assert used in {codec, Codec.RAW}
    assert len(stored_bytes) <= len(plain)
    assert decompress(stored_bytes, used, len(plain)) == plain


@given(plans)
def test_packs_come_back(plan: Plan) -> None:
    data = packed(plan.seal())
    assert opened(decode_pack_index(data, CHAIN.secret_for), data) == plan.plains


@given(plans, st.randoms(use_true_random=False), st.booleans())
def test_frames_moved_verbatim_open_identically(plan: Plan, random, one_by_one: bool) -> None:
    first = packed(plan.seal())
    holder = decode_pack_index(first, CHAIN.secret_for)
    table = holder.table
    order = list(range(len(table.frames)))
    random.shuffle(order)
    kept = order[: random.randint(0, len(order))]
    moved: list[SealedBatch] = []
    for index in kept:
        row = table.frames[index]
        frame = SealedFrame(
            row.ordinal,
            row.codec,
            row.plain_size,
            table.ids_of(row),
            table.sizes_of(row),
            stored(holder, index, first),
        )
        origin = holder.origins[row.origin]
        if moved and moved[-1].origin == origin and not one_by_one:
            moved[-1].frames.append(frame)
        else:
            moved.append(SealedBatch(origin, [frame]))
    fresh = Plan([("data", [(Codec.LZ4, [b"new " * 20])])])
    second = packed(moved + fresh.seal("others"))
    again = decode_pack_index(second, CHAIN.secret_for)
    assert opened(again, second) == [plan.plains[i] for i in kept] + fresh.plains
    assert len(again.origins) <= len(plan.batches) + 1


@given(plans, plans)
def test_no_nonce_is_used_twice_under_one_key(plan: Plan, other: Plan) -> None:
    seen: set[tuple[bytes, bytes]] = set()
    for batch in plan.seal("a") + other.seal("b"):
        secret = CHAIN.secret_for(batch.origin.source)
        key = crypto.derive(secret, salt=batch.origin.salt, info=b"streamd/v1/c")
        for frame in batch.frames:
            use = key, crypto.nonce_of(frame.ordinal)
            assert use not in seen
            seen.add(use)


@st.composite
def segment_drafts(draw) -> tuple[SegmentDraft, list[bytes], list[bytes]]:
    sources = tuple(SourceId(fixed(f"source {i}", 16)) for i in range(draw(st.integers(0, 3))))
    steps = draw(st.lists(st.tuples(u16, st.integers(-1, len(sources) - 1)), max_size=20))
    records, dt = [], 0
    for step, source in steps:
        dt += step
        key, value = draw(st.binary(max_size=40)), draw(st.binary(max_size=40))
        records.append(Record(draw(st.integers(0, 9)), dt, source, key, value))
    data = draw(plans)
    meta = Plan([("meta", draw(frame_lists))])
    start = draw(st.integers(0, 2**53))
    built = SegmentDraft(
        position=JournalPosition(draw(u32), draw(st.integers(0, 2**48 - 1))),
        previous=draw(hashes),
        start_us=start,
        end_us=start + dt,
        sources=sources,
        records=records,
        data=data.seal(),
        meta=meta.seal("meta salts"),
        ack=draw(u32),
    )
    return built, data.plains, meta.plains


@given(segment_drafts())
def test_segments_come_back(drawn: tuple[SegmentDraft, list[bytes], list[bytes]]) -> None:
    draft, data_plains, meta_plains = drawn
    encoded = encode_segment(
        draft, keys=CHAIN, meta=SESSIONS["meta"], signer=SIGNER, entropy=CountedEntropy()
    )
    data = bytes(encoded.data)
    segment = decode_segment(data, WRITER_PUBLIC)
    assert parse_segment_name(encoded.name) == segment.position == draft.position
    assert segment.records(CHAIN.secret_for) == draft.records
    for name in ("previous", "start_us", "end_us", "sources", "ack"):
        assert getattr(segment, name) == getattr(draft, name)
    for role, plains in ((Role.DATA, data_plains), (Role.META, meta_plains)):
        holder = segment.frames(role, CHAIN.secret_for)
        assert ([] if holder is None else opened(holder, data)) == plains
    assert all(record.source_ix >= NO_SOURCE for record in draft.records)


marks = st.builds(JournalMark, st.just(WRITER), u32, u32, hashes)
mark_tuples = st.lists(marks, max_size=3).map(tuple)
page_tuples = st.lists(st.builds(PageRow, st.binary(max_size=40), hashes, u16), max_size=20).map(
    tuple
)


@given(page_tuples, mark_tuples, st.integers(0, 2**53), hashes, u32)
def test_checkpoints_come_back(pages, journal_marks, at_us: int, total: bytes, count: int) -> None:
    root = CheckpointRoot(
        source=fixed("source", 16),
        at_us=at_us,
        marks=journal_marks,
        state=StateSum(total, count),
        merkle=merkle_of(page.id for page in pages),
        pages=pages,
    )
    encoded = encode_checkpoint(
        root, keys=CHAIN, meta=SESSIONS["meta"], signer=SIGNER, entropy=CountedEntropy()
    )
    assert decode_checkpoint(encoded.data, WRITER_PUBLIC, CHAIN.secret_for) == root
    assert parse_checkpoint_name(encoded.name) == (root.source, at_us // 1000)


names = st.lists(object_names, max_size=5).map(tuple)


@given(u32, mark_tuples, names, names)
def test_lists_come_back(generation: int, journal_marks, some, others) -> None:
    entropy = CountedEntropy()
    condemned = Condemned(generation, journal_marks, some)
    final = Finalised(generation, some, others)
    data = encode_condemned(condemned, keys=CHAIN, now_us=1, signer=SIGNER, entropy=entropy).data
    assert decode_condemned(data, WRITER_PUBLIC, CHAIN.secret_for) == condemned
    data = encode_finalised(final, keys=CHAIN, now_us=1, signer=SIGNER, entropy=entropy).data
    assert decode_finalised(data, WRITER_PUBLIC, CHAIN.secret_for) == final


@given(u32, st.integers(0, 2**53), st.text(max_size=50), hashes, u32)
def test_epochs_come_back(epoch: int, at_us: int, why: str, previous: bytes, seq: int) -> None:
    record = EpochRecord(
        epoch=epoch, created_us=at_us, reason=why, previous_hash=previous, previous_seq=seq
    )
    data = encode_epoch(record, keys=CHAIN, signer=SIGNER, entropy=CountedEntropy()).data
    assert decode_epoch(data, WRITER_PUBLIC) == record
