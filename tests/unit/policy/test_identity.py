"""Whether an entry is the file that had its inode number when it was captured."""

import pytest

from streamd.model.host import HostStat, Identity
from streamd.policy.identity import Known, is_same_file

FILE = HostStat(1, 0o644, 0, 0, 5, 10, 11, 2049, 7, 1, 0)
DIRECTORY = FILE._replace(type=2, size=0, nlink=2)


def known(stat: HostStat = FILE, generation: int = 0, birth_ns: int = 0) -> Known:
    return Known(stat, generation, birth_ns)


def seen(generation: int = 0, birth_ns: int = 0) -> Identity:
    return Identity(2049, 7, generation, birth_ns)


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("stat", [FILE, DIRECTORY, FILE._replace(nlink=2)])
def test_the_handle_tells_whatever_else_is_there(stat, is_in_place) -> None:
    changed = stat._replace(size=99, mtime_ns=99, ctime_ns=99)
    assert is_same_file(known(stat, 5, 1), changed, seen(5, 2), is_in_place=is_in_place)
    assert not is_same_file(known(stat, 5, 1), stat, seen(6, 1), is_in_place=is_in_place)


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize(("generation", "now"), [(0, 5), (5, 0), (0, 0)])
def test_without_a_handle_on_both_sides_the_birth_tells(generation, now, is_in_place) -> None:
    changed = DIRECTORY._replace(mtime_ns=99)
    before = known(DIRECTORY, generation, 3)
    assert is_same_file(before, changed, seen(now, 3), is_in_place=is_in_place)
    assert not is_same_file(before, DIRECTORY, seen(now, 4), is_in_place=is_in_place)


@pytest.mark.parametrize(("birth", "now"), [(0, 3), (3, 0), (0, 0)])
def test_without_either_the_place_the_links_or_the_times_tell(birth, now) -> None:
    def is_same(stat: HostStat, other: HostStat, *, is_in_place: bool) -> bool:
        before = known(stat, 0, birth)
        return is_same_file(before, other, seen(0, now), is_in_place=is_in_place)

    for stat in (FILE, DIRECTORY):
        assert is_same(stat, stat._replace(mtime_ns=99, size=9), is_in_place=True)
        assert is_same(stat, stat._replace(ctime_ns=99), is_in_place=False)
        assert not is_same(stat, stat._replace(mtime_ns=99), is_in_place=False)
    assert not is_same(FILE, FILE._replace(size=6), is_in_place=False)
    linked = FILE._replace(nlink=2, mtime_ns=99, size=9)
    assert is_same(FILE, linked, is_in_place=False)


@pytest.mark.parametrize("other", [FILE._replace(ino=8), FILE._replace(type=3)])
def test_another_number_or_type_is_another_file(other) -> None:
    assert not is_same_file(known(FILE, 5, 3), other, seen(5, 3), is_in_place=True)
