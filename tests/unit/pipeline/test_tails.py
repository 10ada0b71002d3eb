"""The ends of files that change again are remembered, within bounds."""

from streamd.model.host import HostStat
from streamd.pipeline import tails
from streamd.pipeline.tails import Tails
from streamd.sources.port import Outcome, Piece, ReadResult

STAT = HostStat(1, 0o644, 0, 0, 100_000, 1, 1, 1, 1, 1, 0)


def result(*sizes: int, outcome: Outcome = Outcome.OK, **more) -> ReadResult:
    pieces = [Piece(bytes([number]), 0, size) for number, size in enumerate(sizes)]
    return ReadResult(outcome, STAT, pieces, **more)


def test_the_last_runs_and_where_they_begin() -> None:
    kept = Tails()
    kept.saw(1, result(*[1000] * 100))
    tail = kept.of(1)
    assert tail is not None
    assert tail.start == (100 - tails.RUNS_MAX) * 1000
    assert [size for _, size in tail.runs] == [1000] * tails.RUNS_MAX
    assert kept.of(2) is None


def test_small_files_failures_and_copies_are_not_remembered() -> None:
    kept = Tails()
    kept.saw(1, result(tails.SIZE_MIN - 1))
    kept.saw(2, result(100_000, outcome=Outcome.VANISHED))
    kept.saw(3, result(100_000, is_derived=True))
    kept.saw(4, result())
    assert [kept.of(fid) for fid in (1, 2, 3, 4)] == [None] * 4


def test_the_oldest_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(tails, "FILES_MAX", 2)
    kept = Tails()
    for fid in (1, 2, 1, 3):
        kept.saw(fid, result(100_000))
    assert kept.of(2) is None
    assert kept.of(1) is not None
    assert kept.of(3) is not None
