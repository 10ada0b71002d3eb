"""Every entry is counted in exactly one class."""

import pytest

from streamd.catalog import dirty
from streamd.catalog.census import PathFinder, add_names, census, know_names, pending_paths
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import Depth, Problem
from streamd.catalog.tree import Intent, TreeWriter, load_source
from streamd.model.entry import EntryType
from streamd.model.host import HostStat

ROOT = b"/srv/www"


def stat_of(kind: EntryType, ino: int) -> HostStat:
    return HostStat(int(kind), 0o644, 0, 0, 1, 1, 1, 1, ino, 2, 0)


@pytest.fixture
def catalog(tmp_path):
    """A tree: the root, directory d with a and b, file c with a second name e; 6 entries."""
    catalog = Catalog(str(tmp_path))

    def build(connection):
        state = load_source(connection, "web", b"1" * 16)
        tree = TreeWriter(connection, state)
        number = state.number
        rows = [
            (-number, ROOT, 10, EntryType.DIRECTORY),
            (10, b"d", 11, EntryType.DIRECTORY),
            (11, b"a", 12, EntryType.REGULAR),
            (11, b"b", 13, EntryType.REGULAR),
            (10, b"c", 14, EntryType.REGULAR),
        ]
        tree.apply(
            [
                Intent(parent, name, fid, stat_of(kind, fid), b"v", again=False, is_fresh=True)
                for parent, name, fid, kind in rows
            ]
        )
        again = Intent(10, b"e", 14, stat_of(EntryType.REGULAR, 14), None, False, False)
        tree.apply([again])
        assert not tree.finish()
        assert not tree.dropped
        return number

    catalog.number = catalog.write_now(build)
    yield catalog
    catalog.close()


def counted(catalog, excluded=0):
    counts = catalog.write_now(census, catalog.number, (ROOT,), excluded=excluded)
    return {name: count for name, count in counts.items() if count}


def problem(catalog, path, reason):
    catalog.write_now(dirty.set_problem, catalog.number, Problem(path, reason, 0, 1))


def test_a_quiet_tree_is_protected_with_every_name(catalog) -> None:
    assert counted(catalog, excluded=3) == {"protected": 6, "excluded": 3}


def test_nobody_goes_through_all_entries_once_their_number_is_known(catalog) -> None:
    catalog.write_now(know_names, catalog.number)
    catalog.write_now(know_names, catalog.number)
    catalog.write_now(add_names, catalog.number, 4)
    catalog.write_now(add_names, catalog.number, -1)
    assert counted(catalog) == {"protected": 9}  # what was added up, not what is there

    def asked(connection):
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        census(connection, catalog.number, (ROOT,), excluded=0)
        connection.set_trace_callback(None)
        return statements

    assert not any("count(*)" in each for each in catalog.write_now(asked))


def test_a_number_that_nobody_knows_is_not_added_to(catalog) -> None:
    catalog.write_now(add_names, catalog.number, 4)
    assert counted(catalog) == {"protected": 6}


def test_what_has_a_problem_or_waits_is_in_no_other_class(catalog) -> None:
    problem(catalog, ROOT + b"/d/a", "fuzzy")
    problem(catalog, ROOT + b"/d/new", "unreadable")  # never captured
    problem(catalog, ROOT + b"/big", "too-large")
    places = {ROOT + b"/c": Depth.ENTRY, ROOT + b"/d/newer": Depth.ENTRY, ROOT + b"/d/a": 0}
    catalog.write_now(dirty.note, catalog.number, places, 5)
    catalog.write_now(dirty.note, catalog.number, {ROOT: Depth.SCAN}, 5)
    assert counted(catalog) == {
        "protected": 4,
        "pending": 2,
        "fuzzy": 1,
        "unreadable": 1,
        "too-large": 1,
    }
    waiting = catalog.write_now(pending_paths, catalog.number)
    assert sorted(path for path, _ in waiting) == [ROOT + b"/c", ROOT + b"/d/newer"]


def test_below_a_root_that_is_not_there_everything_has_vanished(catalog) -> None:
    problem(catalog, ROOT, "source-missing")
    assert counted(catalog) == {"vanished": 6}


def test_a_path_is_found_by_its_names_only(catalog) -> None:
    def find(connection, path):
        return PathFinder(connection, catalog.number, (ROOT,)).find(path)

    for path, fid in (
        (ROOT, 10),
        (ROOT + b"/d", 11),
        (ROOT + b"/d/b", 13),
        (ROOT + b"/e", 14),
        (ROOT + b"/x/y/z", None),
        (ROOT + b"/d/b/c", None),
        (b"/srv", None),
        (b"/", None),
        (b"/other/x", None),
    ):
        assert catalog.write_now(find, path) == fid, path


def test_problems_go_with_what_they_are_about(catalog) -> None:
    for path in (b"/d", b"/d/a", b"/d0", b"/d-1"):
        problem(catalog, ROOT + path, "unreadable")
    catalog.write_now(dirty.clear_problems_below, catalog.number, [ROOT + b"/d"])
    left = [one.path for one in catalog.write_now(dirty.problems, catalog.number)]
    assert sorted(left) == [ROOT + b"/d", ROOT + b"/d-1", ROOT + b"/d0"]
    catalog.write_now(dirty.clear_problems, catalog.number, [ROOT + b"/d"])
    left = [one.path for one in catalog.write_now(dirty.problems, catalog.number)]
    assert sorted(left) == [ROOT + b"/d-1", ROOT + b"/d0"]
