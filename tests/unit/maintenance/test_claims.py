"""Who holds a chunk is the same whether that is in memory or in a database."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.maintenance.claims import Claims

IDS = st.lists(st.sampled_from([bytes([n]) * 32 for n in range(12)]), max_size=8)
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "claim", "move"]), IDS, st.integers(0, 5)), max_size=12
)


@given(st.sampled_from([0, 3, 1000]), STEPS, IDS)
def test_claims_are_those_of_a_dictionary(bound, steps, asked) -> None:
    claims, wanted = Claims(bound), {}
    try:
        for what, ids, number in steps:
            if what == "add":
                claims.add(ids)
                wanted = dict.fromkeys(ids, -1) | wanted
            elif what == "claim":
                found = {each for each in ids if wanted.get(each) == -1}
                assert claims.claim(ids, number) == found
                wanted |= dict.fromkeys(found, number)
            else:
                claims.move(ids, number)
                wanted |= {each: number for each in ids if each in wanted}
        assert sorted(claims.ids()) == sorted(wanted)
        assert claims.count_unheld() == list(wanted.values()).count(-1)
        held = {each: wanted[each] for each in asked if wanted.get(each, -1) >= 0}
        assert claims.holders_of(asked) == held
    finally:
        claims.close()


def test_many_chunks_go_to_a_database() -> None:
    claims = Claims(10)
    claims.add(b"%032d" % n for n in range(10))
    assert claims._db is None
    claims.add([b"x" * 32])
    assert claims._db is not None
    assert claims.claim([b"x" * 32], 7) == {b"x" * 32}
    assert claims.count_unheld() == 10
    claims.close()
