"""Looking at dirty places: what is found, what is left alone, and what nothing is concluded from."""

from errno import EACCES

from unit.pipeline.captured import (
    DIRECTORY,
    REGULAR,
    Captured,
    again,
    found_paths,
    gone,
    tree,
)

from streamd.catalog.dirty import Depth
from streamd.pipeline import survey as survey_module
from streamd.pipeline.in_flight import InFlight
from streamd.sources.port import Listing


def test_a_new_tree_is_found_whole_parents_first(one) -> None:
    tree(one)
    paths = found_paths(one.capture())
    assert set(paths) == {b"/r", b"/r/docs", b"/r/docs/a", b"/r/docs/b", b"/r/link"}
    assert paths.index(b"/r") < paths.index(b"/r/docs") < paths.index(b"/r/docs/a")
    assert one.paths() == set(paths)


def test_an_unchanged_tree_gives_no_findings(one) -> None:
    tree(one)
    one.capture()
    assert one.look({b"/r": Depth.SCAN}) == []
    assert one.look({b"/r/docs/a": Depth.ENTRY, b"/r/docs": Depth.BELOW}) == []


def test_a_change_is_found_where_it_is_dirty_and_nowhere_else(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.write(docs, b"a", b"AAAA")
    one.fs.write(docs, b"b", b"BBBB")
    findings = one.look({b"/r/docs/a": Depth.ENTRY})
    assert found_paths(findings) == [b"/r/docs/a"]
    assert findings[0].found[0].fid == one.fid(b"/r/docs/a")


def test_a_renamed_directory_moves_alone(one) -> None:
    tree(one)
    one.capture()
    fid, below = one.fid(b"/r/docs"), one.fid(b"/r/docs/a")
    one.fs.rename(one.root, b"docs", one.root, b"papers")
    findings = one.look({b"/r/docs": Depth.BELOW, b"/r/papers": Depth.BELOW})
    assert b"/r/papers" in found_paths(findings)
    assert not [path for path in found_paths(findings) if path.startswith(b"/r/papers/")]
    assert not one.record(findings)
    assert one.fid(b"/r/papers") == fid
    assert one.fid(b"/r/papers/a") == below
    assert one.fid(b"/r/docs") is None


def test_a_renamed_file_keeps_its_identity(one) -> None:
    tree(one)
    one.capture()
    docs, fid = one.root.children[b"docs"], one.fid(b"/r/docs/a")
    one.fs.rename(docs, b"a", one.root, b"moved")
    one.record(one.look({b"/r/docs/a": Depth.ENTRY, b"/r/moved": Depth.ENTRY}))
    assert one.fid(b"/r/moved") == fid
    assert one.fid(b"/r/docs/a") is None


def test_an_inode_used_again_is_another_file(one) -> None:
    tree(one)
    one.capture()
    docs, fid = one.root.children[b"docs"], one.fid(b"/r/docs/a")
    ino = docs.children[b"a"].ino
    one.fs.remove(docs, b"a")
    new = one.fs.create(docs, b"c", REGULAR, b"something else")
    assert new.ino == ino
    one.record(one.look({b"/r/docs/a": Depth.ENTRY, b"/r/docs/c": Depth.ENTRY}))
    assert one.fid(b"/r/docs/c") not in {None, fid}
    assert one.fid(b"/r/docs/a") is None


def test_two_directories_that_change_places_keep_what_is_below(one) -> None:
    tree(one)
    other = one.fs.create(one.root, b"other", DIRECTORY, mode=0o755)
    one.fs.create(other, b"x", REGULAR, b"x")
    one.capture()
    fids = one.fid(b"/r/docs"), one.fid(b"/r/other"), one.fid(b"/r/docs/a"), one.fid(b"/r/other/x")
    one.fs.exchange(one.root, b"docs", one.root, b"other")
    assert not one.record(one.look({b"/r/docs": Depth.BELOW, b"/r/other": Depth.BELOW}))
    now = one.fid(b"/r/other"), one.fid(b"/r/docs"), one.fid(b"/r/other/a"), one.fid(b"/r/docs/x")
    assert now == fids


def test_hard_links_are_read_once(one) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.link(docs.children[b"a"], one.root, b"l1")
    one.fs.link(docs.children[b"a"], one.root, b"l2")
    findings = one.capture()
    links = [
        found
        for finding in findings
        for found in finding.found
        if found.path in (b"/r/docs/a", b"/r/l1", b"/r/l2")
    ]
    assert len(links) == 3
    assert sum(found.read for found in links) == 1
    assert len({found.fid for found in links}) == 1


def test_a_name_that_leaves_has_the_others_looked_at(one) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.link(docs.children[b"a"], one.root, b"l1")
    one.capture()
    one.fs.write(one.root, b"l1", b"written through the other name")
    one.fs.remove(one.root, b"l1")
    findings = one.look({b"/r/l1": Depth.ENTRY})
    assert gone(findings) == [(one.fid(b"/r"), b"l1")]
    assert b"/r/docs/a" in found_paths(findings)


def test_removals_come_last(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.remove(docs, b"a")
    one.fs.create(one.root, b"new", REGULAR, b"n")
    findings = one.look({b"/r/docs/a": Depth.ENTRY, b"/r/new": Depth.ENTRY})
    with_gone = [index for index, finding in enumerate(findings) if finding.gone]
    with_found = [index for index, finding in enumerate(findings) if finding.found]
    assert with_gone == [len(findings) - 1]
    assert with_found
    assert min(with_gone) >= max(with_found)


def test_what_came_back_before_the_end_is_not_removed(one) -> None:
    """Another survey may have recorded what came back; removing it would lose it."""
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.remove(docs, b"a")
    one.fs.create(one.root, b"new", REGULAR, b"n")
    findings = one.survey({b"/r/docs/a": Depth.ENTRY, b"/r/new": Depth.BELOW}).findings()
    one.fs.roots  # noqa: B018
    looked = []
    examine = one.source.examine

    def coming_back(directory, names, **wishes):
        listing = examine(directory, names, **wishes)
        if b"a" not in docs.children and directory == b"/r/docs":
            one.fs.create(docs, b"a", REGULAR, b"back")
        return listing

    one.source.examine = coming_back
    looked = list(findings)
    assert not gone(looked)
    assert b"/r/docs/a" in again(looked)


def test_what_another_survey_has_in_hand_is_left_for_later(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.write(docs, b"a", b"first")
    first = one.look({b"/r/docs/a": Depth.ENTRY})  # not recorded yet
    one.fs.write(docs, b"a", b"second")
    second = one.look({b"/r/docs/a": Depth.ENTRY})
    assert found_paths(second) == []
    assert again(second) == {b"/r/docs/a": Depth.ENTRY}
    one.record(first)
    assert found_paths(one.look({b"/r/docs/a": Depth.ENTRY})) == [b"/r/docs/a"]


def test_a_file_in_hand_under_another_name_is_left_for_later(one) -> None:
    tree(one)
    docs = one.root.children[b"docs"]
    one.fs.link(docs.children[b"a"], one.root, b"hard")
    one.capture()
    one.fs.write(docs, b"a", b"first")
    first = one.look({b"/r/docs/a": Depth.ENTRY})
    one.fs.write(docs, b"a", b"second")
    second = one.look({b"/r/hard": Depth.ENTRY})
    assert b"/r/docs/a" in found_paths(first)
    assert found_paths(second) == []
    assert b"/r/hard" in again(second)


def test_a_removal_in_hand_is_left_alone(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.remove(docs, b"a")
    first = one.look({b"/r/docs/a": Depth.ENTRY})
    one.fs.create(docs, b"a", REGULAR, b"again")
    second = one.look({b"/r/docs/a": Depth.ENTRY})
    assert gone(first)
    assert b"/r/docs/a" in again(second)
    assert b"/r/docs/a" not in found_paths(second)


def test_a_place_below_what_is_in_hand_waits_for_it(one) -> None:
    one.capture()
    new = one.fs.create(one.root, b"new", DIRECTORY, mode=0o755)
    first = one.look({b"/r/new": Depth.BELOW})
    one.fs.create(new, b"x", REGULAR, b"x")
    second = one.look({b"/r/new/x": Depth.ENTRY})
    assert again(second)[b"/r/new"] == Depth.BELOW
    one.record(first)
    assert b"/r/new/x" in found_paths(one.look({b"/r/new": Depth.BELOW}))


def test_below_a_directory_of_which_only_itself_is_in_hand_nothing_waits(one) -> None:
    """Its times are on their way; a look at all that is below it would cost a scan."""
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.create(docs, b"new", REGULAR, b"n")
    first = one.look({b"/r/docs/new": Depth.ENTRY})
    assert b"/r/docs" in found_paths(first)
    one.fs.write(docs, b"a", b"changed")
    assert b"/r/docs/a" in found_paths(one.look({b"/r/docs/a": Depth.ENTRY}))
    one.fs.write(docs, b"b", b"changed")
    scan = one.look({b"/r": Depth.SCAN})
    assert b"/r/docs/b" in found_paths(scan)
    assert again(scan)[b"/r/docs"] == Depth.ENTRY


def test_a_name_in_hand_that_is_gone_is_looked_at_where_its_directory_is_now(one) -> None:
    """The place at which it was to be looked for again does not lead there any more."""
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.create(docs, b"new", REGULAR, b"n")
    first = one.look({b"/r/docs/new": Depth.ENTRY})
    one.fs.remove(docs, b"new")
    one.fs.rename(one.root, b"docs", one.root, b"papers")
    second = one.look({b"/r/docs": Depth.BELOW, b"/r/papers": Depth.BELOW})
    assert b"/r/papers" in again(second)  # its own times are on their way with the first
    one.record(first)
    third = one.look(again(second))
    one.record(third)
    one.record(one.look(again(third)))
    assert one.fid(b"/r/papers/new") is None
    assert one.fid(b"/r/papers/a") is not None


def test_a_place_in_an_unknown_directory_is_found_from_where_the_catalog_ends(one) -> None:
    one.capture()
    new = one.fs.create(one.root, b"new", DIRECTORY, mode=0o755)
    deep = one.fs.create(new, b"deep", DIRECTORY, mode=0o755)
    one.fs.create(deep, b"x", REGULAR, b"x")
    paths = found_paths(one.look({b"/r/new/deep/x": Depth.ENTRY}))
    assert [path for path in paths if path != b"/r"] == [
        b"/r/new",
        b"/r/new/deep",
        b"/r/new/deep/x",
    ]


def test_another_directory_under_the_same_path_is_not_taken_for_the_known_one(one) -> None:
    tree(one)
    one.capture()
    one.fs.rename(one.root, b"docs", one.root, b"old")
    new = one.fs.create(one.root, b"docs", DIRECTORY, mode=0o755)
    one.fs.create(new, b"x", REGULAR, b"x")
    findings = one.look({b"/r/docs/x": Depth.ENTRY, b"/r/docs/a": Depth.ENTRY})
    assert not gone(findings)
    assert b"/r/docs/a" not in found_paths(findings)
    found = {entry.path: entry for finding in findings for entry in finding.found}
    assert found[b"/r/docs"].fid != one.fid(b"/r/docs")
    assert found[b"/r/docs/x"].parent == found[b"/r/docs"].fid
    assert b"/r/docs" not in again(findings)  # it was found in this same look


def test_a_root_that_is_not_there_removes_nothing(one) -> None:
    tree(one)
    one.capture()
    node = one.fs.top.pop(b"/r")
    survey = one.survey({b"/r": Depth.SCAN})
    findings = list(survey.findings())
    assert survey.missing == {b"/r"}
    assert not gone(findings)
    assert again(findings) == {b"/r": Depth.SCAN}
    one.fs.top[b"/r"] = node
    assert one.look({b"/r": Depth.SCAN}) == []


def test_an_empty_mount_point_removes_nothing(one) -> None:
    """The file system is not mounted: its mount point is another, empty directory."""
    tree(one)
    one.capture()
    mounted = one.fs.top[b"/r"]
    one.fs.top[b"/r"] = one.fs._new(DIRECTORY, 0o755)
    one.fs.top[b"/r"].name = b"/r"
    survey = one.survey({b"/r": Depth.SCAN})
    findings = list(survey.findings())
    assert survey.missing == {b"/r"}
    assert not gone(findings)
    before = one.fid(b"/r"), one.fid(b"/r/docs/a")
    one.record(findings)
    assert (one.fid(b"/r"), one.fid(b"/r/docs/a")) == before, "not even the root is recorded"
    again = one.survey({b"/r": Depth.SCAN})
    one.record(list(again.findings()))
    assert again.missing == {b"/r"}, "nor is it taken for emptied the next time"
    assert one.fid(b"/r/docs/a") == before[1]
    one.fs.top[b"/r"] = mounted
    one.record(one.look({b"/r": Depth.SCAN}))
    assert one.fid(b"/r/docs/a") is not None


def test_a_missing_root_does_not_stop_the_others() -> None:
    one = Captured((b"/r", b"/q"))
    one.capture()
    one.fs.create(one.fs.top[b"/q"], b"x", REGULAR, b"x")
    del one.fs.top[b"/r"]
    findings = one.look({b"/r/a": Depth.ENTRY, b"/q/x": Depth.ENTRY})
    assert b"/q/x" in found_paths(findings)
    assert not gone(findings)
    one.db.close()


def test_an_emptied_root_is_an_empty_root(one) -> None:
    tree(one)
    one.capture()
    for name in list(one.root.children):
        one.fs.remove(one.root, name)
    one.record(one.look({b"/r": Depth.SCAN}))
    assert one.paths() == {b"/r"}


def test_a_directory_that_cannot_be_listed_is_a_trouble_and_loses_nothing(one) -> None:
    tree(one)
    one.capture()
    examine = one.source.examine
    one.source.examine = lambda directory, names, **wishes: (
        Listing(error=EACCES) if directory == b"/r/docs" else examine(directory, names, **wishes)
    )
    findings = one.look({b"/r": Depth.SCAN})
    troubles = [trouble for finding in findings for trouble in finding.troubles]
    assert [(trouble.path, trouble.reason, trouble.errno) for trouble in troubles] == [
        (b"/r/docs", "unreadable", EACCES)
    ]
    assert not gone(findings)


def test_an_entry_that_cannot_be_examined_is_a_trouble_and_not_gone(one) -> None:
    tree(one)
    one.capture()
    examine = one.source.examine

    def failing(directory, names, **wishes):
        listing = examine(directory, names, **wishes)
        if directory == b"/r/docs" and listing.entries.pop(b"a", None):
            listing.failed[b"a"] = EACCES
        return listing

    one.source.examine = failing
    findings = one.look({b"/r/docs": Depth.BELOW})
    assert [trouble.path for finding in findings for trouble in finding.troubles] == [b"/r/docs/a"]
    assert not gone(findings)


def test_a_vanished_directory_is_judged_by_its_own_entry(one) -> None:
    tree(one)
    one.capture()
    one.fs.remove(one.root, b"docs")
    findings = one.look({b"/r/docs/a": Depth.ENTRY})
    assert gone(findings) == [(one.fid(b"/r"), b"docs")]
    assert not again(findings)
    one.record(findings)
    assert one.fid(b"/r/docs") is None


def test_a_large_file_comes_alone(one, monkeypatch) -> None:
    monkeypatch.setattr(survey_module, "BATCH_BYTES_MAX", 100)
    one.fs.create(one.root, b"a", REGULAR, b"small")
    one.fs.create(one.root, b"big", REGULAR, bytes(101))
    one.fs.create(one.root, b"c", REGULAR, b"small")
    large = [finding for finding in one.capture() if finding.is_large]
    assert [found_paths([finding]) for finding in large] == [[b"/r/big"]]


def test_batches_are_bounded_in_entries_and_bytes(one, monkeypatch) -> None:
    monkeypatch.setattr(survey_module, "BATCH_BYTES_MAX", 1000)
    monkeypatch.setattr(survey_module, "BATCH_ENTRIES_MAX", 10)
    for number in range(60):
        one.fs.create(one.root, b"%d" % number, REGULAR, bytes(150 if number % 2 else 5))
    findings = one.capture()
    assert all(len(finding.found) <= 10 for finding in findings)
    assert all(finding.expected_bytes < 1000 + 1000 for finding in findings)
    assert len(found_paths(findings)) == 61


def test_removals_are_bounded_too(one, monkeypatch) -> None:
    monkeypatch.setattr(survey_module, "GONE_MAX", 7)
    for number in range(30):
        one.fs.create(one.root, b"%d" % number, REGULAR, b"")
    one.capture()
    for number in range(30):
        one.fs.remove(one.root, b"%d" % number)
    findings = one.look({b"/r": Depth.BELOW})
    assert max(len(finding.gone) for finding in findings) == 7
    one.record(findings)
    assert one.paths() == {b"/r"}


def test_a_scan_drops_roots_that_are_no_longer_configured() -> None:
    one = Captured((b"/r", b"/q"))
    tree(one)
    one.capture()
    one.source.roots = (b"/q",)
    assert not gone(one.look({b"/q": Depth.BELOW}))
    one.record(one.look({b"/q": Depth.SCAN}))
    assert one.paths() == {b"/q"}
    one.db.close()


def test_what_was_read_unsteadily_is_found_again_though_unchanged(one) -> None:
    tree(one)
    one.capture()
    one.db.execute("UPDATE node SET again = 1 WHERE fid = ?", (one.fid(b"/r/docs/a"),))
    assert found_paths(one.look({b"/r": Depth.SCAN})) == [b"/r/docs/a"]


def test_after_a_rebuild_files_keep_their_identity_by_name(one) -> None:
    tree(one)
    one.capture()
    fid = one.fid(b"/r/docs/a")
    one.db.execute("UPDATE node SET ino = 0")
    findings = one.look({b"/r": Depth.SCAN})
    assert len(found_paths(findings)) == 5
    assert not one.record(findings)
    assert one.fid(b"/r/docs/a") == fid


def test_paths_outside_of_the_source_are_ignored(one) -> None:
    one.capture()
    assert one.look({b"/elsewhere/x": Depth.ENTRY, b"/rx": Depth.BELOW}) == []


def test_a_directory_with_the_inode_of_a_removed_one_is_another_one(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    old, ino = one.fid(b"/r/docs"), docs.ino
    one.fs.remove(one.root, b"docs")
    new = one.fs.create(one.root, b"new", DIRECTORY, mode=0o755)
    assert new.ino == ino
    one.fs.create(new, b"b", REGULAR, b"another b")
    findings = one.survey({b"/r/new": Depth.BELOW}).findings()
    for finding in findings:
        one.record([finding])
        assert one.fid(b"/r/new/a") is None
    assert one.fid(b"/r/new") not in {None, old}
    assert one.fid(b"/r/docs") == old


def test_a_directory_made_anew_at_its_place_with_its_inode_is_another_one(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    old, ino = one.fid(b"/r/docs"), docs.ino
    one.fs.remove(one.root, b"docs")
    new = one.fs.create(one.root, b"docs", DIRECTORY, mode=0o755)
    assert new.ino == ino
    one.fs.create(new, b"c", REGULAR, b"c")
    one.record(one.look({b"/r/docs/c": Depth.ENTRY}))
    assert one.fid(b"/r/docs") not in {None, old}
    assert one.paths() == {b"/r", b"/r/link", b"/r/docs", b"/r/docs/c"}


def test_a_link_to_a_new_file_is_not_one_of_the_file_in_flight_that_had_its_inode(one) -> None:
    one.capture()
    first = one.fs.create(one.root, b"first", REGULAR, b"1")
    found = one.look({b"/r/first": Depth.ENTRY})  # in flight, not recorded yet
    one.fs.remove(one.root, b"first")
    second = one.fs.create(one.root, b"second", REGULAR, b"2")
    assert second.ino == first.ino
    one.fs.link(second, one.root, b"third")
    later = one.look({b"/r/second": Depth.ENTRY, b"/r/third": Depth.ENTRY})
    assert found_paths(later) == [b"/r/second", b"/r/third"]
    one.record(found)
    one.record(later)
    assert one.fid(b"/r/second") == one.fid(b"/r/third")
    assert one.fid(b"/r/second") not in {None, one.fid(b"/r/first")}


def test_what_changes_between_being_listed_and_being_identified_is_looked_at_again(one) -> None:
    tree(one)
    one.capture()
    docs = one.root.children[b"docs"]
    one.fs.create(docs, b"new", REGULAR, b"n")
    one.fs.create(one.root, b"folder", DIRECTORY, mode=0o755)
    identify = one.source.identify

    def too_late(directory, names, *, births=False):
        if names == [b"new"]:
            one.fs.remove(docs, b"new")
        elif names == [b"folder"]:
            one.fs.rename(one.root, b"folder", docs, b"folder")
            one.fs.create(one.root, b"folder", REGULAR, b"")
        return identify(directory, names, births=births)

    one.source.identify = too_late
    findings = one.look({b"/r/docs/new": Depth.ENTRY, b"/r/folder": Depth.ENTRY})
    assert not {b"/r/docs/new", b"/r/folder"} & set(found_paths(findings))
    left = again(findings)
    assert {left[b"/r/docs/new"], left[b"/r/folder"]} == {Depth.BELOW}


def test_a_catalog_from_before_handles_tells_by_the_time_of_birth(one) -> None:
    tree(one)
    one.capture()
    asked = []
    identify = one.source.identify

    def born(directory, names, *, births=False):
        asked.append((sorted(names), births))
        found = identify(directory, names)
        return {name: who._replace(birth_ns=who.generation) for name, who in found.items()}

    one.db.execute("UPDATE node SET generation = 0")
    one.source.identify = born
    births = {}
    one.lookup.birth_of = lambda fid: births.get(fid, 0)
    docs = one.root.children[b"docs"]
    fid = one.fid(b"/r/docs")
    births[fid] = docs.generation
    one.fs.rename(one.root, b"docs", one.root, b"moved")
    one.record(one.look({b"/r/docs": Depth.BELOW, b"/r/moved": Depth.BELOW}))
    assert one.fid(b"/r/moved") == fid
    assert ([b"moved"], True) in asked
    row = one.lookup.named(one.fid(b"/r"), [b"moved"])[b"moved"]
    assert row.generation == docs.generation, "from now on the handle tells"
    births[one.fid(b"/r/link")] = 1
    one.fs.rename(one.root, b"link", one.root, b"other")
    link = one.fid(b"/r/link")
    one.record(one.look({b"/r/link": Depth.BELOW, b"/r/other": Depth.BELOW}))
    assert one.fid(b"/r/other") not in {None, link}


def test_where_a_file_was_before_is_looked_at_when_it_is_found_elsewhere(one) -> None:
    """Its other name was taken by another file, which nobody has told of yet."""
    tree(one)
    one.capture()
    docs, fid = one.root.children[b"docs"], one.fid(b"/r/docs/a")
    one.fs.link(docs.children[b"a"], one.root, b"new")
    one.fs.rename(docs, b"b", docs, b"a")
    findings = one.look({b"/r/new": Depth.ENTRY})
    assert {b"/r/new", b"/r/docs/a"} <= set(found_paths(findings))
    one.record(findings)
    assert one.fid(b"/r/new") == fid
    assert one.fid(b"/r/docs/a") not in {None, fid}


def asked_of(one) -> list[tuple[bytes, list[bytes]]]:
    """Return a list that will have what the source is asked to identify."""
    identify, asked = one.source.identify, []

    def noted(directory, names, *, births=False):
        asked.append((directory, list(names)))
        return identify(directory, names, births=births)

    one.source.identify = noted
    return asked


def test_of_a_new_directory_nothing_is_asked_twice(one) -> None:
    tree(one)
    one.source.weather.joined = 1.0
    asked = asked_of(one)
    one.capture()
    assert {b"/r", b"/r/docs", b"/r/docs/a"} <= one.paths()
    assert asked == []


def test_what_came_with_the_look_is_not_used_after_a_batch_was_handed_in(one, monkeypatch) -> None:
    monkeypatch.setattr(survey_module, "BATCH_ENTRIES_MAX", 4)
    one.source.weather.joined = 1.0
    asked = asked_of(one)
    for number in range(6):
        one.fs.create(one.root, b"f%d" % number, REGULAR, b"x")
    findings = one.survey({b"/r": Depth.BELOW}).findings()
    assert [each.name for each in next(findings).found] == [b"/r", b"f0", b"f1", b"f2"]
    assert asked == []
    assert b"/r/f5" in found_paths(list(findings))
    assert asked == [(b"/r", [b"f3", b"f4", b"f5"])]


def test_a_changed_file_is_recognised_by_what_came_with_the_look(one) -> None:
    tree(one)
    one.capture()
    before = one.fid(b"/r/docs/a")
    one.source.weather.joined = 1.0
    docs = one.root.children[b"docs"]
    one.fs.write(docs, b"a", b"changed")
    one.fs.create(docs, b"new", REGULAR, b"n")
    one.source.identify = None  # nobody asks
    one.record(one.look({b"/r/docs/a": Depth.ENTRY, b"/r/docs/new": Depth.ENTRY}))
    assert one.fid(b"/r/docs/a") == before
    assert one.fid(b"/r/docs/new") not in {None, before}


def test_what_is_captured_already_is_recognised_by_a_process_that_has_seen_nothing(one) -> None:
    tree(one)
    one.capture()
    before = one.fid(b"/r/docs/a")
    one.in_flight = InFlight()
    one.fs.rename(one.root.children[b"docs"], b"a", one.root, b"moved")
    one.record(one.look({b"/r/moved": Depth.ENTRY}))
    assert one.fid(b"/r/moved") == before
