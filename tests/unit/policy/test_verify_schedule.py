"""The deepest level that is due is chosen."""

import pytest

from streamd.policy.verify_schedule import (
    LEVELS,
    RETRIES_MAX,
    RETRY,
    Failure,
    after_failure,
    after_look,
    due_level,
    with_retry,
)

DAY = 86_400
US = 1_000_000
INTERVALS = {"list": DAY, "structure": 7 * DAY, "sample": DAY, "full": 0}
NOW = 100 * DAY * US


def ago(days: float) -> int:
    return NOW - int(days * DAY * US)


@pytest.mark.parametrize(
    ("last", "more", "level"),
    [
        ({}, {}, "sample"),
        ({}, {"deepest": "list"}, "list"),
        ({"list": ago(0.5), "structure": ago(8), "sample": ago(0.5)}, {}, "structure"),
        ({"list": ago(2), "structure": ago(1), "sample": ago(0.5)}, {}, "list"),
        ({"list": ago(0.1), "structure": ago(0.1), "sample": ago(0.1)}, {}, None),
        (
            {"list": ago(0.1), "structure": ago(0.2), "sample": ago(0.1)},
            {"checkpoint_us": ago(0.15)},
            "structure",
        ),
        (
            {"list": ago(0.1), "structure": ago(0.2), "sample": ago(0.1)},
            {"checkpoint_us": ago(0.3)},
            None,
        ),
        ({"list": ago(0.1)}, {"checkpoint_us": ago(0), "deepest": "list"}, None),
    ],
)
def test_the_deepest_level_that_is_due(last, more, level) -> None:
    assert due_level(NOW, last, INTERVALS, **more) == level


def test_a_level_without_an_interval_is_never_due() -> None:
    assert due_level(NOW, {}, {}) is None
    assert due_level(NOW, {}, {"full": DAY}) == "full"


def test_a_look_that_met_a_fault_is_tried_again_later_and_later_and_not_for_ever() -> None:
    failure, now, waits = None, NOW, []
    while failure is None or failure.retry_us:
        failure = after_failure(failure, "full", now, fraction=0.5)
        if failure.retry_us:
            assert with_retry(failure.retry_us - 1, None, failure, {"full": DAY}) is None
            assert with_retry(failure.retry_us, None, failure, {"full": DAY}) == "full"
            waits.append((failure.retry_us - now) / US)
            now = failure.retry_us
    assert len(waits) == RETRIES_MAX
    assert waits == [RETRY.bound_seconds(number) * 0.75 for number in range(RETRIES_MAX)]
    assert with_retry(now + 100 * DAY * US, None, failure, {"full": DAY}) is None
    anew = after_failure(failure, "full", now, fraction=0.0)  # in its next regular turn
    assert (anew.tries, anew.retry_us) == (1, now + int(RETRY.base_seconds / 2) * US)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("failed", LEVELS)
def test_the_deepest_level_that_failed_is_tried_again_until_it_or_a_deeper_one_came_to_its_end(
    level, failed
) -> None:
    before = Failure(failed, 2, NOW)
    deepest = max(level, failed, key=LEVELS.index)
    assert after_failure(before, level, NOW, fraction=0).level == deepest
    assert after_failure(before, level, NOW, fraction=0).tries == 3
    assert after_look(before, level) == (None if deepest == level else before)
    every = dict.fromkeys(LEVELS, DAY)
    assert with_retry(NOW, level, before, every) == deepest
    assert with_retry(NOW, level, before, {}) == level, "nobody wants the other any more"
    assert after_look(None, level) is None
    assert with_retry(NOW, level, None, every) == level
