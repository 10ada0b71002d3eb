"""The compiled functions of a batch give the bytes that the Python code gives."""

import importlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.format import batch, state_sum
from streamd.model.entry import ContentRun, FileVersion
from streamd.model.host import HostStat
from streamd.model.record import Op

KEY = bytes(range(32))
NUMBERS = st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(0, 2**32 - 1)
STATS = st.builds(
    HostStat,
    type=st.integers(1, 7),
    mode=st.integers(0, 0o7777),
    uid=SMALL,
    gid=st.sampled_from([0, 7, 1000]),
    size=st.integers(0, 2**63 - 1),
    mtime_ns=TIMES,
    ctime_ns=TIMES,
    dev=NUMBERS,
    ino=NUMBERS,
    nlink=SMALL,
    rdev=NUMBERS,
)
PIECES = st.lists(st.tuples(st.binary(min_size=32, max_size=32), SMALL, SMALL), max_size=20)
VERSIONS = st.lists(st.tuples(STATS, TIMES, PIECES), max_size=5)
RECORDS = st.lists(
    st.tuples(st.just(0), st.binary(min_size=1, max_size=70), st.binary(max_size=300))
)
NEW = st.lists(
    st.tuples(
        st.integers(1, 2**63 - 1),
        st.binary(min_size=1, max_size=300),
        st.integers(1, 2**63 - 1),
        st.integers(1, 7),
        st.binary(max_size=80),
    )
)


def user(number: int) -> bytes:
    return b"u%d" % number


def group(number: int) -> bytes:
    return b"g" * (number % 300)


def test_they_are_compiled_where_there_is_a_compiler():
    assert batch.chunk_ids is not batch.chunk_ids_singly
    assert batch.versions is not batch.versions_singly


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1023, 1024, 1025, 4096, 8193, 65536, 300_001])
def test_a_chunk_has_one_id(size):
    data = memoryview(bytes(number * 7 % 251 for number in range(size + 9)))
    starts, sizes = [0, 9, size + 9], [size, size, 0]
    compiled = batch.chunk_ids(KEY, data, starts, sizes)
    assert compiled == batch.chunk_ids_singly(KEY, data, starts, sizes)


EDGES = [0, 1, 1024, 1025, 2048, 2049, 3 * 1024, 4097, 8192, 16_385, 65_535, 65_536, 65_537]


@given(st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 70_000)), max_size=30))
def test_chunks_that_are_hashed_together_have_the_ids_that_they_have(sizes):
    data = memoryview(bytes(number * 131 % 253 for number in range(70_100)))
    starts = [number % 97 for number in range(len(sizes))]
    compiled = batch.chunk_ids(KEY, data, starts, sizes)
    assert compiled == batch.chunk_ids_singly(KEY, data, starts, sizes)


