"""The envelope: every byte has a meaning, and a wrong one is refused before anything is opened."""

import zlib

import msgspec
import pytest
from golden.materials import (
    ADMIN_PUBLIC,
    DOMAIN,
    SIGNER,
    VAULT,
    WRITER,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
)
from hypothesis import given
from hypothesis import strategies as st

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format import envelope
from streamd.format.codec import Codec
from streamd.format.crypto import digest
from streamd.format.envelope import (
    FLAGS,
    HEADER_AT,
    HEADER_SIZE_MAX,
    MAGIC,
    OBJECT_SIZE_MAX,
    TRAILER_SIZE,
    UNSEALED,
    Header,
    Kind,
    Section,
    SectionDraft,
)
from streamd.format.keys import index_source

SECRET = fixed("a secret")
TEXT = b"a section " * 100


def header(**more: object) -> Header:
    return Header(v=VAULT, d=DOMAIN, w=WRITER, t=1, ks=[index_source(DOMAIN)], **more)


def built(*drafts: SectionDraft, signed: bool = False, padded=lambda size: size) -> bytes:
    return bytes(
        envelope.build(
            Kind.CONDEMN,
            header(),
            drafts or [SectionDraft("a", (TEXT,), 0), SectionDraft("b", (b"x", b"y"), UNSEALED)],
            secrets={0: SECRET},
            entropy=CountedEntropy(),
            signer=SIGNER if signed else None,
            padded_size=padded,
        )
    )


def framed(body: bytes, *, kind: bytes = b"G", major: int = 1, flags: int = FLAGS) -> bytes:
    """Return an object with any header bytes at all."""
    fields = (flags.to_bytes(2, "little"), len(body).to_bytes(4, "little"))
    return (
        MAGIC + kind + bytes([major]) + b"".join(fields)
        + zlib.crc32(body).to_bytes(4, "little") + body
    )  # fmt: skip


def with_sections(*sections: Section) -> bytes:
    return framed(msgspec.msgpack.encode(header(sa=bytes(16), sec=list(sections))))


def open_it(data: bytes, tag: str = "a", secret: bytes = SECRET) -> bytes:
    return bytes(envelope.parse(data, Kind.CONDEMN).plain(tag, lambda _: secret))


def test_sections_come_back() -> None:
    parsed = envelope.parse(built(), Kind.CONDEMN)
    assert parsed.plain("a", lambda _: SECRET) == TEXT
    section = parsed.section("b")
    assert section is not None
    assert bytes(parsed.raw(section)) == b"xy"
    assert parsed.section("c") is None
    assert parsed.header.sec[0].offset == len(parsed.associated)


def test_the_fixed_part_is_what_the_specification_says() -> None:
    data = built()
    size = int.from_bytes(data[12:16], "little")
    assert data[:8] == b"STRMD\r\n\x1a"
    assert data[8:12] == b"G\x01\x03\x00"
    assert int.from_bytes(data[16:20], "little") == zlib.crc32(data[20 : 20 + size])
    assert envelope.header_end(data[:20]) == 20 + size


def test_every_build_has_a_salt_of_its_own_and_so_different_bytes() -> None:
    entropy = CountedEntropy()
    draft = [SectionDraft("a", (TEXT,), 0)]
    one, two = (
        envelope.build(Kind.CONDEMN, header(), draft, secrets={0: SECRET}, entropy=entropy)
        for _ in range(2)
    )
    assert one != two
    assert len(one) == len(two)


def test_two_sections_of_one_tag_cannot_be_built() -> None:
    with pytest.raises(AssertionError, match="one nonce"):
        built(SectionDraft("a", (b"1",), 0), SectionDraft("a", (b"2",), 0))


def test_the_same_plaintext_under_two_tags_gives_different_bytes() -> None:
    data = built(SectionDraft("a", (TEXT,), 0, Codec.RAW), SectionDraft("b", (TEXT,), 0, Codec.RAW))
    one, two = envelope.parse(data, Kind.CONDEMN).header.sec
    assert one.size == two.size == len(TEXT) + 16
    assert data[one.offset : one.offset + one.size] != data[two.offset : two.offset + two.size]


def test_another_kind_is_refused() -> None:
    with pytest.raises(VaultDamaged, match="stands where"):
        envelope.parse(built(), Kind.FINAL)


