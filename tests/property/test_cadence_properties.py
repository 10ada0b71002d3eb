"""Whatever the pattern of changes, a source whose publishing is quick enough keeps its RPO."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.cadence import (
    Cadence,
    Changed,
    Cut,
    Failed,
    Published,
    ReportBreach,
    State,
    Ticked,
    due_at,
    lag_seconds,
    step,
)

CADENCE = Cadence(rpo_seconds=60)


@given(
    changes=st.sets(st.integers(0, 600), max_size=200),
    publish_seconds=st.integers(1, 14),
)
def test_quick_publishing_never_breaches(changes: set[int], publish_seconds: int) -> None:
    state, published_at = State(), None
    for now in range(1000):
        if now in changes:
            state, _ = step(state, Changed(now), CADENCE)
        if published_at == now:
            state, commands = step(state, Published(now), CADENCE)
            assert not commands
        state, commands = step(state, Ticked(now), CADENCE)
        assert ReportBreach() not in commands
        assert lag_seconds(state, now) <= CADENCE.rpo_seconds
        if Cut() in commands:
            published_at = now + publish_seconds
    assert lag_seconds(state, 1000) == 0


@given(
    rpo=st.floats(0.5, 3600),
    changes=st.lists(st.floats(0.001, 5), min_size=1, max_size=50),
)
def test_a_cut_is_due_at_half_the_rpo_however_busy_the_source_is(rpo, changes) -> None:
    cadence, state, now = Cadence(rpo), State(), 0.0
    for pause in changes:
        now += pause
        state, _ = step(state, Changed(now), cadence)
        due = due_at(state, cadence)
        assert due <= changes[0] + rpo / 2
        assert due >= min(now, changes[0] + cadence.latest_seconds)


events = st.lists(st.tuples(st.sampled_from(["change", "tick", "ok", "fail"]), st.integers(0, 9)))


@given(events)
def test_no_change_is_forgotten_before_it_is_published(sequence) -> None:
    """The lag counts from the oldest change that no successful cut contains."""
    state, now = State(), 0
    waiting: list[int] = []
    cut: list[int] | None = None
    for kind, pause in sequence:
        now += pause
        if kind == "change":
            state, _ = step(state, Changed(now), CADENCE)
            waiting.append(now)
        elif kind == "tick":
            state, commands = step(state, Ticked(now), CADENCE)
            if Cut() in commands:
                assert cut is None
                cut, waiting = waiting, []
        elif cut is not None:
            if kind == "fail":
                state, _ = step(state, Failed(now, now + 5), CADENCE)
                waiting = cut + waiting
            else:
                state, _ = step(state, Published(now), CADENCE)
            cut = None
        oldest = min((cut or []) + waiting, default=now)
        assert lag_seconds(state, now) == now - oldest
