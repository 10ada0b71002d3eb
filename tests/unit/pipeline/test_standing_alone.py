"""A large file that stays where it is may be captured by itself; whatever else is left to a cut."""

import pytest
from unit.pipeline.captured import DIRECTORY, REGULAR, again, found_paths, tree

from streamd.catalog import dirty
from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.pipeline import survey as survey_module
from streamd.pipeline.standing_alone import LoneLook
from streamd.pipeline.survey import Survey

LARGE = bytes(range(200)) * 3


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(survey_module, "ALONE_MIN", 400)
    monkeypatch.setattr(survey_module, "BATCH_BYTES_MAX", 400)


def leaving(one, places: dict[bytes, int]) -> Survey:
    rows = [DirtyPlace(path, depth, one.us) for path, depth in places.items()]
    survey = Survey(
        one.source, one.lookup, one.in_flight, rows, lambda: next(one.fids), leaves_large=True
    )
    one.record(list(survey.findings()))
    return survey


def lone(one, path: bytes) -> LoneLook:
    place = DirtyPlace(path, Depth.ENTRY, 7)
    return LoneLook(
        one.source, one.lookup, one.in_flight, place, lambda: next(one.fids), size_min=400
    )


def test_a_large_file_that_changed_or_is_new_is_left_and_the_rest_is_found(one) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.create(docs, b"large", REGULAR, LARGE)
    one.capture()
    one.fs.write(docs, b"large", LARGE + b"more")
    one.fs.create(docs, b"new", REGULAR, LARGE)
    one.fs.write(docs, b"a", b"AAAA")
    survey = leaving(one, {b"/r/docs": Depth.BELOW})
    assert survey.trail.large.keys() == {b"/r/docs/large", b"/r/docs/new"}
    assert one.fid(b"/r/docs/new") is None
    for path in sorted(survey.trail.large):
        look = lone(one, path)
        (finding,) = look.findings()
        assert finding.is_large
        assert found_paths([finding]) == [path]
        assert not look.was_captured()
        one.record([finding])
        assert look.was_captured()
        assert list(lone(one, path).findings()) == [], "it is as captured"
    assert one.fid(b"/r/docs/new") is not None


def test_what_moved_has_several_names_or_is_no_large_file_is_not_left(one) -> None:
    tree(one)
    for name in (b"moved", b"linked", b"replaced", b"shrunk", b"over"):
        one.fs.create(one.root, name, REGULAR, LARGE + name)
    one.fs.link(one.root.children[b"linked"], one.root, b"second")
    one.capture()
    one.fs.rename(one.root, b"moved", one.root, b"elsewhere")
    one.fs.write(one.root, b"linked", LARGE + b"more")
    one.fs.rename(one.root, b"over", one.root, b"replaced")
    one.fs.write(one.root, b"shrunk", b"little")
    survey = leaving(one, {b"/r": Depth.BELOW})
    assert not survey.trail.large
    names = {one.root.children[name].ino for name in (b"linked", b"replaced", b"elsewhere")}
    assert len(names) == 3
    assert one.fid(b"/r/elsewhere") is not None


@pytest.mark.parametrize("what", ["gone", "moved", "directory", "parent moved", "in flight"])
def test_whatever_else_is_met_is_left_to_a_live_cut(one, what) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.create(docs, b"large", REGULAR, LARGE)
    one.capture()
    if what == "gone":
        one.fs.remove(docs, b"large")
    elif what == "directory":
        one.fs.remove(docs, b"large")
        one.fs.create(docs, b"large", DIRECTORY, mode=0o755)
    elif what == "moved":
        one.fs.remove(docs, b"large")
        one.fs.create(one.root, b"other", REGULAR, LARGE)
        one.record(one.look({b"/r/other": Depth.ENTRY}))
        one.fs.rename(one.root, b"other", docs, b"large")
    elif what == "parent moved":
        one.fs.write(docs, b"large", LARGE + b"more")
        one.fs.rename(one.root, b"docs", one.root, b"papers")
        one.fs.create(one.root, b"docs", DIRECTORY, mode=0o755)
    else:
        one.fs.write(docs, b"large", LARGE + b"more")
        one.look({b"/r/docs/large": Depth.ENTRY})  # found by another, and not recorded yet
    findings = list(lone(one, b"/r/docs/large").findings())
    assert again(findings) == {b"/r/docs/large": Depth.ENTRY}
    assert found_paths(findings) == []


def test_a_large_file_that_is_being_read_by_itself_is_handed_on(one) -> None:
    one.fs.create(one.root, b"large", REGULAR, LARGE)
    one.capture()
    one.fs.write(one.root, b"large", LARGE + b"1")
    (finding,) = lone(one, b"/r/large").findings()
    one.fs.write(one.root, b"large", LARGE + b"2")
    assert one.in_flight.has_path(b"/r/large")
    assert not one.in_flight.has_path(b"/r")
    for _ in range(2):
        survey = leaving(one, {b"/r/large": Depth.ENTRY})
        assert survey.trail.large.keys() == {b"/r/large"}
        assert survey.trail.slipped == [b"/r/large"]
        assert not survey.trail.deferred, "nobody has to look again and again meanwhile"
        if b"large" in one.root.children:
            one.fs.remove(one.root, b"large")
    one.record([finding])


def test_places_are_handed_over_with_their_age_and_come_back_when_nobody_goes_on(one) -> None:
    number, db = one.state.number, one.db
    dirty.note(db, number, {b"/r/a": Depth.ENTRY, b"/r/s": Depth.SCAN}, 10)
    (picked,) = dirty.pick(db, number, 1, scan=False, limit=9)
    places = [picked, DirtyPlace(b"/r/new", Depth.ENTRY, 5), DirtyPlace(b"/r/s", Depth.ENTRY, 3)]
    dirty.hand_over(db, number, [(place, 7 + at, 0) for at, place in enumerate(places)])
    dirty.resolve(db, number, 1)
    assert dirty.pick(db, number, 2, scan=False, limit=9) == []
    assert dirty.oldest_us(db, number) == 3
    assert [each.path for each in dirty.pick(db, number, 3, scan=True, limit=9)] == [b"/r/s"]
    dirty.note(db, number, {b"/r/new": Depth.ENTRY}, 20)  # it changes again
    dirty.hand_over(db, number, [(DirtyPlace(b"/r/new", Depth.ENTRY, 20), 11, 8)])
    dirty.resolve(db, number, 8)  # which had begun
    assert dirty.oldest_us(db, number) == 3
    dirty.resolve(db, number, 9)
    dirty.resolve(db, number, 3)
    assert dirty.oldest_us(db, number) == 5, "of what the former one had"
    dirty.note(db, number, {b"/r/a": Depth.ENTRY}, 20)  # this one too
    dirty.resolve(db, number, 7)
    dirty.release(db, number)
    left = dirty.pick(db, number, 4, scan=False, limit=9)
    assert {(place.path, place.first_us) for place in left} == {(b"/r/a", 5), (b"/r/new", 5)}
