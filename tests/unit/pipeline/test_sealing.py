"""Deduplication, sealing and describing: which chunks are stored, in which frames, and as what."""

import itertools
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from vaultbuilder import VaultBuilder

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.errors import ConfigInvalid
from streamd.format import chunklist
from streamd.format import frame as frames
from streamd.format.codec import Codec
from streamd.format.frame import (
    INLINE_FRAME_TARGET,
    PACK_FRAME_TARGET,
    FrameOpener,
    decode_table,
    encode_table,
)
from streamd.model.entry import EntryType, FileVersion, VersionFlag
from streamd.model.host import HostStat
from streamd.pipeline import dedup
from streamd.pipeline.channel import BULK, LIVE
from streamd.pipeline.compression import SETTINGS, CompressionChoice, name_of
from streamd.pipeline.dedup import DedupIndex
from streamd.pipeline.findings import Found
from streamd.pipeline.seal import Compression, Effect, Sealer
from streamd.policy.effort import COST, Effort, Signals
from streamd.sources.port import Outcome, Piece, ReadResult

READ_AT_NS = 1_000_000_000_000_000


@pytest.fixture
def catalog(tmp_path):
    made = Catalog(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def index(catalog):
    made = DedupIndex(catalog.open_reader)
    yield made
    made.close()


@pytest.fixture
def builder():
    return VaultBuilder()


@pytest.fixture
def sealer(index, builder):
    return Sealer(
        builder.writer, index, CompressionChoice("none").now, lambda _: b"u", lambda _: b"g"
    )


def store(catalog: Catalog, name: str, *ids: bytes) -> int:
    def work(connection: sqlite3.Connection) -> int:
        number = objects.add(
            connection, name=name, kind="P", size=1, now_us=1, state=ObjectState.LOCAL
        )
        objects.add_chunks(connection, number, ids)
        return number

    return catalog.write_now(work)


# -- deduplication ---------------------------------------------------------------------------------


def test_a_chunk_that_the_vault_has_is_needed_and_not_new(catalog, index) -> None:
    number = store(catalog, "p1", b"a" * 32)
    new, needs = index.claim([b"a" * 32, b"b" * 32], (1, LIVE), 0)
    assert (new, needs) == ({b"b" * 32}, {number})


def test_an_earlier_batch_of_the_lane_is_trusted(index) -> None:
    assert index.claim([b"a" * 32], (1, LIVE), 3)[0]
    assert not index.claim([b"a" * 32], (1, LIVE), 3)[0]
    assert not index.claim([b"a" * 32], (1, LIVE), 4)[0]


@pytest.mark.parametrize(("lane", "sequence"), [((1, LIVE), 2), ((1, BULK), 9), ((2, LIVE), 9)])
def test_a_later_batch_or_another_lane_is_not(index, lane, sequence) -> None:
    index.claim([b"a" * 32], (1, LIVE), 3)
    assert index.claim([b"a" * 32], lane, sequence)[0] == {b"a" * 32}


def test_after_the_commit_the_catalog_answers(catalog, index) -> None:
    index.claim([b"a" * 32], (1, LIVE), 3)
    number = store(catalog, "j1", b"a" * 32)
    index.settle([b"a" * 32])
    assert index.claim([b"a" * 32], (2, BULK), 0) == (set(), {number})


def test_what_was_given_up_is_new_again(index) -> None:
    index.claim([b"a" * 32], (1, LIVE), 3)
    index.settle([b"a" * 32])
    assert index.claim([b"a" * 32], (1, LIVE), 4)[0] == {b"a" * 32}


def test_a_new_catalog_is_asked_only_for_chunks_that_were_met(catalog, index, monkeypatch) -> None:
    asked: list[bytes] = []
    find = objects.find_chunks

    def noting(connection: sqlite3.Connection, ids: list[bytes]) -> dict[bytes, int]:
        asked.extend(ids)
        return find(connection, ids)

    monkeypatch.setattr(objects, "find_chunks", noting)
    assert index.claim([b"a" * 32, b"b" * 32], (1, LIVE), 0)[0] == {b"a" * 32, b"b" * 32}
    number = store(catalog, "p1", b"a" * 32)
    index.settle([b"a" * 32, b"b" * 32])  # one was committed, one was given up
    assert not asked
    ids = [b"a" * 32, b"b" * 32, b"c" * 32]
    assert index.claim(ids, (2, BULK), 0) == ({b"b" * 32, b"c" * 32}, {number})
    assert asked == ids[:2]


def test_a_catalog_with_more_chunks_than_are_kept_in_memory_is_asked_for_all(
    catalog, index, monkeypatch
) -> None:
    monkeypatch.setattr(dedup, "SEEN_MAX", 3)
    numbers = {}
    for at in range(5):
        chunk = b"%032d" % at
        assert index.claim([chunk], (1, LIVE), at) == ({chunk}, set())
        numbers[chunk] = store(catalog, f"p{at}", chunk)
        index.settle([chunk])
    assert index.claim(list(numbers), (1, LIVE), 9) == (set(), set(numbers.values()))


def test_closing_waits_for_a_thread_that_is_asking(catalog, monkeypatch) -> None:
    store(catalog, "p1", b"b" * 32)
    index, begun, closed = DedupIndex(catalog.open_reader), threading.Event(), threading.Event()
    find = objects.find_chunks

    def slow(connection: sqlite3.Connection, ids: list[bytes]) -> dict[bytes, int]:
        begun.set()
        assert not closed.wait(0.1), "closed under the thread that asks"
        return find(connection, ids)

    monkeypatch.setattr(objects, "find_chunks", slow)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(index.claim, [b"a" * 32], (1, LIVE), 0)
        assert begun.wait(30)
        index.close()
        closed.set()
        assert asked.result(30)[0] == {b"a" * 32}


# -- sealing ---------------------------------------------------------------------------------------


def arena_of(builder, parts: list[bytes]) -> tuple[memoryview, list[Piece]]:
    arena, pieces = bytearray(), []
    for part in parts:
        pieces.append(Piece(builder.keys.domain_keys.chunk_id(part), len(arena), len(part)))
        arena += part
    return memoryview(bytes(arena)), pieces


@pytest.mark.parametrize(
    ("kind", "target"), [(LIVE, INLINE_FRAME_TARGET), (BULK, PACK_FRAME_TARGET)]
)
def test_small_chunks_share_frames_up_to_the_target(sealer, builder, kind, target) -> None:
    rng = random.Random(1)
    arena, pieces = arena_of(builder, [rng.randbytes(rng.randrange(1, 90_000)) for _ in range(60)])
    content = sealer.seal_pieces(arena, pieces, (1, kind), 0)
    frames = content.data.frames
    assert all(frame.plain_size <= target or len(frame.sizes) == 1 for frame in frames)
    assert all(one.plain_size + two.sizes[0] > target for one, two in itertools.pairwise(frames))
    assert b"".join(frame.ids for frame in frames) == b"".join(piece.id for piece in pieces)
    assert content.duplicate_bytes == 0
    assert content.chunk_count == 60


def stored_of(builder, content) -> dict[bytes, bytes]:
    """Return every chunk as a reader gets it, which proves each by its id."""
    table = decode_table(encode_table([(0, content.data)]), 1)
    keys, identity = builder.vault.keys, builder.vault.identity
    opener = FrameOpener(keys.secret_for, keys.domain_keys, identity)
    found = {}
    for row, frame in zip(table.frames, content.data.frames, strict=True):
        plain, at = opener.open(table, row, content.data.origin, frame.data), 0
        for number, size in enumerate(frame.sizes):
            found[frame.ids[32 * number : 32 * number + 32]] = bytes(plain[at : at + size])
            at += size
    return found


@pytest.mark.parametrize("seed", range(20))
def test_content_is_stored_under_its_id_in_whatever_order_it_was_read(
    sealer, builder, catalog, seed
) -> None:
    """Entries that had to be read singly lie behind the others of their directory."""
    rng = random.Random(seed)
    parts = [rng.randbytes(rng.randrange(1, 40)) for _ in range(9)]
    arena, pieces = arena_of(builder, parts)
    middle = pieces[1:-1]
    rng.shuffle(middle)  # the first and the last where they are: the ends tell nothing
    known = rng.sample(middle, rng.randrange(3))
    if known:
        store(catalog, "p", *[piece.id for piece in known])
    content = sealer.seal_pieces(arena, [pieces[0], *middle, pieces[-1]], (1, LIVE), 0)
    expected = {piece.id: part for piece, part in zip(pieces, parts, strict=True)}
    assert stored_of(builder, content) == {
        id_: part for id_, part in expected.items() if id_ not in {piece.id for piece in known}
    }
    assert content.new_ids == list(stored_of(builder, content))


def test_a_chunk_that_comes_twice_in_a_batch_is_stored_once(sealer, builder) -> None:
    arena, pieces = arena_of(builder, [b"same" * 100, b"other", b"same" * 100, b"more"])
    content = sealer.seal_pieces(arena, pieces, (1, LIVE), 0)
    assert len(content.new_ids) == 3
    assert content.duplicate_bytes == 400
    (frame,) = content.data.frames
    assert frame.plain_size == len(b"same" * 100 + b"other" + b"more")


def test_known_chunks_are_left_out_from_between_others(sealer, builder, catalog) -> None:
    arena, pieces = arena_of(builder, [b"one" * 9, b"two" * 9, b"three" * 9])
    number = store(catalog, "p", pieces[1].id)
    content = sealer.seal_pieces(arena, pieces, (1, LIVE), 0)
    assert content.new_ids == [pieces[0].id, pieces[2].id]
    assert content.needs == {number}
    assert content.data.frames[0].plain_size == len(b"one" * 9 + b"three" * 9)


def test_nothing_new_makes_no_frame(sealer, builder) -> None:
    arena, pieces = arena_of(builder, [b"one"])
    sealer.seal_pieces(arena, pieces, (1, LIVE), 0)
    again = sealer.seal_pieces(arena, pieces, (1, LIVE), 1)
    assert again.data is None
    assert again.duplicate_bytes == 3


# -- describing ------------------------------------------------------------------------------------


def stat_of(**fields) -> HostStat:
    values = {
        "type": EntryType.REGULAR, "mode": 0o644, "uid": 0, "gid": 0, "size": 8, "mtime_ns": 5,
        "ctime_ns": 5, "dev": 1, "ino": 9, "nlink": 1, "rdev": 0,
    }  # fmt: skip
    return HostStat(**(values | fields))


def describe(sealer, result: ReadResult):
    entry = Found(
        parent=7,
        name=b"x",
        path=b"/r/x",
        fid=11,
        stat=result.stat,
        since_us=3,
        parent_ino=2,
        read=True,
        is_fresh=True,
    )
    return sealer.describe([entry], [result], read_at_ns=READ_AT_NS)


def version_of(described) -> FileVersion:
    return msgspec.msgpack.decode(described.intents[0].version, type=FileVersion)


def test_a_good_read_becomes_an_intent(sealer) -> None:
    pieces = [Piece(b"c" * 32, 0, 8)]
    described = describe(sealer, ReadResult(Outcome.OK, stat_of(), pieces))
    (intent,) = described.intents
    assert (intent.parent, intent.name, intent.fid, intent.again) == (7, b"x", 11, False)
    assert described.good_paths == [b"/r/x"]
    version = version_of(described)
    assert (version.user, version.group, version.size) == (b"u", b"g", 8)
    assert [(run.id, run.size) for run in version.content] == [(b"c" * 32, 8)]
    assert not described.again
    assert not described.racy
    assert not described.later


def test_holes_stay_holes(sealer) -> None:
    pieces = [Piece(None, 0, 4096), Piece(b"c" * 32, 0, 8), Piece(None, 0, 100)]
    version = version_of(describe(sealer, ReadResult(Outcome.OK, stat_of(size=4204), pieces)))
    assert [(run.id, run.size) for run in version.content] == [
        (None, 4096),
        (b"c" * 32, 8),
        (None, 100),
    ]
    assert version.flags == VersionFlag.SPARSE


def test_a_long_content_gets_chunk_list_pages(sealer) -> None:
    pieces = [Piece(bytes([number]) * 32, 0, 8) for number in range(chunklist.DIRECT_MAX + 1)]
    described = describe(sealer, ReadResult(Outcome.OK, stat_of(size=8 * len(pieces)), pieces))
    version = version_of(described)
    assert version.levels == 1
    assert {run.id for run in version.content} == described.pages.keys()
    content = sealer.seal_pages(described.pages, (1, LIVE), 0)
    assert set(content.new_ids) == described.pages.keys()
    assert sealer.seal_pages(described.pages, (1, LIVE), 1).data is None


def test_as_many_runs_as_fit_need_no_page(sealer) -> None:
    pieces = [Piece(bytes([number]) * 32, 0, 8) for number in range(chunklist.DIRECT_MAX)]
    described = describe(sealer, ReadResult(Outcome.OK, stat_of(size=8 * len(pieces)), pieces))
    assert not described.pages
    assert version_of(described).levels == 0


@pytest.mark.parametrize("kind", [EntryType.REGULAR, EntryType.DIRECTORY, EntryType.SYMLINK])
def test_what_changed_within_the_same_tick_is_read_again(sealer, kind) -> None:
    stat = stat_of(ctime_ns=READ_AT_NS - 1000)._replace(type=kind)
    described = describe(sealer, ReadResult(Outcome.OK, stat))
    assert described.intents[0].again
    assert described.racy == {b"/r/x": READ_AT_NS // 1000}
    assert not described.again


def test_a_change_time_from_the_far_future_does_not_make_it_racy_for_ever(sealer) -> None:
    described = describe(sealer, ReadResult(Outcome.OK, stat_of(ctime_ns=READ_AT_NS * 2)))
    assert not described.intents[0].again


def test_a_file_that_would_not_stand_still_is_kept_marked_and_read_later(sealer) -> None:
    described = describe(sealer, ReadResult(Outcome.FUZZY, stat_of(), [Piece(b"c" * 32, 0, 8)]))
    assert version_of(described).flags == VersionFlag.FUZZY
    assert described.intents[0].again
    assert described.later == [b"/r/x"]
    assert [trouble.reason for trouble in described.troubles] == ["fuzzy"]
    assert not described.good_paths


@pytest.mark.parametrize("outcome", [Outcome.VANISHED, Outcome.TYPE_CHANGED])
def test_what_is_another_by_now_is_looked_at_again(sealer, outcome) -> None:
    described = describe(sealer, ReadResult(outcome, stat_of()))
    assert not described.intents
    assert [(place.path, place.first_us) for place in described.again] == [(b"/r/x", 3)]


@pytest.mark.parametrize("outcome", [Outcome.UNREADABLE, Outcome.FAILED])
def test_what_cannot_be_read_is_a_trouble(sealer, outcome) -> None:
    described = describe(sealer, ReadResult(outcome, stat_of(), errno=13))
    assert not described.intents
    assert [(each.reason, each.errno) for each in described.troubles] == [(outcome, 13)]


# -- compression -----------------------------------------------------------------------------------


SLOW_LINE = Signals(pile_bytes=100_000_000, uplink_bytes_per_second=1e6)


def effect(choice: CompressionChoice, *, cpu: float = 0.004, of: float = 0.004) -> Effect:
    return Effect(choice.now(), 1 << 20, 400_000, of, cpu)


def test_automatic_compression_is_balanced_before_anything_is_known() -> None:
    assert CompressionChoice("auto").now() == SETTINGS[Effort.BALANCED]


def test_automatic_compression_is_strong_while_a_slow_line_has_work() -> None:
    choice = CompressionChoice("auto")
    choice.sealed(effect(choice))
    choice.queues = lambda: SLOW_LINE
    assert choice.now() == SETTINGS[Effort.STRONGEST]
    choice.queues = Signals
    assert choice.now() == SETTINGS[Effort.BALANCED]


def test_automatic_compression_is_fast_while_others_have_the_processors() -> None:
    choice = CompressionChoice("auto", lambda: Signals(waiting=1.0), threads=1)
    for _ in range(20):
        choice.sealed(effect(choice))
    assert choice.now() == SETTINGS[Effort.BALANCED]
    for _ in range(20):
        choice.sealed(effect(choice, of=0.04))
    assert choice.now() == SETTINGS[Effort.FAST]
    for _ in range(20):
        choice.sealed(effect(choice))
    assert choice.now() == SETTINGS[Effort.BALANCED]


def test_what_compressing_costs_is_known_whatever_was_used() -> None:
    choice = CompressionChoice("auto")
    for effort in (Effort.FAST, Effort.STRONG):
        seconds = 0.004 * COST[effort]
        for _ in range(20):
            choice.sealed(Effect(SETTINGS[effort], 1 << 20, 1 << 19, seconds, seconds))
        assert choice.measured.seconds_per_byte == pytest.approx(0.004 / (1 << 20))
    assert choice.measured.ratio == pytest.approx(0.5)


def test_what_was_compressed_is_counted_by_setting() -> None:
    choice = CompressionChoice("zstd:7")
    choice.sealed(effect(choice))
    for other, name in (("lz4", "lz4"), ("none", "none")):
        assert name_of(CompressionChoice(other).now()) == name
    assert choice.bytes_by_setting == {"zstd:7": 1 << 20}


def test_what_sealing_took_is_told_once_for_all_frames_of_a_batch(index, builder) -> None:
    """Asking how long a thread has worked gives the interpreter's lock away."""
    told: list[Effect] = []
    asked = []

    def how() -> Compression:
        asked.append(1)
        return SETTINGS[Effort.BALANCED]

    sealer = Sealer(builder.writer, index, how, bytes, bytes, told.append)
    arena, pieces = arena_of(builder, [bytes([n]) * 700_000 for n in range(4)])
    content = sealer.seal_pieces(arena, pieces, (1, BULK), 0)
    assert len(content.data.frames) == 4
    assert [one.plain_bytes for one in told] == [2_800_000]
    assert told[0].stored_bytes == content.data.stored_size
    assert len(asked) == 1


@pytest.mark.parametrize(("size", "calls"), [(8_000, [3]), (200_000, [1, 1, 1])])
def test_frames_of_small_chunks_are_compressed_in_one_call(
    index, builder, monkeypatch, size, calls
) -> None:
    seen: list[int] = []
    real = frames.compress_all

    def counted(plains, codec, level):
        seen.append(len(plains))
        return real(plains, codec, level)

    monkeypatch.setattr(frames, "compress_all", counted)
    sealer = Sealer(builder.writer, index, CompressionChoice("auto").now, bytes, bytes)
    count = 2_500_000 // size
    arena, pieces = arena_of(builder, [(b"%08d" % n * size)[:size] for n in range(count)])
    content = sealer.seal_pieces(arena, pieces, (1, BULK), 0)
    assert seen == calls
    assert [one.ordinal for one in content.data.frames] == [0, 1, 2]


def test_the_sealer_tells_what_a_frame_took(index, builder) -> None:
    told: list[Effect] = []
    choice = CompressionChoice("zstd:1")
    sealer = Sealer(builder.writer, index, choice.now, bytes, bytes, told.append)
    arena, pieces = arena_of(builder, [b"a" * 100_000, b"b" * 100_000])
    content = sealer.seal_pieces(arena, pieces, (1, BULK), 0)
    assert [(one.how, one.plain_bytes) for one in told] == [(choice.now(), 200_000)]
    assert told[0].stored_bytes == content.data.stored_size
    assert told[0].seconds > 0
    assert 0 <= told[0].cpu_seconds < 10


@pytest.mark.parametrize(
    ("setting", "codec", "level"),
    [("none", Codec.RAW, 0), ("lz4", Codec.LZ4, 0), ("zstd:1", Codec.ZSTD, 1), ("zstd:19", Codec.ZSTD, 19)],
)  # fmt: skip
def test_a_fixed_compression_stays(setting, codec, level) -> None:
    now = CompressionChoice(setting, lambda: SLOW_LINE).now()
    assert (now.codec, now.level) == (codec, level)


@pytest.mark.parametrize("setting", ["", "gzip", "zstd", "zstd:0", "zstd:20", "zstd:x"])
def test_nonsense_is_refused(setting) -> None:
    with pytest.raises(ConfigInvalid):
        CompressionChoice(setting)
