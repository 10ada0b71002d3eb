"""New files that are taken together are those that would be taken one by one."""

import pytest
from unit.pipeline.captured import DIRECTORY, REGULAR, SYMLINK, Captured

from streamd.catalog.dirty import Depth
from streamd.pipeline import survey as survey_module
from streamd.pipeline.findings import Finding
from streamd.pipeline.survey import Survey


def tree() -> Captured:
    one = Captured()
    shared = one.fs.create(one.root, b"shared", REGULAR, b"two names")
    one.fs.link(shared, one.root, b"another")
    below = one.fs.create(one.root, b"below", DIRECTORY)
    for directory in (one.root, below):
        for n in range(20):
            one.fs.create(directory, b"f%02d" % n, REGULAR, b"x" * (n * 7))
        one.fs.create(directory, b"link", SYMLINK, b"f01")
        one.fs.create(directory, b"large", REGULAR, bytes(400))
        one.fs.create(directory, b"zzz", DIRECTORY)
    return one


def shown(findings: list[Finding]) -> list[tuple[object, ...]]:
    return sorted(
        (each.path, each.stat, each.since_us, each.parent_ino, each.read, each.is_fresh)
        for finding in findings
        for each in finding.found
    )


@pytest.fixture
def small_batches(monkeypatch) -> None:
    monkeypatch.setattr(survey_module, "BATCH_BYTES_MAX", 300)
    monkeypatch.setattr(survey_module, "BATCH_ENTRIES_MAX", 5)
    monkeypatch.setattr(survey_module, "AHEAD_MAX", 7)


@pytest.mark.usefixtures("small_batches")
def test_all_that_is_found_singly_is_found_together(monkeypatch) -> None:
    together = tree().look({b"/r": Depth.SCAN})
    monkeypatch.setattr(Survey, "_take_new", lambda _, __, ___, names: names)
    singly = tree().look({b"/r": Depth.SCAN})
    assert shown(together) == shown(singly)
    assert len(shown(together)) == 50
    assert {len(finding.found) for finding in together} <= {1, 2, 3, 4, 5}
    for finding in together:
        size = sum(each.stat.size for each in finding.found if each.stat.type == REGULAR)
        assert finding.is_large or finding.expected_bytes <= size  # a further name is not read
        assert len(finding.found) == 1 or size < 300 + 300


@pytest.mark.usefixtures("small_batches")
def test_they_are_recorded_and_unchanged_afterwards() -> None:
    one = tree()
    one.capture()
    assert not shown(one.look({b"/r": Depth.SCAN}))


def test_one_that_was_replaced_since_it_was_listed_is_looked_at_again(monkeypatch) -> None:
    one = tree()
    identify = one.source.identify

    def replace_first(directory: bytes, names: list[bytes], **how: bool) -> object:
        if b"f03" in names and directory == b"/r":
            monkeypatch.setattr(one.source, "identify", identify)
            one.fs.remove(one.root, b"f03")
            one.fs.create(one.root, b"taker", REGULAR, b"of the inode")
            one.fs.create(one.root, b"f03", REGULAR, b"another")
        return identify(directory, names, **how)

    monkeypatch.setattr(one.source, "identify", replace_first)
    findings = one.look({b"/r": Depth.SCAN})
    taken = [each.stat for finding in findings for each in finding.found if each.path == b"/r/f03"]
    assert b"/r/f03" in {place.path for finding in findings for place in finding.deferred}
    assert {stat.ino for stat in taken} <= {one.root.children[b"f03"].ino}


def test_what_another_survey_has_found_is_left_to_it() -> None:
    one = tree()
    first = one.survey({b"/r": Depth.SCAN})
    found = [each.path for finding in first.findings() for each in finding.found]
    again = one.survey({b"/r": Depth.SCAN})
    assert not shown(list(again.findings()))
    assert len(found) == 50
    assert again.trail.deferred


def test_of_a_new_directory_that_is_in_flight_nothing_is_asked_of_the_catalog(monkeypatch) -> None:
    one, asked = tree(), []
    children = one.lookup.children

    def ask(parent: int) -> object:
        asked.append(parent)
        return children(parent)

    monkeypatch.setattr(one.lookup, "children", ask)
    findings = one.look({b"/r": Depth.SCAN})
    assert asked in ([], [one.lookup.root])
    one.record(findings)
    asked.clear()
    assert not shown(one.look({b"/r": Depth.SCAN}))
    assert {one.fid(path) for path in (b"/r", b"/r/below", b"/r/zzz")} <= set(asked)


def test_of_a_directory_that_was_committed_while_it_was_looked_at_it_is_asked() -> None:
    one = tree()
    survey = one.survey({b"/r": Depth.SCAN})
    seen = []
    for finding in survey.findings():  # each is committed before the next is looked for
        assert not one.record([finding])
        seen.append(finding)
    assert len(shown(seen)) == 50
    assert not shown(one.look({b"/r": Depth.SCAN}))
