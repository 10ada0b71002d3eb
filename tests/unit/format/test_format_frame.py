"""Frames and their table: opened only as what they are, wherever they stand."""

import msgspec
import pytest
from golden.materials import (
    DOMAIN,
    IDENTITY,
    VAULT,
    chunk_ids,
    fixed,
    key_chain,
    recorded_session,
    sealed_batch,
)

from streamd.errors import FormatUnsupported, KeyRejected, VaultDamaged
from streamd.format import crypto
from streamd.format import frame as frame_module
from streamd.format.codec import Codec
from streamd.format.frame import (
    FRAME_PLAIN_MAX,
    FrameOpener,
    FrameRow,
    FrameSealer,
    FrameTable,
    Origin,
    SealedBatch,
    decode_table,
    encode_table,
    frame_aad,
    frame_cipher,
)
from streamd.format.keys import Session

CHAIN = key_chain()
DATA = recorded_session("data")
OTHER = recorded_session("data-2")
SALT = fixed("origin salt", 16)
CHUNKS = [b"one " * 30, b"two", b"three " * 50]


def batch(codec: Codec = Codec.ZSTD, session=DATA, salt: bytes = SALT) -> SealedBatch:
    return sealed_batch(
        session, salt, [(codec, CHUNKS), (Codec.RAW, [b"four"]), (codec, [b""])], CHAIN
    )


def opener(chain=CHAIN, identity: bytes = IDENTITY) -> FrameOpener:
    return FrameOpener(chain.secret_for, chain.domain_keys, identity)


def opened(sealed: SealedBatch, index: int = 0, **change: object) -> bytes:
    """Open one frame of a batch by its table, with something changed."""
    table = decode_table(encode_table([(0, sealed)]), 1)
    row = table.frames[index]._replace(**change)
    return bytes(opener().open(table, row, sealed.origin, sealed.frames[index].data))


@pytest.mark.parametrize("codec", list(Codec))
def test_frames_come_back(codec: Codec) -> None:
    sealed = batch(codec)
    assert [opened(sealed, i) for i in range(3)] == [b"".join(CHUNKS), b"four", b""]
    assert sealed.stored_size == sum(len(frame.data) for frame in sealed.frames)
    assert [frame.ordinal for frame in sealed.frames] == [0, 1, 2]


def test_the_table_says_where_everything_is() -> None:
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    assert table.chunk_count == 5
    assert table.id_list() == [CHAIN.domain_keys.chunk_id(c) for c in [*CHUNKS, b"four", b""]]
    assert [chunk_id for chunk_id, _ in table.chunks()] == table.id_list()
    first, second, third = table.frames
    assert (first.offset, second.offset) == (0, first.stored_size)
    assert third.offset == second.offset + second.stored_size
    assert table.ids_of(second) == CHAIN.domain_keys.chunk_id(b"four")
    assert list(table.sizes_of(first)) == [len(chunk) for chunk in CHUNKS]


def test_a_table_may_be_empty() -> None:
    table = decode_table(encode_table([]), 0)
    assert (table.frames, table.chunk_count, table.id_list()) == ([], 0, [])


def test_numbers_in_a_table_are_little_endian() -> None:
    columns = msgspec.msgpack.decode(encode_table([(1, batch())]))
    assert columns[1] == b"\x01\x00\x00\x00" * 3
    assert columns[2] == b"\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"


@pytest.mark.parametrize(
    "change",
    [
        {"ordinal": 1},
        {"plain_size": 5},
        {"codec": Codec.LZ4},
        {"chunk_count": 2},
        {"first_chunk": 1},
    ],
)
def test_a_frame_is_bound_to_its_row(change: dict[str, int]) -> None:
    with pytest.raises(VaultDamaged):
        opened(batch(), 0, **change)


def test_a_frame_is_bound_to_vault_and_domain() -> None:
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    for identity in (fixed("v", 16) + DOMAIN, VAULT + fixed("d", 16), DOMAIN + VAULT):
        with pytest.raises(VaultDamaged):
            opener(identity=identity).open(
                table, table.frames[0], sealed.origin, sealed.frames[0].data
            )


def test_a_frame_is_bound_to_its_origin() -> None:
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    for origin in (
        Origin(sealed.origin.source, fixed("another salt", 16)),
        Origin(OTHER.source, SALT),
    ):
        with pytest.raises(VaultDamaged):
            opener().open(table, table.frames[0], origin, sealed.frames[0].data)


def test_an_origin_that_borrows_a_session_number_does_not_spoil_the_real_one() -> None:
    forged = msgspec.structs.replace(OTHER.source, session=DATA.source.session)
    chain = key_chain()
    chain.remember(Session(forged, OTHER.secret))
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    both, row, data = opener(chain), table.frames[0], sealed.frames[0].data
    with pytest.raises(VaultDamaged):
        both.open(table, row, Origin(forged, SALT), data)
    assert both.open(table, row, sealed.origin, data) == b"".join(CHUNKS)


def test_an_unknown_suite_needs_a_newer_streamd() -> None:
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    newer = Origin(msgspec.structs.replace(sealed.origin.source, suite=2), SALT)
    with pytest.raises(FormatUnsupported):
        opener().open(table, table.frames[0], newer, sealed.frames[0].data)


