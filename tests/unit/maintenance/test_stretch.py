"""A stretch of the journal: sorted by key, and small while it is long."""

import random
import tracemalloc

import pytest

from streamd.format.history_run import HistoryRow
from streamd.format.layout import JournalPosition
from streamd.format.segment import Segment
from streamd.maintenance.stretch import HOUR_US, RECORDS_DUE, Stretch
from streamd.model.ids import SourceId
from streamd.model.record import Op, Record

ONE, OTHER = SourceId(b"1" * 16), SourceId(b"2" * 16)


def segment(number: int, start_us: int = 0, end_us: int = 0) -> Segment:
    return Segment(
        position=JournalPosition(1, number), previous=b"", hash=b"", start_us=start_us,
        end_us=end_us, sources=(ONE, OTHER), ack=None, envelope=None,
    )  # fmt: skip


def records(rng: random.Random, count: int) -> list[Record]:
    ops = Op.SET, Op.DEL, Op.GAP
    return [
        Record(rng.choice(ops), number, rng.randrange(2), rng.randbytes(40), rng.randbytes(100))
        for number in range(count)
    ]


def test_records_come_back_by_source_and_key_in_the_order_of_the_journal() -> None:
    rng = random.Random(3)
    expected: dict[SourceId, list[HistoryRow]] = {ONE: [], OTHER: []}
    with Stretch() as stretch:
        for number in range(50):
            some = records(rng, 20)
            some += [Record(Op.STATE, 0, 0, b"", b"no change"), *some[:3]]  # a key twice
            stretch.add(segment(number, start_us=number * 1000), some)
            for record in some:
                if record.op != Op.STATE:
                    rows = expected[(ONE, OTHER)[record.source_ix]]
                    key = record.key if record.op in (Op.SET, Op.DEL) else b""
                    at_us = number * 1000 + record.dt_us
                    rows.append(HistoryRow(key, len(rows), at_us, int(record.op), record.value))
        assert stretch.sources == [ONE, OTHER]
        for source, rows in expected.items():
            assert list(stretch.rows(source)) == sorted(rows, key=lambda row: (row.key, row.number))
        assert stretch.record_count == sum(map(len, expected.values()))
        stretch.clear()
        assert (stretch.sources, stretch.record_count, stretch.size) == ([], 0, 0)
        stretch.add(segment(60), records(rng, 5))
        assert sum(len(list(stretch.rows(source))) for source in stretch.sources) == 5


@pytest.mark.parametrize(("count", "end_us"), [(RECORDS_DUE, 0), (1, HOUR_US)])
def test_it_is_due_when_it_is_long_or_an_hour_has_gone_by(count: int, end_us: int) -> None:
    with Stretch() as stretch:
        assert not stretch.is_due
        stretch.add(segment(0), [Record(Op.DEL, 0, 0, b"key", b"")] * (count - 1))
        assert not stretch.is_due
        stretch.add(segment(1, end_us=end_us), [Record(Op.DEL, 0, 0, b"key", b"")])
        assert stretch.is_due


@pytest.mark.slow
def test_a_long_one_takes_hardly_any_memory_of_python() -> None:
    """What a quarter of an hour leaves behind in arenas stays there: the process was larger after it."""
    rng = random.Random(4)
    with Stretch() as stretch:
        stretch.add(segment(0), records(rng, 100))
        tracemalloc.start()
        try:
            for number in range(100):
                stretch.add(segment(number + 1), records(rng, 200))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert stretch.record_count >= 20_000
        assert held < 500_000
