"""What a survey of a tree that others change is not sure of."""

from unit.pipeline.captured import again, found_paths, gone, tree

from streamd.catalog.dirty import Depth
from streamd.pipeline.trail import Trail


def test_a_directory_that_is_gone_explains_what_was_to_be_looked_at_below_it() -> None:
    trail = Trail()
    assert trail.is_unlike(b"/r/d/e")
    assert list(trail.unexplained()) == [b"/r/d/e"]
    trail.was_absent(b"/r/d")
    assert list(trail.unexplained()) == []
    assert trail.is_unlike(b"/r/d")  # known to be absent: nothing new


def test_a_directory_that_is_found_anew_explains_it_too_unless_it_changes_after_that() -> None:
    trail = Trail()
    assert trail.is_unlike(b"/r/d")
    trail.was_anew(b"/r/d")
    assert list(trail.unexplained()) == []
    assert not trail.is_unlike(b"/r/d")


def test_places_below_a_directory_that_moved_are_found_in_one_look(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.write(docs, b"a", b"changed before it moved")
    one.fs.rename(one.root, b"docs", one.root, b"moved")
    places = [b"/r/docs/a", b"/r/docs", b"/r/moved"]
    survey = one.survey({path: Depth.BELOW if path == b"/r/moved" else 0 for path in places})
    findings = list(survey.findings())
    assert {b"/r/moved", b"/r/moved/a"} <= set(found_paths(findings))
    assert gone(findings) == [(one.fid(b"/r"), b"docs")]
    assert not survey.trail.slipped
    assert not again(findings)
    assert survey.trail.moves(one.lookup) == {b"/r/docs": b"/r/moved"}


def test_what_changes_after_it_was_found_has_slipped(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.write(docs, b"a", b"found like this")
    survey = one.survey({b"/r/docs/a": Depth.ENTRY, b"/r/docs": Depth.BELOW})
    findings = survey.findings()
    examine, looks = one.source.examine, []

    def examine_and_change(directory, names, **wishes):
        listing = examine(directory, names, **wishes)
        if not looks:
            looks.append(directory)
            one.fs.write(docs, b"a", b"and like that when it is met again")
        return listing

    one.source.examine = examine_and_change
    list(findings)
    assert survey.trail.slipped == [b"/r/docs/a"]


def test_the_names_that_a_file_keeps_follow_directories_that_moved(one) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.link(docs.children[b"a"], one.root, b"l1")
    one.fs.link(docs.children[b"a"], one.root, b"l2")
    one.capture()
    one.fs.rename(one.root, b"docs", one.root, b"moved")
    one.fs.remove(one.root, b"l1")
    one.fs.write(one.root, b"l2", b"new")
    survey = one.survey({b"/r/docs": 0, b"/r/moved": Depth.BELOW, b"/r/l1": 0, b"/r/l2": 0})
    findings = list(survey.findings())
    fid = next(
        entry.fid for finding in findings for entry in finding.found if entry.path == b"/r/l2"
    )
    assert survey.trail.names_left(one.lookup, fid) == {b"/r/moved/a", b"/r/l2"}


def test_a_directory_that_is_looked_at_again_is_as_old_as_what_was_to_be_seen_in_it(one) -> None:
    tree(one)
    one.capture()
    survey = one.survey({b"/r/docs/a": Depth.ENTRY, b"/r/docs": Depth.ENTRY})
    survey._since[b"/r/docs"] = 77  # a younger change than that of what is in it
    survey._since[b"/r/docs/a"] = 5
    examine = one.source.examine

    def examine_elsewhere(directory, names, **wishes):
        listing = examine(directory, names, **wishes)
        if directory == b"/r/docs" and listing.own is not None:
            listing.own = listing.own._replace(ino=999)  # and back again when it is asked for
        return listing

    one.source.examine = examine_elsewhere
    deferred = [place for finding in survey.findings() for place in finding.deferred]
    assert [place.first_us for place in deferred if place.path == b"/r/docs"] == [5]
