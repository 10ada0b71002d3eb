"""The circuit: when a service is left alone, and how one probe finds out that it is back."""

from hypothesis import given
from hypothesis import strategies as st

from streamd.policy.circuit import CAUSES, FAILURES_BEFORE_OPEN, Circuit


def failed(circuit: Circuit, cause: str, *, now: float = 0.0, fraction: float = 0.5) -> Circuit:
    return circuit.failed(cause, now=now, fraction=fraction)


def test_one_lost_connection_opens_nothing_and_several_in_a_row_do() -> None:
    circuit = Circuit()
    for _ in range(FAILURES_BEFORE_OPEN - 1):
        circuit = failed(circuit, "unreachable")
        assert circuit.state == "closed"
        assert circuit.may_ask(0)
    circuit = failed(circuit, "unreachable")
    assert (circuit.state, circuit.cause) == ("open", "unreachable")


def test_an_answer_that_works_forgets_failures() -> None:
    assert failed(Circuit(), "unreachable").closed() == Circuit()


def test_what_the_service_says_itself_opens_at_once() -> None:
    for cause in CAUSES:
        if cause != "unreachable":
            assert failed(Circuit(), cause).state == "open"


def test_the_wait_asked_for_is_kept() -> None:
    circuit = Circuit().failed("throttled", now=100, fraction=0.0, retry_after_seconds=30)
    assert circuit.retry_at == 130
    assert not circuit.may_ask(129.9)
    assert circuit.may_ask(130)


def test_while_a_probe_is_under_way_nobody_else_asks() -> None:
    circuit = failed(Circuit(), "credential").probing()
    assert not circuit.may_ask(1e9)
    assert circuit.given_back().may_ask(1e9)


def test_a_change_that_may_have_mended_it_is_tried_at_once() -> None:
    circuit = failed(failed(Circuit(), "credential").probing(), "credential", now=5)
    assert circuit.hurried(6).may_ask(6)
    assert Circuit().hurried(6) == Circuit()


@given(st.sampled_from(CAUSES), st.floats(0, 1, exclude_max=True))
def test_waits_grow_and_stay_below_a_minute(cause: str, fraction: float) -> None:
    circuit, now = Circuit(failures=FAILURES_BEFORE_OPEN), 0.0
    for _ in range(40):
        circuit = failed(circuit.probing() if circuit.cause else circuit, cause, now=now,
                         fraction=fraction)  # fmt: skip
        assert 0 <= circuit.retry_at - now <= 60
        now = circuit.retry_at
    if fraction > 0.5 and cause != "unreachable":
        assert circuit.retry_at - failed(circuit, cause, now=0).retry_at is not None


def test_a_day_without_the_service_costs_a_few_thousand_probes() -> None:
    import random

    rng = random.Random(1)
    for cause, most in (("unreachable", 20_000), ("throttled", 4_000), ("credential", 4_000)):
        circuit, now, probes = Circuit(failures=FAILURES_BEFORE_OPEN), 0.0, 0
        while now < 86_400:
            circuit = circuit.failed(cause, now=now, fraction=rng.random())
            now = circuit.retry_at
            circuit = circuit.probing()
            probes += 1
        assert probes < most
