"""A file looks changed when anything the host says of it differs, and only then."""

import pytest

from streamd.model.host import HostStat

STAT = HostStat(1, 0o644, 0, 0, 5, 10, 11, 2049, 7, 1, 0)


def test_equal_stats_are_equal() -> None:
    assert HostStat(*STAT) == STAT


@pytest.mark.parametrize("field", HostStat._fields)
def test_any_difference_shows(field: str) -> None:
    assert STAT._replace(**{field: getattr(STAT, field) + 1}) != STAT
