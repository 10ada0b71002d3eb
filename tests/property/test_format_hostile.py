"""A vault is hostile input: whatever its bytes are, a reader returns the truth or a StreamdError."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import lz4.block
import msgspec
import pytest
import zstandard
from golden.forge import Forged, forge, header_fields, prefixed
from golden.invalid import list_with, pack_with, segment_with
from golden.materials import (
    ADMIN_PUBLIC,
    DOMAIN,
    KEK,
    RECOVERY_CODE,
    VAULT,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    host_key,
    key_chain,
)
from golden.specimens import CHAIN, META, PACKS, READERS, SOURCE, Specimen, specimens
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.errors import FormatUnsupported, KeyRejected, StreamdError, VaultDamaged
from streamd.format import (
    checkpoint,
    chunklist,
    control,
    envelope,
    frame,
    history_run,
    index_run,
    keys,
    layout,
    pack,
    ring,
    segment,
    slots,
    vault_config,
)
from streamd.format.codec import PLAIN_SIZE_MAX, decompress
from streamd.format.envelope import HEADER_SIZE_MAX, Kind
from streamd.format.keys import KeyChain, Role
from streamd.model.ids import VaultId

MIB = 1024 * 1024
SPECIMENS = specimens()
AUTHENTIC = [each.file for each in SPECIMENS.values() if each.reader != "host-key" and each.name]
BINARY = [file for file in AUTHENTIC if file.endswith(".bin")]
# a base64 field whose length is no multiple of three has bits that mean nothing
LOOSE = {"slot.json", "slot-key-file.json", "slot-passphrase.json", "slot-recovery-code.json"}


def read(specimen: Specimen, data: bytes) -> object:
    return READERS[specimen.reader](data, specimen.name)


def open_slot(data: bytes, code: str) -> bytes:
    secret = slots.Secret(slots.SlotKind.RECOVERY_CODE, code.encode())
    return slots.open_slot(slots.decode_slot(data, VAULT), slots.Stretcher(secret))


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8 % len(data)
    return data[:at] + bytes((data[at] ^ 1 << bit % 8,)) + data[at + 1 :]


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", AUTHENTIC)
@settings(max_examples=100)
@given(bit=st.integers(0, 2**20))
def test_any_flipped_bit_is_detected(file: str, bit: int) -> None:
    specimen = SPECIMENS[file]
    if file in LOOSE:
        try:
            assert read(specimen, flipped(specimen.data, bit)) == read(specimen, specimen.data)
        except StreamdError:
            return
    else:
        with pytest.raises((VaultDamaged, FormatUnsupported)):
            read(specimen, flipped(specimen.data, bit))


@pytest.mark.parametrize("file", [file for file in BINARY if file.startswith("pack")])
@settings(max_examples=100)
@given(bit=st.integers(0, 2**20))
def test_a_pack_read_by_ranges_gives_the_truth_or_nothing(file: str, bit: int) -> None:
    """A reader of ranges does not hash the whole pack; padding may be damaged without harm."""
    specimen = SPECIMENS[file]._replace(reader="pack-by-range")
    damaged = flipped(specimen.data, bit)
    try:
        assert read(specimen, damaged) == read(specimen, specimen.data)
    except (VaultDamaged, FormatUnsupported, KeyRejected):
        return
    header = envelope.parse(specimen.data, Kind.PACK).header
    padding_at = header.sec[-1].offset + header.sec[-1].size
    assert damaged[:padding_at] == specimen.data[:padding_at]


@pytest.mark.parametrize("file", BINARY)
def test_an_object_cut_off_anywhere_is_refused(file: str) -> None:
    specimen = SPECIMENS[file]
    size = len(specimen.data)
    cuts = set(range(min(size, 64))) | set(range(0, size, 97)) | set(range(size - 130, size))
    end = envelope.header_end(specimen.data)
    cuts |= {end - 1, end, end + 1}
    for section in envelope.parse(specimen.data, Kind(chr(specimen.data[8]))).header.sec:
        cuts |= {section.offset + section.size + step for step in (-1, 0, 1)}
    for cut in sorted(cuts):
        if 0 <= cut < size:
            with pytest.raises(VaultDamaged):
                read(specimen, specimen.data[:cut])


@pytest.mark.parametrize("file", BINARY)
def test_bytes_added_or_lost_inside_are_refused(file: str) -> None:
    specimen = SPECIMENS[file]
    data = specimen.data
    for at in range(0, len(data), 61):
        for damaged in (data[:at] + b"\x00" + data[at:], data[:at] + data[at + 1 :]):
            with pytest.raises((VaultDamaged, FormatUnsupported)):
                read(specimen, damaged)


# -- the wrong thing in the right place ------------------------------------------------------------


@pytest.mark.parametrize("file", BINARY)
def test_no_object_passes_for_one_of_another_kind(file: str) -> None:
    data = SPECIMENS[file].data
    for other in BINARY:
        if data[8] != SPECIMENS[other].data[8]:
            with pytest.raises(VaultDamaged):
                read(SPECIMENS[other], data)


def test_a_pack_under_the_name_of_another_is_refused() -> None:
    one, two = SPECIMENS["pack-codecs.bin"], SPECIMENS["pack-three-origins.bin"]
    with pytest.raises(VaultDamaged):
        read(one, two.data)


def test_a_segment_says_its_own_position_so_a_swapped_one_shows() -> None:
    one, two = SPECIMENS["segment-plain.bin"], SPECIMENS["segment-inline.bin"]
    first = segment.decode_segment(one.data, WRITER_PUBLIC)
    second = segment.decode_segment(two.data, WRITER_PUBLIC)
    assert layout.parse_segment_name(one.name) == first.position != second.position
    assert second.previous == first.hash
    assert first.previous != second.hash


@pytest.mark.parametrize("file", BINARY)
@settings(max_examples=25)
@given(data=st.data())
def test_sections_exchanged_between_objects_are_refused(file: str, data: st.DataObject) -> None:
    """Even when the thief can sign: a section belongs to its header."""
    specimen = SPECIMENS[file]
    head = envelope.header_end(specimen.data)
    donor = SPECIMENS[data.draw(st.sampled_from(BINARY))].data
    body = donor[envelope.header_end(donor) :]
    if donor == specimen.data or head == len(specimen.data) - envelope.TRAILER_SIZE:
        return
    with pytest.raises(VaultDamaged):
        read(specimen, specimen.data[:head] + body)


def other_vault() -> KeyChain:
    """Return the keys of another vault, with the same key pairs by accident."""
    host = msgspec.structs.replace(
        host_key(), vault=fixed("vault 2", 16), domain_secret=fixed("domain secret 2")
    )
    return KeyChain(host)


@pytest.mark.parametrize("file", [file for file in BINARY if file[:4] not in {"ring", "epoc"}])
def test_a_copy_from_another_vault_is_refused(file: str) -> None:
    data, stranger = SPECIMENS[file].data, other_vault()
    decoders: dict[str, Callable[[], object]] = {
        "P": lambda: pack.decode_pack_index(data, stranger.secret_for),
        "J": lambda: segment.decode_segment(data, WRITER_PUBLIC).records(stranger.secret_for),
        "C": lambda: checkpoint.decode_checkpoint(data, WRITER_PUBLIC, stranger.secret_for),
        "G": lambda: control.decode_condemned(data, WRITER_PUBLIC, stranger.secret_for),
        "F": lambda: control.decode_finalised(data, WRITER_PUBLIC, stranger.secret_for),
        "X": lambda: decode_index(data, WRITER_PUBLIC, stranger.secret_for),
        "H": lambda: history_run.decode_run(data, WRITER_PUBLIC, stranger.secret_for),
    }
    decode_index = index_run.decode_shard if "shard" in file else index_run.decode_manifest
    with pytest.raises((VaultDamaged, KeyRejected)):
        decoders[chr(data[8])]()


def test_a_session_sealed_for_another_vault_does_not_open() -> None:
    foreign = keys.new_session(
        VaultId(fixed("vault 2", 16)), host_key().public, Role.META, CountedEntropy("foreign")
    )
    with pytest.raises(KeyRejected):
        key_chain().secret_for(foreign.source)


# -- declared sizes ------------------------------------------------------------------------------


def peak_of(refused: Callable[[], object]) -> int:
    """Return the peak of memory while something is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(StreamdError):
            refused()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def records_of(data: bytes) -> object:
    return segment.decode_segment(data, WRITER_PUBLIC).records(CHAIN.secret_for)


