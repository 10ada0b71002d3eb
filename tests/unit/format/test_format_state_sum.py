"""The state sum: any order of changes arrives at the same number."""

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from streamd.format.state_sum import MODULUS, term, to_bytes

rows = st.dictionaries(st.binary(max_size=20), st.binary(max_size=20), max_size=20)


def total(state: dict[bytes, bytes]) -> int:
    return sum(term(key, value) for key, value in state.items())


@given(rows, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(state: dict[bytes, bytes], random) -> None:
    items = list(state.items())
    random.shuffle(items)
    assert to_bytes(total(state)) == to_bytes(total(dict(items)))


@given(rows, rows)
def test_what_is_removed_is_taken_away_again(state: dict[bytes, bytes], more) -> None:
    new = {key: value for key, value in more.items() if key not in state}
    assert to_bytes(total(state | new) - total(new)) == to_bytes(total(state))


@given(rows, st.binary(max_size=20), st.binary(max_size=20))
def test_one_more_row_changes_it(state: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    changed = state | {key: value}
    assert (to_bytes(total(changed)) == to_bytes(total(state))) == (changed == state)


def test_key_and_value_are_told_apart() -> None:
    assert term(b"ab", b"c") != term(b"a", b"bc")


def test_a_sum_is_stored_little_endian_modulo_2_256() -> None:
    assert to_bytes(1) == b"\x01" + bytes(31)
    assert to_bytes(-1) == b"\xff" * 32
    assert to_bytes(MODULUS + 2) == to_bytes(2)
    assert term(b"k", b"v") == int.from_bytes(blake3(b"\x01\x00\x00\x00kv").digest(), "little")
