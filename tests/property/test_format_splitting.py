"""Where lists and files are cut: the same content is cut the same, a small change stays small."""

import pytest
from golden.materials import fixed, key_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from streamd.format import chunklist
from streamd.format.checkpoint import encode_page, split_pages
from streamd.format.chunker import Cutter, Profile
from streamd.format.chunklist import DIRECT_MAX, LEVELS_MAX, paginate
from streamd.model.entry import ContentRun

CHUNK_ID = key_chain().domain_keys.chunk_id
SMALL = Profile(99, 64, 256, 1024)
ROWS = 20_000


def rows_of(label: str, count: int) -> list[tuple[bytes, bytes]]:
    stream = fixed(label, 8 * count)
    return sorted((stream[i : i + 8], b"value") for i in range(0, 8 * count, 8))


def pages_of(rows: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [encode_page(page) for page in split_pages(rows)]


@given(st.integers(0, 3000), st.integers(0, 99))
def test_rows_are_cut_completely_in_order_and_always_the_same(count: int, label: int) -> None:
    rows = rows_of(f"rows {label}", count)
    pages = list(split_pages(rows))
    assert [row for page in pages for row in page] == rows
    assert all(64 <= len(page) <= 4096 for page in pages[:-1])
    assert [encode_page(page) for page in pages] == pages_of(rows)
    assert list(split_pages(iter(rows))) == pages


@pytest.mark.slow
@settings(derandomize=True, max_examples=40)
@given(st.integers(0, 9), st.integers(0, ROWS - 1))
def test_a_changed_value_changes_one_page(label: int, at: int) -> None:
    rows = rows_of(f"rows {label}", ROWS)
    before = pages_of(rows)
    rows[at] = (rows[at][0], b"other")
    assert len(set(pages_of(rows)) - set(before)) == 1


@pytest.mark.slow
@settings(derandomize=True, max_examples=40)
@given(st.integers(0, 9), st.integers(0, ROWS - 1), st.binary(min_size=8, max_size=8))
def test_a_row_more_or_less_changes_at_most_three_pages(label: int, at: int, key: bytes) -> None:
    rows = rows_of(f"rows {label}", ROWS)
    before = set(pages_of(rows))
    assert len(set(pages_of(rows[:at] + rows[at + 1 :])) - before) <= 3
    assert len(set(pages_of(sorted([*rows, (key, b"new")]))) - before) <= 3


def expand(levels: int, top: tuple[ContentRun, ...], pages: dict[bytes, bytes]) -> list[ContentRun]:
    """Return the content list that a tree stands for, checking what each page says it covers."""
    level = list(top)
    for _ in range(levels):
        below: list[ContentRun] = []
        for run in level:
            page = chunklist.decode_page(pages[run.id])
            assert run.size == sum(part.size for part in page)
            below += page
        level = below
    return level


@st.composite
def content_lists(draw) -> list[ContentRun]:
    """Long lists of mostly different runs, with boundaries, holes and repetitions."""
    count, label = draw(st.integers(0, 6000)), draw(st.integers(0, 99))
    hole_every = draw(st.integers(2, 50))
    boundary = bytes(32)
    stream = fixed(f"runs {label}", 32 * max(count, 1))
    runs = [
        ContentRun(None if i % hole_every == 0 else stream[32 * i : 32 * i + 32], i + 1)
        for i in range(count)
    ]
    for at in draw(st.lists(st.integers(0, 5999), max_size=40)):
        if at < count:
            runs[at] = ContentRun(boundary, 7)
    return runs


@given(content_lists())
def test_a_content_list_comes_back_from_its_tree(runs: list[ContentRun]) -> None:
    levels, top, pages = paginate(runs, CHUNK_ID)
    assert len(top) <= DIRECT_MAX
    assert levels <= LEVELS_MAX
    assert expand(levels, top, pages) == runs
    assert sum(run.size for run in top) == sum(run.size for run in runs)
    assert all(CHUNK_ID(body) == page_id for page_id, body in pages.items())


@given(st.integers(65, 400))
def test_a_list_with_a_boundary_at_every_run_still_ends(count: int) -> None:
    runs = [ContentRun(bytes(32), i) for i in range(count * 64)]
    levels, top, pages = paginate(runs, lambda body: bytes(2) + CHUNK_ID(body)[2:])
    assert levels >= 2
    assert expand(levels, top, pages) == runs


@pytest.mark.slow
@settings(derandomize=True, max_examples=20)
@given(st.integers(0, 19_999))
def test_a_changed_chunk_rewrites_few_pages(at: int) -> None:
    runs = [ContentRun(fixed(f"chunk {i}"), 5) for i in range(20_000)]
    _, _, before = paginate(runs, CHUNK_ID)
    runs[at] = ContentRun(fixed("changed"), 5)
    _, _, after = paginate(runs, CHUNK_ID)
    assert len(after.keys() - before.keys()) <= 3


def streamed(data: bytes, splits: list[int], seed: int) -> list[int]:
    """Cut `data` as it arrives in pieces, carrying the uncut tail over."""
    cutter, sizes, tail, at = Cutter(seed, SMALL), [], b"", 0
    for end in [*sorted(splits), len(data)]:
        buffer = memoryview(tail + data[at:end])
        cut = cutter.cut(buffer, final=end == len(data))
        sizes += cut
        tail, at = bytes(buffer[sum(cut) :]), end
    assert not tail
    return sizes


@st.composite
def streams(draw) -> tuple[bytes, list[int]]:
    pieces = draw(
        st.lists(
            st.one_of(
                st.integers(0, 3000).map(bytes),
                st.tuples(st.integers(0, 99), st.integers(0, 6000)).map(
                    lambda p: fixed(f"noise {p[0]}", max(p[1], 1))
                ),
                st.binary(max_size=50).map(lambda b: b * 40),
            ),
            max_size=5,
        )
    )
    data = b"".join(pieces)
    return data, draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=12))


@given(streams(), st.integers(0, 2**63 - 1))
def test_a_stream_is_cut_like_the_whole_however_it_arrives(stream, seed: int) -> None:
    data, splits = stream
    whole = Cutter(seed, SMALL).cut(memoryview(data), final=True)
    assert sum(whole) == len(data)
    assert all(size <= SMALL.max_size for size in whole)
    assert streamed(data, splits, seed) == whole