@pytest.mark.parametrize(
    "data", [b"", b"STRMD\r\n\x1a", b"STRMD\n\n\x1a" + bytes(40), bytes(64), b"PK\x03\x04" * 9]
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(VaultDamaged, match="not an object"):
        envelope.parse(data, Kind.CONDEMN)


@pytest.mark.parametrize("change", [{"major": 0}, {"major": 2}, {"flags": 7}, {"flags": 0x8003}])
def test_a_newer_format_is_told_apart_from_damage(change: dict[str, int]) -> None:
    with pytest.raises(FormatUnsupported):
        envelope.parse(framed(msgspec.msgpack.encode(header()), **change), Kind.CONDEMN)


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_known_flags_are_no_reason_to_refuse(flags: int) -> None:
    data = framed(msgspec.msgpack.encode(header()), flags=flags)
    assert envelope.parse(data, Kind.CONDEMN).header == header()


def test_a_header_longer_than_allowed_is_refused_before_it_is_read() -> None:
    data = bytearray(built())
    data[12:16] = (HEADER_SIZE_MAX + 1).to_bytes(4, "little")
    with pytest.raises(VaultDamaged, match="longer"):
        envelope.header_end(data)


def test_a_header_cut_off_or_changed_is_damage() -> None:
    data = built()
    end = envelope.header_end(data)
    for damaged in (data[: end - 1], data[:HEADER_AT], data[: end - 1] + b"\x00" + data[end:]):
        with pytest.raises(VaultDamaged, match="damaged"):
            envelope.parse(damaged, Kind.CONDEMN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"\x81\xa1v\xa2\xff\xfe",
        b"\x81\xa3why\xa2\xff\xfe",
        b"\x81\xa1v" + b"\x91" * 200_000,
        b"\x81\xa1z" + b"\x91" * 200_000 + b"\x01",
        b"\xdf\xff\xff\xff\xff",
        msgspec.msgpack.encode(header()) + b"\x00",
    ],
)
def test_a_header_that_is_no_header_is_damage(body: bytes) -> None:
    with pytest.raises(VaultDamaged, match="does not parse"):
        envelope.parse(framed(body), Kind.CONDEMN)


def test_a_field_added_to_the_header_later_is_ignored() -> None:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(header()))
    later = msgspec.msgpack.encode(fields | {"zz": [1, {"x": None}]})
    assert envelope.parse(framed(later), Kind.CONDEMN).header == header()


def start_of(*sections: Section) -> int:
    """Return where the sections of such a header would have to begin."""
    return envelope.header_end(with_sections(*sections))


def test_sections_must_stand_back_to_back_and_inside_an_object() -> None:
    start = start_of(Section("a", 200, 16, 0, 0, 0))
    envelope.parse(with_sections(Section("a", start, 16, 0, 0, 0)), Kind.CONDEMN)
    for offset in (start - 1, start + 1, 20, 0, -1):
        with pytest.raises(VaultDamaged, match="back to back"):
            envelope.parse(with_sections(Section("a", offset, 16, 0, 0, 0)), Kind.CONDEMN)
    with pytest.raises(VaultDamaged, match="back to back"):
        envelope.parse(with_sections(Section("a", start, -1, 0, 0, 0)), Kind.CONDEMN)
    start = start_of(Section("a", 200, OBJECT_SIZE_MAX, 0, 0, 0))
    with pytest.raises(VaultDamaged, match="longer"):
        envelope.parse(with_sections(Section("a", start, OBJECT_SIZE_MAX, 0, 0, 0)), Kind.CONDEMN)


def test_a_section_named_twice_is_damage() -> None:
    start = start_of(Section("a", 200, 16, 0, 0, 0), Section("a", 216, 16, 0, 0, 0))
    with pytest.raises(VaultDamaged, match="twice"):
        envelope.parse(
            with_sections(Section("a", start, 16, 0, 0, 0), Section("a", start + 16, 16, 0, 0, 0)),
            Kind.CONDEMN,
        )


def test_the_beginning_of_an_object_can_be_parsed_and_what_is_whole_in_it_opened() -> None:
    data = built()
    end = envelope.header_end(data)
    parsed = envelope.parse(data[:end], Kind.CONDEMN)
    with pytest.raises(VaultDamaged, match="cut off"):
        parsed.plain("a", lambda _: SECRET)
    first = parsed.header.sec[0]
    assert open_it(data[: first.offset + first.size]) == TEXT