def test_a_declared_size_above_the_limit_allocates_nothing() -> None:
    data = segment_with(b"\x90", codec=2, plain_size=PLAIN_SIZE_MAX + 1)
    assert peak_of(lambda: records_of(data)) < MIB
    assert peak_of(lambda: decompress(b"", 0, PLAIN_SIZE_MAX + 1)) < MIB


def test_a_bomb_costs_no_more_than_it_declared() -> None:
    zeros = bytes(30 * MIB)
    honest = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    boasting = zstandard.ZstdCompressor().compress(zeros)
    block = lz4.block.compress(zeros, store_size=False)
    for codec, body in ((2, honest), (2, boasting), (1, block)):
        data = segment_with(body, codec=codec, plain_size=1000)
        assert peak_of(lambda data=data: records_of(data)) < len(data) * 4 + MIB


def test_a_header_longer_than_allowed_is_not_read() -> None:
    data = prefixed(b"\xc0" * (HEADER_SIZE_MAX + 1), kind=b"P")
    assert peak_of(lambda: envelope.parse(data, Kind.PACK)) < MIB // 4


@pytest.mark.parametrize("field", ["ks", "og", "src", "sec"])
def test_a_header_full_of_the_smallest_rows_stays_small_in_memory(field: str) -> None:
    rows: dict[str, list[Any]] = {
        "ks": [[0, 0, 0, 0, b"", b""]] * 100_000,
        "og": [[9, b""]] * 250_000,
        "src": [b""] * 500_000,
        "sec": [["", 0, 0, 0, 0, 0]] * 130_000,
    }
    body = msgspec.msgpack.encode(header_fields(**{field: rows[field]}))
    assert len(body) <= HEADER_SIZE_MAX

    def refused() -> None:
        envelope.parse(prefixed(body, kind=b"P"), Kind.PACK)
        pack.decode_pack_index(prefixed(body, kind=b"P"), CHAIN.secret_for)

    assert peak_of(refused) < 64 * MIB