def test_a_host_without_the_private_key_opens_nothing() -> None:
    sealed = batch()
    table = decode_table(encode_table([(0, sealed)]), 1)
    with pytest.raises(KeyRejected):
        opener(key_chain(full=False)).open(
            table, table.frames[0], sealed.origin, sealed.frames[0].data
        )


def forged_frame(plain: bytes, ids: bytes, sizes: list[int]) -> bytes:
    """Open a frame that authenticates and yet does not say the truth about its chunks."""
    cipher = frame_cipher(DATA.secret, SALT)
    data = crypto.encrypt(cipher, 0, plain, frame_aad(IDENTITY, Codec.RAW, len(plain), ids))
    row = FrameRow(0, 0, 0, len(data), len(plain), Codec.RAW, 0, len(sizes))
    return bytes(opener().open(FrameTable([row], ids, sizes), row, Origin(DATA.source, SALT), data))


def test_a_chunk_that_does_not_match_its_id_is_damage() -> None:
    with pytest.raises(VaultDamaged, match="match its id"):
        forged_frame(b"abcd", chunk_ids(CHAIN, [b"ab", b"ce"]), [2, 2])


@pytest.mark.parametrize("wrong", range(6))
def test_of_many_chunks_each_is_checked(wrong: int) -> None:
    chunks = [b"%d" % number for number in range(6)]
    claimed = [chunk if number != wrong else b"x" for number, chunk in enumerate(chunks)]
    with pytest.raises(VaultDamaged, match="match its id"):
        forged_frame(b"".join(chunks), chunk_ids(CHAIN, claimed), [1] * 6)


@pytest.mark.parametrize("sizes", [[2], [4, 3], [2, 2**32 - 1]])
def test_chunk_sizes_must_fill_the_frame(sizes: list[int]) -> None:
    chunks = [
        b"abcd"[at : at + size]
        for at, size in zip((0, 4 if sizes[0] == 4 else 2), sizes, strict=False)
    ]
    with pytest.raises(VaultDamaged, match="more or less than its chunks"):
        forged_frame(b"abcd", chunk_ids(CHAIN, chunks), sizes)


def test_the_opener_forgets_old_ciphers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_module, "CIPHERS_MAX", 2)
    one = opener()
    for number in range(5):
        sealed = batch(salt=fixed(f"salt {number}", 16))
        table = decode_table(encode_table([(0, sealed)]), 1)
        assert one.open(table, table.frames[1], sealed.origin, sealed.frames[1].data) == b"four"
        assert len(one._ciphers) <= 2


def columns(**change: object) -> bytes:
    """Return a good table of one frame with two chunks, with one column changed."""
    good = {
        "count": 1,
        "origins": bytes(4),
        "ordinals": bytes(4),
        "stored": b"\x20\x00\x00\x00",
        "plain": b"\x10\x00\x00\x00",
        "codecs": b"\x00",
        "chunks": b"\x02\x00\x00\x00",
        "ids": bytes(64),
        "sizes": bytes(8),
    }
    return msgspec.msgpack.encode(list((good | change).values()))


@pytest.mark.parametrize(
    "change",
    [
        {"count": -1},
        {"count": 2},
        {"count": 2**40},
        {"count": 0},
        {"origins": b"\x01\x00\x00\x00"},
        {"origins": b""},
        {"ordinals": bytes(5)},
        {"stored": bytes(3)},
        {"plain": (FRAME_PLAIN_MAX + 1).to_bytes(4, "little")},
        {"codecs": b""},
        {"chunks": b"\x01\x00\x00\x00"},
        {"chunks": b"\xff\xff\xff\xff"},
        {"ids": bytes(63)},
        {"ids": bytes(32)},
        {"sizes": bytes(4)},
        {"sizes": "x"},
        {"codecs": None},
    ],
)
def test_an_inconsistent_table_is_damage(change: dict[str, object]) -> None:
    with pytest.raises(VaultDamaged):
        decode_table(columns(**change), 1)


def test_columns_added_later_are_ignored() -> None:
    row = msgspec.msgpack.decode(columns())
    table = decode_table(msgspec.msgpack.encode([*row, b"later"]), 1)
    assert table.frames == decode_table(columns(), 1).frames


def test_a_sealer_checks_what_it_is_given() -> None:
    sealer = FrameSealer(DATA, SALT, IDENTITY)
    with pytest.raises(AssertionError):
        sealer.seal(b"x", bytes(32), [1, 1], codec=Codec.RAW)
    with pytest.raises(AssertionError):
        sealer.seal(b"x", bytes(32), [2], codec=Codec.RAW)


@pytest.mark.parametrize("codec", list(Codec))
def test_frames_sealed_together_are_those_sealed_one_by_one(codec: Codec) -> None:
    plains = [b"text and text and text " * 99, bytes(range(256)), b"tail"]
    contents = [(plain, bytes([n]) * 32, [len(plain)]) for n, plain in enumerate(plains)]
    together, singly = (FrameSealer(DATA, SALT, IDENTITY) for _ in range(2))
    first = together.seal_all(contents[:1], codec=codec)
    rest = together.seal_all(contents[1:], codec=codec)
    for content in contents:
        singly.seal(*content, codec=codec)
    assert [*first, *rest] == together.finish().frames == singly.finish().frames
    assert [frame.ordinal for frame in together.frames] == [0, 1, 2]
