"""Rows are the same whether they are held in memory or in a database."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.vault.rows import Rows

KEYS = st.binary(min_size=1, max_size=2)
CHANGES = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=9), max_size=6)


def bounds() -> st.SearchStrategy[int]:
    return st.sampled_from([0, 600, 1 << 30])  # a database at once, in the middle, and never


@given(bounds(), CHANGES, KEYS, KEYS)
def test_rows_are_those_of_a_dictionary(bound, changes, low, high) -> None:
    rows, wanted = Rows(bound), {}
    try:
        for change in changes:
            before = {key: wanted[key] for key in change if key in wanted}
            assert rows.change(change) == before
            wanted |= {key: value for key, value in change.items() if value is not None}
            wanted = {
                key: value for key, value in wanted.items() if change.get(key, b"") is not None
            }
            assert rows.values(list(change)) == {k: wanted[k] for k in change if k in wanted}
        assert list(rows.all()) == sorted(wanted.items())
        inside = [row for row in sorted(wanted.items()) if low < row[0] < high]
        assert list(rows.between(low, high)) == inside
        assert rows.get(low) == wanted.get(low)
        rows.clear()
        assert list(rows.all()) == []
        rows.change({b"x": b"y"})
        assert list(rows.all()) == [(b"x", b"y")]
    finally:
        rows.close()


def test_what_is_too_much_for_memory_goes_to_a_database() -> None:
    rows = Rows(1000)
    rows.change({b"a": b"1"})
    assert rows._db is None
    for number in range(50):  # the same key again and again takes no more room
        rows.change({b"a": b"%d" % number})
    assert rows._db is None
    rows.change({b"%d" % number: b"v" for number in range(10)})
    assert rows._db is not None
    assert not rows._held
    rows.close()
