"""Cadence by example."""

import pytest

from streamd.policy.cadence import (
    Cadence,
    Changed,
    Cut,
    Event,
    Failed,
    Published,
    ReportBreach,
    ReportRecovery,
    State,
    Ticked,
    due_at,
    lag_seconds,
    spared_share,
    step,
)

CADENCE = Cadence(rpo_seconds=15)


def after(*events: Event) -> State:
    state = State()
    for event in events:
        state, _ = step(state, event, CADENCE)
    return state


@pytest.mark.parametrize(
    ("rpo", "settle", "latest"), [(15, 1, 1.875), (2, 0.5, 0.5), (3600, 1, 450)]
)
def test_the_waits_follow_from_the_rpo(rpo: float, settle: float, latest: float) -> None:
    assert Cadence(rpo).settle_seconds == settle
    assert Cadence(rpo).latest_seconds == latest


@pytest.mark.parametrize(
    ("cut", "latest"), [(0.1, 1.875), (1.0, 4.0), (2.0, 7.5), (3.0, 6.0), (5.0, 0.0), (9.0, 0.0)]
)
def test_cuts_of_a_busy_source_leave_it_rest_until_the_rpo_is_in_danger(cut, latest) -> None:
    assert Cadence(15, cut).latest_seconds == latest
    assert Cadence(15, cut).settle_seconds == min(1.0, latest)


@pytest.mark.parametrize(("share", "latest"), [(0.0, 1.875), (0.1, 1.875), (0.5, 4.0), (1.0, 7.5)])
def test_cuts_wait_for_each_other_only_where_that_spares_work(share, latest) -> None:
    assert Cadence(15, 2.0, share).latest_seconds == latest


def test_what_is_read_again_and_again_could_have_been_read_once() -> None:
    small = dict.fromkeys(range(2000), 200)
    others = dict.fromkeys(range(5000, 7000), 200)
    log = {9: 1 << 30}
    assert spared_share(small, others) == 0
    assert spared_share(small, small) == 1
    assert spared_share({}, small) == 0
    assert spared_share(small, {}) == 1
    assert spared_share({**others, **log}, {**small, **log}) > 0.8
    half = {**dict.fromkeys(range(1000), 200), **dict.fromkeys(range(5000, 6000), 200)}
    assert spared_share(small, half) == pytest.approx(0.5)


def test_a_burst_lands_in_one_cut_once_it_is_over() -> None:
    state = after(Changed(0), Changed(0.5), Changed(0.75))
    assert step(state, Ticked(1.7), CADENCE)[1] == ()
    state, commands = step(state, Ticked(1.75), CADENCE)
    assert commands == (Cut(),)
    assert due_at(state, CADENCE) is None


def test_nothing_is_cut_while_nothing_changed() -> None:
    assert step(State(), Ticked(1e6), CADENCE) == (State(), ())


def test_changes_during_a_cut_wait_for_the_next_one() -> None:
    state = after(Changed(0), Ticked(1), Changed(2))
    assert step(state, Ticked(9), CADENCE)[1] == ()
    state, _ = step(state, Published(9), CADENCE)
    assert step(state, Ticked(9), CADENCE)[1] == (Cut(),)


def test_a_failed_cut_is_tried_again_but_not_before_its_time() -> None:
    state = after(Changed(0), Ticked(1), Failed(2, retry_at=4))
    assert lag_seconds(state, 3) == 3
    assert step(state, Ticked(3.9), CADENCE)[1] == ()
    state, commands = step(state, Ticked(4), CADENCE)
    assert commands == (Cut(),)
    assert state.retry_at is None


def test_a_failure_without_a_cut_changes_nothing_but_the_wait() -> None:
    assert after(Failed(1, retry_at=2)) == State(retry_at=2)


def test_a_stuck_cut_is_reported_once_and_so_is_its_end() -> None:
    state, reports = after(Changed(0)), 0
    for now in range(200):
        state, commands = step(state, Ticked(now), CADENCE)
        reports += ReportBreach() in commands
    assert reports == 1
    state, commands = step(state, Published(200), CADENCE)
    assert commands == (ReportRecovery(),)
    assert lag_seconds(state, 200) == 0


def test_the_breach_goes_on_while_newer_changes_are_late_too() -> None:
    state = after(Changed(0), Ticked(1), Changed(2), Ticked(30))
    assert step(state, Published(30), CADENCE)[1] == ()
    assert step(state, Published(17), CADENCE)[1] == (ReportRecovery(),)
