"""What had to be expected of a rescan, and how soon the next one may come."""

from streamd.policy import announced
from streamd.policy.announced import Announced
from streamd.policy.pacing import PAUSE_MAX_SECONDS, PAUSE_MIN_SECONDS, Pace


def noticed(*paths: bytes, deep: tuple[bytes, ...] = ()) -> Announced:
    found = Announced()
    for path in (*paths, *deep):
        found.add(path, is_deep=path in deep)
    return found


def test_what_was_noticed_is_expected_and_its_neighbour_is_not() -> None:
    found = noticed(b"/t/a")
    assert found.covers(b"/t/a", is_directory=False)
    assert not found.covers(b"/t/b", is_directory=False)
    assert not found.covers(b"/t/ab", is_directory=False)


def test_everything_below_a_deep_place_is_expected() -> None:
    found = noticed(b"/t/a", deep=(b"/t/d",))
    assert found.covers(b"/t/d/x/y", is_directory=False)
    assert not found.covers(b"/t/a/x", is_directory=False)
    assert not found.covers(b"/t/dd", is_directory=False)
    assert noticed(deep=(b"/",)).covers(b"/anything", is_directory=False)


def test_the_times_of_a_directory_are_expected_when_something_in_it_was_noticed() -> None:
    found = noticed(b"/t/d/x")
    assert found.covers(b"/t/d", is_directory=True)
    assert not found.covers(b"/t/d", is_directory=False)
    assert not found.covers(b"/t", is_directory=True)


def test_the_root_itself_is_looked_up_like_anything() -> None:
    assert not noticed().covers(b"/", is_directory=False)
    assert noticed(b"/x").covers(b"/", is_directory=True)


def test_when_too_much_was_noticed_nothing_is_called_unannounced(monkeypatch) -> None:
    monkeypatch.setattr(announced, "PATHS_MAX", 2)
    found = noticed(b"/a", b"/b")
    assert not found.covers(b"/d", is_directory=False)
    found.add(b"/c", is_deep=False)
    assert found.is_overflown
    assert found.covers(b"/d", is_directory=False)


def test_the_first_rescan_waits_for_nothing() -> None:
    assert Pace().due_at() == 0


def test_pauses_grow_while_events_are_lost_again_and_again() -> None:
    pace, now, pauses = Pace(), 100.0, []
    for _ in range(12):
        now = max(now, pace.due_at())
        pace = pace.after(began=now, ended=now + 0.1)
        now += 0.1
        pauses.append(pace.pause_seconds)
    assert pauses[:4] == [PAUSE_MIN_SECONDS, 4.0, 8.0, 16.0]
    assert pauses[-1] == PAUSE_MAX_SECONDS


def test_a_pause_is_as_long_as_the_rescan_took() -> None:
    assert Pace().after(began=0, ended=60).pause_seconds == 60


def test_after_a_calm_time_it_begins_anew() -> None:
    pace = Pace(pause_seconds=64, ended_at=1000)
    assert pace.after(began=1000 + 64, ended=1065).pause_seconds == 128
    assert pace.after(began=1000 + 64 * 4 + 1, ended=1258).pause_seconds == PAUSE_MIN_SECONDS