@pytest.mark.parametrize("row", [1, UNSEALED, -2])
def test_a_section_without_a_key_cannot_be_opened_as_a_sealed_one(row: int) -> None:
    start = start_of(Section("a", 200, 16, row, 0, 0))
    with pytest.raises(VaultDamaged, match="missing"):
        open_it(with_sections(Section("a", start, 16, row, 0, 0)) + bytes(16))
    with pytest.raises(VaultDamaged, match="missing"):
        open_it(built(), "z")


def test_an_unknown_suite_needs_a_newer_streamd() -> None:
    source = msgspec.structs.replace(index_source(DOMAIN), suite=2)
    data = envelope.build(
        Kind.CONDEMN,
        msgspec.structs.replace(header(), ks=[source]),
        [SectionDraft("a", (TEXT,), 0)],
        secrets={0: SECRET},
        entropy=CountedEntropy(),
    )
    with pytest.raises(FormatUnsupported):
        open_it(bytes(data))


def test_another_secret_opens_nothing() -> None:
    with pytest.raises(VaultDamaged, match="authenticate"):
        open_it(built(), secret=fixed("another secret"))


def test_a_header_swapped_for_another_of_the_same_key_opens_nothing() -> None:
    data = built()
    end = envelope.header_end(data)
    fields = envelope.parse(data, Kind.CONDEMN).header
    forged = framed(msgspec.msgpack.encode(msgspec.structs.replace(fields, t=2)))
    assert len(forged) == end
    with pytest.raises(VaultDamaged, match="authenticate"):
        open_it(forged + data[end:])


def test_a_signed_object_says_its_hash_and_no_other_key_verifies_it() -> None:
    data = built(signed=True)
    hashed = envelope.verify_signature(data, WRITER_PUBLIC)
    assert hashed == digest(data[:-TRAILER_SIZE]) == envelope.signed_hash(data)
    with pytest.raises(VaultDamaged, match="not signed"):
        envelope.verify_signature(data, ADMIN_PUBLIC)


def test_a_signed_object_cut_off_or_changed_is_refused() -> None:
    data = built(signed=True)
    for size in (0, 19, 20, 100, 119, len(data) - 1, len(data) - TRAILER_SIZE):
        with pytest.raises(VaultDamaged):
            envelope.verify_signature(data[:size], WRITER_PUBLIC)
    with pytest.raises(VaultDamaged):
        envelope.verify_signature(data + b"\x00", WRITER_PUBLIC)
    with pytest.raises(VaultDamaged, match="match its hash"):
        envelope.verify_signature(data[:40] + b"\x00" + data[41:], WRITER_PUBLIC)
    with pytest.raises(VaultDamaged, match="not signed"):
        envelope.verify_signature(data[:-10] + bytes(6) + data[-4:], WRITER_PUBLIC)


def test_an_object_is_padded_to_the_size_asked_for() -> None:
    for signed in (False, True):
        assert len(built(signed=signed, padded=envelope.multiple_of(4096))) == 4096
    data = built(signed=True, padded=envelope.padme)
    assert envelope.padme(len(data)) == len(data)
    assert open_it(data) == TEXT


@given(st.integers(0, 2**40))
def test_padme_adds_little_and_leaves_few_sizes(size: int) -> None:
    padded = envelope.padme(size)
    assert size <= padded <= size * 1.12
    assert envelope.padme(padded) == padded
    if size > 1:
        exponent = padded.bit_length() - 1
        assert padded % (1 << max(exponent - exponent.bit_length(), 0)) == 0


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_padme_never_turns_sizes_around(a: int, b: int) -> None:
    assert (a <= b) <= (envelope.padme(a) <= envelope.padme(b))


@given(st.integers(0, 2**30), st.integers(1, 2**20))
def test_a_multiple_is_the_next_one(size: int, step: int) -> None:
    rounded = envelope.multiple_of(step)(size)
    assert rounded % step == 0
    assert 0 <= rounded - size < step


def test_a_signer_does_not_print_its_key() -> None:
    assert SIGNER.signing_key.hex() not in repr(SIGNER)
    assert repr(SIGNER.signing_key) not in repr(SIGNER)


def test_an_object_without_sections_has_no_salt() -> None:
    data = envelope.build(
        Kind.EPOCH, header(), [], secrets={}, entropy=CountedEntropy(), signer=SIGNER
    )
    assert envelope.parse(data, Kind.EPOCH).header == header()
