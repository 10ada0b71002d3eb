"""Object names: parsed back exactly, sorted as their numbers, and nothing else parses."""

import pytest
from golden.materials import DOMAIN, WRITER, fixed
from hypothesis import given
from hypothesis import strategies as st

from streamd.format import layout
from streamd.format.layout import JournalPosition
from streamd.model.ids import SourceId, to_text

SOURCE = SourceId(fixed("source", 16))
D = to_text(DOMAIN)
epochs = st.integers(0, 2**32 - 1)
positions = st.builds(JournalPosition, epochs, st.integers(0, 2**48 - 1))
instants = st.integers(0, 2**52 * 1000 - 1)


@given(positions, positions)
def test_segments_parse_back_and_sort_by_position(a: JournalPosition, b: JournalPosition) -> None:
    name, other = (layout.segment_name(DOMAIN, WRITER, p) for p in (a, b))
    assert layout.parse_segment_name(name) == a
    assert (name < other) == (a < b)
    assert name.startswith(layout.journal_prefix(DOMAIN, WRITER))


@given(epochs, epochs)
def test_epochs_parse_back_and_sort(a: int, b: int) -> None:
    name, other = (layout.epoch_name(DOMAIN, WRITER, e) for e in (a, b))
    assert layout.parse_epoch_name(name) == a
    assert (name < other) == (a < b)


@given(instants, instants)
def test_checkpoints_parse_back_and_sort_by_time(a: int, b: int) -> None:
    name, other = (layout.checkpoint_name(DOMAIN, SOURCE, t, bytes(8)) for t in (a, b))
    assert layout.parse_checkpoint_name(name) == (SOURCE, a // 1000)
    assert (name < other) == (a // 1000 < b // 1000)
    assert name.startswith(layout.checkpoint_prefix(DOMAIN))
    assert name.startswith(layout.checkpoint_prefix(DOMAIN, SOURCE))


@given(epochs, epochs)
def test_lists_parse_back_and_sort_before_their_finals(a: int, b: int) -> None:
    name, final = layout.condemn_name(DOMAIN, a), layout.final_name(DOMAIN, a)
    assert layout.parse_condemn_name(name) == (a, False)
    assert layout.parse_condemn_name(final) == (a, True)
    assert name < final
    assert (name < layout.condemn_name(DOMAIN, b)) == (a < b)


@given(st.binary(min_size=32, max_size=32))
def test_packs_parse_back(pack_hash: bytes) -> None:
    name = layout.pack_name(DOMAIN, pack_hash)
    assert layout.parse_pack_name(name) == pack_hash
    assert name.startswith(layout.pack_prefix(DOMAIN))


@given(st.integers(0, 999_998))
def test_control_objects_sort_by_number(number: int) -> None:
    assert layout.config_name(number) < layout.config_name(number + 1)
    assert layout.config_name(number).startswith(layout.CONFIG_PREFIX)
    small = number % 0xFFFF
    assert layout.certificate_name(WRITER, small) < layout.certificate_name(WRITER, small + 1)
    assert layout.ring_name(small, b"\xff" * 8) < layout.ring_name(small + 1, bytes(8))


def test_names_are_what_the_specification_says() -> None:
    w = to_text(WRITER)
    assert layout.config_name(3) == "v/config-000003.json"
    assert layout.ring_name(1, bytes(8)) == "k/ring-0001-aaaaaaaaaaaaa"
    assert layout.slot_name(bytes(8)) == "k/slot-aaaaaaaaaaaaa"
    assert layout.certificate_name(WRITER, 0) == f"w/{w}/cert-0000.json"
    assert layout.epoch_name(DOMAIN, WRITER, 1) == f"d/{D}/e/{w}/00000001"
    assert layout.segment_name(DOMAIN, WRITER, JournalPosition(1, 10)) == (
        f"d/{D}/j/{w}/00000001/00000000000a"
    )
    assert layout.pack_name(DOMAIN, bytes(32)) == f"d/{D}/p/aa/{'a' * 52}"
    assert layout.checkpoint_name(DOMAIN, SOURCE, 16_000, bytes(8)) == (
        f"d/{D}/c/{to_text(SOURCE)}/0000000000010-aaaaaaaaaaaaa"
    )
    assert layout.final_name(DOMAIN, 2) == f"d/{D}/g/00000002.fin"


PARSERS = [
    layout.parse_segment_name,
    layout.parse_epoch_name,
    layout.parse_pack_name,
    layout.parse_checkpoint_name,
    layout.parse_condemn_name,
]


@pytest.mark.parametrize("parse", PARSERS)
@given(
    name=st.one_of(
        st.text(max_size=60), st.lists(st.sampled_from("dejpcgx0a-.F"), max_size=9).map("/".join)
    )
)
def test_no_name_makes_a_parser_fall_over(parse, name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize(
    ("parse", "name"),
    [
        (layout.parse_segment_name, f"d/{D}/j/w/00000001/0000000000"),
        (layout.parse_segment_name, f"d/{D}/j/w/0000001/00000000000a"),
        (layout.parse_segment_name, f"d/{D}/j/w/00000001/00000000000A"),
        (layout.parse_segment_name, f"d/{D}/k/w/00000001/00000000000a"),
        (layout.parse_epoch_name, f"d/{D}/e/w/+0000001"),
        (layout.parse_epoch_name, f"d/{D}/x/w/00000001"),
        (layout.parse_epoch_name, f"x/{D}/e/w/00000001"),
        (layout.parse_epoch_name, f"d/{D}/e/00000001"),
        (layout.parse_pack_name, f"d/{D}/p/ab/{'a' * 52}"),
        (layout.parse_pack_name, f"d/{D}/p/aa/{'a' * 51}"),
        (layout.parse_pack_name, f"d/{D}/p/aa/{'a' * 26}"),
        (layout.parse_pack_name, f"d/{D}/p/11/{'1' * 52}"),
        (layout.parse_pack_name, f"d/{D}/q/aa/{'a' * 52}"),
        (layout.parse_checkpoint_name, f"d/{D}/c/{'a' * 26}/0000000000010"),
        (layout.parse_checkpoint_name, f"d/{D}/c/{'a' * 26}/0000000000010-"),
        (layout.parse_checkpoint_name, f"d/{D}/c/{'a' * 26}/000000000001-aaaaaaaaaaaaa"),
        (layout.parse_checkpoint_name, f"d/{D}/c/{'1' * 26}/0000000000010-aaaaaaaaaaaaa"),
        (layout.parse_checkpoint_name, f"d/{D}/b/{'a' * 26}/0000000000010-aaaaaaaaaaaaa"),
        (layout.parse_condemn_name, f"d/{D}/g/00000001.fin.fin"),
        (layout.parse_condemn_name, f"d/{D}/g/0000001"),
        (layout.parse_condemn_name, f"d/{D}/h/00000001"),
    ],
)
def test_almost_a_name_is_not_a_name(parse, name: str) -> None:
    assert parse(name) is None
