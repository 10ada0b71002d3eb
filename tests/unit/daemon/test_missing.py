"""A path that is not there is told at once, and taken for a deletion late and with proof."""

import os

import pytest

from streamd.catalog.lookup import NodeRow
from streamd.daemon.missing import MissingRoots, is_deleted
from streamd.model.host import HostStat


class Lookup:
    root = -1

    def __init__(self, row):
        self.row = row

    def named(self, parent, names):
        return {} if self.row is None else dict.fromkeys(names, self.row)


def row(dev, ino=5):
    return NodeRow(1, HostStat(2, 0o755, 0, 0, 0, 1, 1, dev, ino, 1, 0), 0)


def test_ten_minutes_without_a_break_are_needed():
    missing = MissingRoots(600.0)
    missing.saw({b"/a"}, set(), 0.0)
    missing.saw(set(), set(), 100.0)  # a look elsewhere says nothing
    missing.saw({b"/a", b"/b"}, set(), 500.0)
    assert missing.due(599.0) == []
    assert missing.due(600.0) == [b"/a"]
    assert missing.saw(set(), {b"/a"}, 601.0) == {b"/a"}
    assert missing.roots == {b"/b"}
    missing.saw({b"/a"}, set(), 602.0)
    assert missing.due(1100.0) == [b"/b"]


def test_it_is_deleted_when_its_directory_is_on_the_file_system_it_was_on(tmp_path):
    root, here = os.fsencode(tmp_path / "gone"), os.stat(tmp_path).st_dev
    assert is_deleted(root, Lookup(row(here)))


@pytest.mark.parametrize("why", ["mount gone", "holder gone", "there", "unknown", "rebuilt"])
def test_in_all_other_cases_it_is_only_missing(tmp_path, why):
    root, here = tmp_path / "gone", os.stat(tmp_path).st_dev
    known = row(here)
    if why == "mount gone":
        known = row(here + 1)
    elif why == "holder gone":
        root = tmp_path / "no" / "gone"
    elif why == "there":
        root.mkdir()
    elif why == "unknown":
        known = None
    else:
        known = row(here, ino=0)
    assert not is_deleted(os.fsencode(root), Lookup(known))
