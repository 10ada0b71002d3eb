"""What is in flight is found by all that may be asked, whichever way it was entered."""

import random
from collections.abc import Callable

import pytest

from streamd.model.entry import EntryType
from streamd.model.host import HostStat
from streamd.pipeline.findings import Found
from streamd.pipeline.in_flight import InFlight

MINE, OTHER = object(), object()


def found(parent: int, name: bytes, fid: int, *, ino: int = 0, is_fresh: bool = True) -> Found:
    stat = HostStat(EntryType.REGULAR, 0o644, 0, 0, 5, 1, 1, 7, ino or fid + 100, 1, 0)
    path = b"/r/%d/%b" % (parent, name)
    return Found(parent, name, path, fid, stat, 1, 0, read=True, is_fresh=is_fresh, generation=fid)


FILES = [found(parent, b"f%d" % n, parent * 10 + n) for parent in (1, 2) for n in range(3)]


def filled(*, late: bool) -> InFlight:
    in_flight = InFlight()
    for survey, files in ((MINE, FILES[:3]), (OTHER, FILES[3:])):
        if late:
            in_flight.add_new(files, survey)
        else:
            for each in files:
                in_flight.add(each, survey)
    return in_flight


QUESTIONS: dict[str, Callable[[InFlight], object]] = {
    "fid_of": lambda one: [one.fid_of(7, each.stat.ino, each.generation) for each in FILES],
    "fid_of another": lambda one: [one.fid_of(7, each.stat.ino, 999) for each in FILES],
    "stat_of": lambda one: [one.stat_of((each.parent, each.name)) for each in FILES],
    "is_moving": lambda one: [one.is_moving((1, b"f0"), fid) for fid in (10, 11)],
    "paths_of": lambda one: [one.paths_of(7, each.stat.ino) for each in FILES],
    "has_path": lambda one: [one.has_path(each.path) for each in FILES],
    "names_in, mine": lambda one: [one.names_in(parent, MINE) for parent in (1, 2, 3)],
    "names_in, other": lambda one: [one.names_in(parent, OTHER) for parent in (1, 2, 3)],
    "is_held": lambda one: [
        one.is_held(found(9, b"link", fid, is_fresh=False), MINE) for fid in (10, 20, 30)
    ],
    "entries": lambda one: {key: value is MINE for key, value in one.entries.items()},
}


@pytest.mark.parametrize("settled", [0, 2, 6])
@pytest.mark.parametrize("question", QUESTIONS)
def test_new_files_entered_together_answer_like_those_entered_singly(
    question: str, settled: int
) -> None:
    answers = []
    for late in (False, True):
        in_flight = filled(late=late)
        in_flight.settle([(each.parent, each.name) for each in FILES[:settled]])
        answers.append(QUESTIONS[question](in_flight))
    assert answers[0] == answers[1]


def test_nothing_is_left_of_what_is_settled_in_whatever_order_it_is_asked_for() -> None:
    rng = random.Random(5)
    for _ in range(200):
        in_flight = filled(late=rng.random() < 0.8)
        keys = [(each.parent, each.name) for each in FILES]
        rng.shuffle(keys)
        for key in keys:
            if rng.random() < 0.3:
                QUESTIONS[rng.choice(list(QUESTIONS))](in_flight)
            in_flight.settle([key])
        empty = vars(InFlight())
        kept = {name: value for name, value in vars(in_flight).items() if name != "_lock"}
        assert kept == {name: value for name, value in empty.items() if name != "_lock"}


def test_a_place_where_another_file_is_found_again_is_that_file() -> None:
    in_flight = filled(late=True)
    in_flight.add(found(1, b"f0", 77, ino=888), MINE)
    assert in_flight.fid_of(7, 888, 77) == 77
    assert in_flight.fid_of(7, FILES[0].stat.ino, FILES[0].generation) is None
    assert in_flight.paths_of(7, FILES[0].stat.ino) == []


def test_a_survey_that_asks_for_names_of_others_does_not_enter_its_own(monkeypatch) -> None:
    in_flight, indexed = InFlight(), []
    in_flight.add_new(FILES, MINE)
    monkeypatch.setattr(in_flight, "_index", lambda *each: indexed.append(each))
    assert in_flight.names_in(1, MINE) == []
    assert not indexed
    in_flight.settle([(each.parent, each.name) for each in FILES])
    assert not in_flight.entries
    assert not indexed
