"""Whether what one look found can have been true at one instant."""

from streamd.policy.settling import above, mixed


def test_what_slipped_matters_below_the_places_of_a_directory_that_moved() -> None:
    slipped = {b"/r/new/a/f", b"/r/old/f", b"/r/new"}
    assert mixed([*slipped, b"/r/f"], [b"/r/old", b"/r/new"]) == slipped


def test_what_slipped_elsewhere_is_only_late() -> None:
    assert not mixed([b"/r/f", b"/r/newer/f"], [b"/r/old", b"/r/new"])
    assert not mixed([b"/r/f"], [])


def test_a_directory_that_moved_is_fine_when_nothing_slipped() -> None:
    assert not mixed([], [b"/r/old", b"/r/new"])


def test_directories_above_are_told_from_the_nearest_on() -> None:
    assert list(above(b"/r/a/f")) == [b"/r/a", b"/r"]
    assert list(above(b"/r")) == []