# -- fuzz ----------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
wire_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.binary(max_size=40),
        st.text(max_size=9),
        st.floats(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=25,
)
wire_bytes = st.one_of(st.binary(max_size=200), wire_values.map(msgspec.msgpack.encode))


@st.composite
def mutated(draw, specimen: Specimen) -> bytes:
    """Return a specimen after a few careless edits."""
    data = bytearray(specimen.data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at : at + 1] = draw(st.binary(max_size=4))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 60))]
        elif kind == 2:
            data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]))
        else:
            data[at:at] = bytes(data[: draw(st.integers(0, 80))])
    return bytes(data)


def only_streamd_errors(call: Callable[[], object]) -> None:
    try:
        call()
    except StreamdError:
        return


def every_reader(data: bytes) -> None:
    for reader, call in READERS.items():
        name = next((s.name for s in SPECIMENS.values() if s.reader == reader), "")
        only_streamd_errors(lambda call=call, name=name: call(data, name))
    only_streamd_errors(lambda: pack.index_end(data))


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_by_every_reader(data: bytes) -> None:
    every_reader(data)
    every_reader(envelope.MAGIC + data)


@pytest.mark.parametrize("file", list(SPECIMENS))
@given(data=st.data())
def test_careless_edits_are_refused_in_an_orderly_way(file: str, data: st.DataObject) -> None:
    specimen = SPECIMENS[file]
    if file == "slot.json":  # a changed digit may ask for real work: bounded, but slow
        return
    only_streamd_errors(lambda: read(specimen, data.draw(mutated(specimen))))


@given(wire_bytes, st.sampled_from("JPCGFEK"))
def test_any_header_at_all(body: bytes, kind: str) -> None:
    every_reader(prefixed(body, kind=kind.encode()))


header_like = st.fixed_dictionaries(
    dict.fromkeys(("v", "d", "w", "t"), wire_values),
    optional=dict.fromkeys(
        ("cf", "ks", "sa", "sec", "r", "og", "om", "e", "s", "p", "src", "why", "g"), wire_values
    ),
)
typed_header = st.fixed_dictionaries(
    {"v": st.binary(max_size=17), "d": st.binary(max_size=17), "w": st.binary(max_size=17),
     "t": st.integers(-(2**63), 2**64 - 1)},
    optional={
        "ks": st.lists(st.tuples(*[st.integers(-1, 5)] * 4, st.binary(max_size=9),
                                 st.binary(max_size=80)), max_size=3),
        "sa": st.binary(max_size=20),
        "sec": st.lists(st.tuples(st.sampled_from(["i", "c", "j", "g", "k", "mi", "m"]),
                                  *[st.integers(-2, 400)] * 5), max_size=4),
        "og": st.lists(st.tuples(st.integers(-2, 3), st.binary(max_size=17)), max_size=3),
        "e": st.integers(-(2**63), 2**64 - 1), "s": st.integers(-(2**63), 2**64 - 1),
        "src": st.lists(st.binary(max_size=17), max_size=3),
    },
)  # fmt: skip


@given(st.one_of(header_like, typed_header), st.sampled_from("JPCGFEK"), st.binary(max_size=300))
def test_headers_of_any_content(fields: dict[str, Any], kind: str, rest: bytes) -> None:
    every_reader(prefixed(msgspec.msgpack.encode(fields), kind=kind.encode()) + rest)
    every_reader(forge(kind.encode(), fields, []))


