"""Each reason belongs to one class, and what can be done about it is said."""

import pytest

from streamd.policy import classes
from streamd.sources.port import Outcome


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.OK])
def test_every_way_a_read_can_end_has_a_class(outcome) -> None:
    assert classes.class_of(outcome) in classes.FILE_CLASSES


def test_what_is_unknown_is_not_called_protected() -> None:
    assert classes.class_of("something new") == classes.UNREADABLE
    assert classes.remedy_of("something new") == ""


def test_the_remedy_for_a_running_server_names_its_tools() -> None:
    assert classes.class_of("postgres-running") == classes.FUZZY
    assert "pg_dump" in classes.remedy_of("postgres-running")