@pytest.mark.parametrize(
    ("start", "size"), [(-1, 1), (0, -1), (0, 11), (11, 0), (5, 6), (2**62, 2**62), (5, 2**63 - 1)]
)
def test_no_part_is_outside_of_the_data(start, size):
    with pytest.raises(ValueError, match="not in the data"):
        batch.chunk_ids(KEY, memoryview(bytes(10)), [start], [size])


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="key"):
        batch.chunk_ids(b"short", memoryview(b""), [], [])
    with pytest.raises(ValueError, match="size"):
        batch.chunk_ids(KEY, memoryview(b""), [0], [])
    with pytest.raises(ValueError, match="length"):
        batch.versions([], [1], [], 0, user, group)
    stat = HostStat(*range(11))
    for stats, pieces, error in (
        ([(1, 2)], [()], TypeError),
        ([stat], [5], TypeError),
        ([stat], [[(b"id", 1)]], TypeError),
        ([stat], [[(None, 0, 1)]], TypeError),
        ([stat._replace(rdev=2**64)], [()], OverflowError),
    ):
        with pytest.raises(error):
            batch.versions(stats, [0], pieces, 0, user, group)
    with pytest.raises(ZeroDivisionError):
        batch.versions([stat], [0], [()], 0, lambda _: 1 // 0, group)
    for records in ((), [(0, b"key")], [(0, "text", b"")]):
        with pytest.raises(TypeError):
            batch.sum_terms(records)
    with pytest.raises(TypeError):
        batch.new_records(0, [(1, b"name", 2, 1, None)])


@given(VERSIONS)
def test_a_version_has_one_encoding(files):
    lists = [list(column) for column in zip(*files, strict=True)] or [[], [], []]
    compiled = batch.versions(*lists, 3, user, group)
    assert compiled == batch.versions_singly(*lists, 3, user, group)
    for (stat, birth, pieces), encoded in zip(files, compiled, strict=True):
        version = msgspec.msgpack.decode(encoded, type=FileVersion)
        assert version.content == tuple(ContentRun(piece[0], piece[2]) for piece in pieces)
        assert (version.size, version.btime_ns, version.profile) == (stat.size, birth, 3)
        assert (version.user, version.group) == (user(stat.uid), group(stat.gid))
        assert msgspec.msgpack.encode(version) == encoded


def test_an_owner_is_asked_for_once_in_a_row():
    asked = []

    def ask(number):
        asked.append(number)
        return b"name"

    stats = [HostStat(*range(11))._replace(uid=uid) for uid in (5, 5, 6, 6, 5)]
    batch.versions(stats, [0] * 5, [()] * 5, 0, ask, group)
    assert asked == [5, 6, 5]


@given(RECORDS)
def test_a_sum_of_terms_is_one_number(records):
    total = batch.sum_terms(records)
    assert total == batch.sum_terms_singly(records)
    one_by_one = sum(state_sum.term(key, value) for _, key, value in records)
    assert total == state_sum.to_bytes(one_by_one)


def test_a_sum_carries_and_wraps():
    records = [(0, b"key", number.to_bytes(4, "little")) for number in range(2000)]
    assert batch.sum_terms(records) == batch.sum_terms_singly(records)


@given(NEW)
def test_new_files_have_the_records_that_they_have(files):
    compiled = batch.new_records(int(Op.SET), files)
    assert compiled == batch.new_records_singly(int(Op.SET), files)
    assert len(compiled) == 2 * len(files)


SINGLY = (
    batch.chunk_ids_singly,
    batch.sum_terms_singly,
    batch.versions_singly,
    batch.new_records_singly,
    batch.page_end_singly,
)


def test_without_a_compiler_python_does_it(monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, "streamd.format._batch", None)
    monkeypatch.delattr("streamd.format._batch")
    assert batch._load() == SINGLY


def test_where_an_older_module_was_compiled_python_does_it(monkeypatch):
    monkeypatch.delattr("streamd.format._batch.page_end")
    assert batch._load() == SINGLY


ROWS = st.lists(st.tuples(st.binary(max_size=70), st.binary(max_size=300)), max_size=60)


@given(ROWS, st.integers(0, 70), st.integers(1, 40))
def test_a_page_ends_at_the_same_row_and_rows_have_the_same_sum(rows, start, average):
    assert batch.page_end(rows, start, average) == batch.page_end_singly(rows, start, average)
    assert batch.sum_terms(rows) == batch.sum_terms_singly(rows)
    assert batch.sum_terms(rows) == batch.sum_terms([(0, *row) for row in rows])


@pytest.mark.parametrize(
    "given",
    [
        ((), 0, 1),
        ([()], 0, 1),
        ([b"ab"], 0, 1),
        ([("a", b"")], 0, 1),
        ([(b"", b"")], -1, 1),
        ([(b"", b"")], 0, 0),
    ],
)
def test_what_cannot_be_rows_is_refused(given):
    with pytest.raises((TypeError, ValueError)):
        batch.page_end(*given)
    with pytest.raises(TypeError):
        batch.sum_terms([(b"",)])