@given(wire_bytes)
def test_any_plaintext_inside_what_authenticates(body: bytes) -> None:
    """The deepest parsers, reached by somebody who holds every key."""
    only_streamd_errors(lambda: records_of(segment_with(body)))
    inner = forge(b"C", header_fields(ks=[META.source]), [Forged("c", body, META.secret)])
    only_streamd_errors(
        lambda: checkpoint.decode_checkpoint(inner, WRITER_PUBLIC, CHAIN.secret_for)
    )
    source = keys.KeySource(1, 0, Role.RING, 1, bytes(8), b"")
    sealed = forge(b"K", header_fields(ks=[source]), [Forged("k", body, KEK)])
    only_streamd_errors(lambda: ring.decode_ring(sealed, KEK))
    for kind, decode in ((b"G", control.decode_condemned), (b"F", control.decode_finalised)):
        listed = forge(kind, header_fields(g=4), [Forged("g", body, CHAIN.domain_keys.index_key)])
        only_streamd_errors(lambda d=decode, x=listed: d(x, WRITER_PUBLIC, CHAIN.secret_for))
    only_streamd_errors(lambda: frame.decode_table(body, 1))
    only_streamd_errors(lambda: checkpoint.decode_page(body))
    only_streamd_errors(lambda: chunklist.decode_page(body))


@given(wire_values)
def test_any_list_body(body: Any) -> None:
    only_streamd_errors(
        lambda: control.decode_condemned(list_with(body), WRITER_PUBLIC, CHAIN.secret_for)
    )


u32_columns = st.lists(st.sampled_from([0, 1, 2, 5, 2**22, 2**32 - 1]), max_size=4).map(
    lambda values: b"".join(value.to_bytes(4, "little") for value in values)
)


@given(
    st.integers(-1, 5),
    st.tuples(*[u32_columns] * 4),
    st.binary(max_size=4),
    u32_columns,
    st.integers(0, 3),
    u32_columns,
)
def test_any_frame_table(count, columns, codecs, chunks, ids: int, sizes) -> None:
    body = msgspec.msgpack.encode([count, *columns, codecs, chunks, bytes(32 * ids), sizes])
    only_streamd_errors(lambda: frame.decode_table(body, 2))


@given(st.lists(st.tuples(st.binary(max_size=60), st.sampled_from([0, 1, 2, 3, 255]),
                          st.integers(0, 2**22)), max_size=3))  # fmt: skip
def test_any_frames_in_a_pack(frames) -> None:
    rows = [
        (body, bytes(32), {"codec": codec, "plain": plain, "sizes": [plain]})
        for body, codec, plain in frames
    ]
    only_streamd_errors(lambda: READERS["pack-by-range"](pack_with(rows), ""))


@given(st.binary(max_size=300), st.sampled_from([0, 1, 2, 7]), st.integers(0, 100_000))
def test_any_compressed_bytes(data: bytes, codec: int, size: int) -> None:
    only_streamd_errors(lambda: decompress(data, codec, size))
    only_streamd_errors(lambda: decompress(b"\x28\xb5\x2f\xfd" + data, 2, size))


@given(json_values, st.sampled_from(["config", "slot", "host-key", "certificate"]))
def test_any_json(value: Any, reader: str) -> None:
    only_streamd_errors(lambda: READERS[reader](json.dumps(value).encode(), "x"))


@given(st.data())
def test_json_with_one_field_of_any_content(data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(["slot.json", "host-key-full.json", "config.json"]))
    document = json.loads(SPECIMENS[file].data)
    field = data.draw(st.sampled_from(sorted(document)))
    document[field] = data.draw(json_values)
    if file == "slot.json" and field in {"iterations", "memory_kib"}:
        document["salt"] = ""  # refused before any stretching, whatever the number
    only_streamd_errors(lambda: READERS[SPECIMENS[file].reader](json.dumps(document).encode(), "x"))


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_where_a_signature_or_code_belongs(text: str, code: str) -> None:
    body = json.dumps({"body": {}, "sig": text}).encode()
    only_streamd_errors(
        lambda: vault_config.decode_signed(body, ADMIN_PUBLIC, vault_config.VaultConfig)
    )
    only_streamd_errors(lambda: open_slot(SPECIMENS["slot.json"].data, code))


def test_the_specimens_read_and_the_real_code_opens_the_slot() -> None:
    for specimen in SPECIMENS.values():
        read(specimen, specimen.data)
    assert open_slot(SPECIMENS["slot.json"].data, RECOVERY_CODE) == KEK
    assert {SPECIMENS[file].reader for file in AUTHENTIC} >= {"pack", "segment", "ring"}
    assert READERS.keys() >= PACKS
    assert SOURCE != DOMAIN
