"""The deepest level that is due is chosen."""

import pytest

from streamd.policy.verify_schedule import due_level

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
