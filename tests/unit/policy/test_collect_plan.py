"""What is collected: nothing that is needed, and nothing that is not worth it."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.collect_plan import Action, PackUse, plan_collection

HEADER = 600

packs = st.builds(
    lambda name, frames: PackUse(
        f"p{name}",
        HEADER + sum(size for size, _ in frames),
        sum(size for size, _ in frames),
        tuple(size for size, lives in frames if lives),
    ),
    st.integers(),
    st.lists(st.tuples(st.integers(1, 1 << 20), st.booleans()), max_size=20),
)


def only(pack: PackUse):
    (decision,) = plan_collection([pack]).decisions
    return decision


def test_a_pack_nobody_needs_is_deleted() -> None:
    decision = only(PackUse("p", 1000 + HEADER, 1000, ()))
    assert (decision.action, decision.freed_bytes) == (Action.DELETE, 1600)
    assert decision.reason == "nothing in it is needed"


def test_a_quarter_dead_is_worth_a_rewrite() -> None:
    decision = only(PackUse("p", 1000 + HEADER, 1000, (500, 250)))
    assert (decision.action, decision.freed_bytes) == (Action.REPACK, 250)
    assert decision.reason == "25% of 1000 bytes is dead"


def test_less_than_a_quarter_is_left_alone() -> None:
    decision = only(PackUse("p", 1000 + HEADER, 1000, (500, 251)))
    assert (decision.action, decision.freed_bytes) == (Action.KEEP, 0)
    assert decision.reason == "only 25% of 1000 bytes is dead"


def test_the_plan_sums_up_what_it_costs_and_gives() -> None:
    plan = plan_collection(
        [
            PackUse("dead", 110, 100, ()),
            PackUse("half", 110, 100, (50,)),
            PackUse("live", 110, 100, (100,)),
        ]
    )
    assert plan.names(Action.DELETE) == ("dead",)
    assert plan.names(Action.REPACK) == ("half",)
    assert plan.names(Action.KEEP) == ("live",)
    assert (plan.freed_bytes, plan.copied_bytes) == (160, 50)


@given(st.lists(packs))
def test_nothing_needed_is_deleted_without_being_copied(many: list[PackUse]) -> None:
    for decision in plan_collection(many).decisions:
        assert decision.action is not Action.DELETE or decision.pack.live_bytes == 0


@given(packs)
def test_a_rewritten_pack_is_never_rewritten_again(pack: PackUse) -> None:
    """Otherwise collection would not end: headers are no reason to rewrite."""
    again = PackUse("new", HEADER + pack.live_bytes, pack.live_bytes, pack.live_frame_bytes)
    assert only(again).action is (Action.KEEP if pack.live_frame_bytes else Action.DELETE)


@given(packs, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_higher_threshold_rewrites_less(pack: PackUse, one: float, other: float) -> None:
    low, high = sorted((one, other))
    (eager,) = plan_collection([pack], dead_share_min=low).decisions
    (patient,) = plan_collection([pack], dead_share_min=high).decisions
    assert patient.action is not Action.REPACK or eager.action is Action.REPACK
