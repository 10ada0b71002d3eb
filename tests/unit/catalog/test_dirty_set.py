"""The dirty set: who has a place in hand, how old it is, and what a crash leaves."""

import pytest

from streamd.catalog import dirty
from streamd.catalog.db import Catalog
from streamd.catalog.dirty import Depth, DirtyPlace, Problem
from streamd.catalog.tree import load_source

SOURCE = 1


@pytest.fixture
def ask(tmp_path):
    """Call a function of the dirty set for source 1, in a transaction of its own."""
    catalog = Catalog(str(tmp_path))
    catalog.write_now(load_source, "one", b"1" * 16)
    catalog.write_now(load_source, "two", b"2" * 16)
    yield lambda work, *args, **options: catalog.write_now(work, SOURCE, *args, **options)
    catalog.close()


def pick(ask, survey: int, *, scan: bool = False, limit: int = 100) -> list[DirtyPlace]:
    return ask(dirty.pick, survey, scan=scan, limit=limit)


def test_the_oldest_places_are_picked_first_and_once(ask) -> None:
    for age, path in ((30, b"c"), (10, b"a"), (20, b"b")):
        ask(dirty.note, {path: Depth.ENTRY}, age)
    assert [place.path for place in pick(ask, 1, limit=2)] == [b"a", b"b"]
    assert [place.path for place in pick(ask, 2)] == [b"c"]
    assert pick(ask, 3) == []
    assert not ask(dirty.has_unpicked, scan=False)


def test_scans_and_looks_do_not_take_from_each_other(ask) -> None:
    ask(dirty.note, {b"a": Depth.BELOW, b"r": Depth.SCAN}, 1)
    assert [place.path for place in pick(ask, 1, scan=True)] == [b"r"]
    assert [place.path for place in pick(ask, 2)] == [b"a"]


def test_a_known_place_keeps_its_age_and_its_depth(ask) -> None:
    ask(dirty.note, {b"a": Depth.BELOW}, 10)
    ask(dirty.note, {b"a": Depth.ENTRY}, 20)
    assert pick(ask, 1) == [DirtyPlace(b"a", Depth.BELOW, 10)]


def test_an_older_age_wins(ask) -> None:
    ask(dirty.note, {b"a": Depth.ENTRY}, 20)
    ask(dirty.note, {b"a": Depth.ENTRY}, 10)
    assert pick(ask, 1) == [DirtyPlace(b"a", Depth.ENTRY, 10)]


def test_an_event_during_a_survey_asks_for_another_with_a_new_age(ask) -> None:
    ask(dirty.note, {b"a": Depth.BELOW}, 10)
    pick(ask, 1)
    ask(dirty.note, {b"a": Depth.ENTRY}, 20)
    ask(dirty.resolve, 1)
    assert pick(ask, 2) == [DirtyPlace(b"a", Depth.ENTRY, 20)]


def test_until_a_survey_is_resolved_its_age_counts(ask) -> None:
    """The row of the place is young again, but what it was picked for is not durable."""
    ask(dirty.note, {b"a": Depth.ENTRY}, 10)
    pick(ask, 1)
    ask(dirty.note, {b"a": Depth.ENTRY}, 20)
    assert ask(dirty.oldest_us) == 10
    ask(dirty.resolve, 1)
    assert ask(dirty.oldest_us) == 20


def test_a_crash_gives_the_age_of_the_survey_back(ask, tmp_path) -> None:
    ask(dirty.note, {b"a": Depth.ENTRY}, 10)
    pick(ask, 1)
    ask(dirty.note, {b"a": Depth.ENTRY}, 20)
    ask(lambda connection, _: dirty.release_all(connection))
    assert ask(dirty.oldest_us) == 10
    assert pick(ask, 1) == [DirtyPlace(b"a", Depth.ENTRY, 10)]


def test_releasing_one_source_leaves_the_other(tmp_path) -> None:
    catalog = Catalog(str(tmp_path))
    for name in (b"1", b"2"):
        source = catalog.write_now(load_source, name.decode(), name * 16).number
        catalog.write_now(dirty.note, source, {b"a": Depth.ENTRY}, 10)
        catalog.write_now(dirty.pick, source, source, scan=False, limit=9)
    catalog.write_now(dirty.release, 1)
    assert catalog.write_now(dirty.has_unpicked, 1, scan=False)
    assert not catalog.write_now(dirty.has_unpicked, 2, scan=False)
    assert catalog.write_now(dirty.oldest_us, 2) == 10
    catalog.close()


def test_what_is_put_back_keeps_its_age_and_is_picked_again(ask) -> None:
    ask(dirty.note, {b"a": Depth.ENTRY}, 10)
    pick(ask, 1)
    ask(dirty.put_back, [DirtyPlace(b"a", Depth.BELOW, 5), DirtyPlace(b"b", Depth.ENTRY, 7)])
    ask(dirty.resolve, 1)
    assert pick(ask, 2) == [
        DirtyPlace(b"a", Depth.BELOW, 5),
        DirtyPlace(b"b", Depth.ENTRY, 7),
    ]


def test_nothing_dirty_has_no_age(ask) -> None:
    assert ask(dirty.oldest_us) is None
    ask(dirty.note, {b"a": Depth.ENTRY}, 10)
    pick(ask, 1)
    ask(dirty.resolve, 1)
    assert ask(dirty.oldest_us) is None
    assert ask(dirty.count) == 0


def test_a_problem_keeps_its_age_while_its_reason_stays(ask) -> None:
    ask(dirty.set_problem, Problem(b"a", "unreadable", 13, 10))
    ask(dirty.set_problem, Problem(b"a", "unreadable", 13, 20))
    assert ask(dirty.problems) == [Problem(b"a", "unreadable", 13, 10)]
    ask(dirty.set_problem, Problem(b"a", "io-error", 5, 30))
    assert ask(dirty.problems) == [Problem(b"a", "io-error", 5, 30)]
    assert ask(dirty.problems_by_reason) == {"io-error": 1}
    ask(dirty.clear_problems, [b"a", b"b"])
    assert ask(dirty.problem_count) == 0
