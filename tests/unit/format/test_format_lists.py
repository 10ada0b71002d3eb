"""Pages of checkpoints and of content lists, and the cutter: where things are cut."""

import msgspec
import pytest
from golden.materials import fixed, key_chain

from streamd.errors import VaultDamaged
from streamd.format import batch, checkpoint, chunklist
from streamd.format.checkpoint import split_pages
from streamd.format.chunker import GENERAL, SMALL_FILE_MAX, Cutter
from streamd.format.chunklist import DIRECT_MAX, decode_page, paginate
from streamd.model.entry import ContentRun

CHUNK_ID = key_chain().domain_keys.chunk_id


def runs_of(count: int, label: str = "run") -> list[ContentRun]:
    return [ContentRun(fixed(f"{label} {i}"), 1000 + i) for i in range(count)]


def test_a_short_list_stays_as_it_is() -> None:
    runs = runs_of(DIRECT_MAX)
    assert paginate(runs, CHUNK_ID) == (0, tuple(runs), {})
    assert paginate([], CHUNK_ID) == (0, (), {})


def test_a_long_list_becomes_pages_that_say_what_they_cover() -> None:
    runs = runs_of(2000)
    levels, top, pages = paginate(runs, CHUNK_ID)
    assert levels == 1
    assert len(top) == len(pages) > 1
    assert [run for page in top for run in chunklist.decode_page(pages[page.id])] == runs
    assert all(
        page.size == sum(run.size for run in chunklist.decode_page(pages[page.id])) for page in top
    )


def test_a_list_of_holes_is_cut_by_length_alone() -> None:
    runs = [ContentRun(None, 1)] * (chunklist.PAGE_MAX * 2)
    _, top, pages = paginate(runs, CHUNK_ID)
    assert [run.size for run in top] == [chunklist.PAGE_MAX] * 2
    assert len(pages) == 1  # equal pages are one chunk
    _, top, _ = paginate([*runs, ContentRun(None, 3)], CHUNK_ID)
    assert [run.size for run in top] == [chunklist.PAGE_MAX, chunklist.PAGE_MAX, 3]


@pytest.mark.parametrize("decode", [chunklist.decode_page, checkpoint.decode_page])
def test_a_page_is_neither_empty_nor_endless(decode) -> None:
    row = [b"k" * 32, 1 if decode is chunklist.decode_page else b"v"]
    assert len(decode(msgspec.msgpack.encode([row] * 4096))) == 4096
    for count in (0, 4097):
        with pytest.raises(VaultDamaged, match="impossible"):
            decode(msgspec.msgpack.encode([row] * count))
    for junk in (b"", b"\xc1", b"\x91\x01", b"\xdd\xff\xff\xff\xff", b"\x91" * 200_000):
        with pytest.raises(VaultDamaged, match="does not parse"):
            decode(junk)


def test_pages_of_rows_keep_their_bounds_and_end_where_a_key_says_so() -> None:
    rows = [(b"%08d" % i, b"value") for i in range(12_000)]
    pages = list(split_pages(rows))
    assert [row for page in pages for row in page] == rows
    assert all(64 <= len(page) <= 4096 for page in pages[:-1])
    assert 12 < len(pages) < 50
    assert checkpoint.decode_page(checkpoint.encode_page(pages[0])) == pages[0]
    assert list(split_pages([])) == []


def test_a_page_without_a_boundary_is_cut_by_length() -> None:
    key = next(
        key for key in (b"%d" % i for i in range(99))
        if int.from_bytes(checkpoint.crypto.digest(key)[:2], "little") % 512
    )  # fmt: skip
    assert [len(page) for page in split_pages([(key, b"")] * 5000)] == [4096, 904]


def cut_one_by_one(rows: list[tuple[bytes, bytes]]) -> list[list[tuple[bytes, bytes]]]:
    """Return the pages by the words of the format: row after row."""
    pages: list[list[tuple[bytes, bytes]]] = [[]]
    for row in rows:
        pages[-1].append(row)
        ends = int.from_bytes(checkpoint.crypto.digest(row[0])[:2], "little") % 512 == 0
        if (len(pages[-1]) >= 64 and ends) or len(pages[-1]) == 4096:
            pages.append([])
    return [page for page in pages if page]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("how", ["compiled", "singly"])
def test_pages_are_cut_by_the_words_of_the_format(
    count: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "singly":
        monkeypatch.setattr(checkpoint, "page_end", batch.page_end_singly)
    ends = [
        key
        for key in (b"%d" % i for i in range(5000))
        if checkpoint.page_end([(key, b"")], 0, 512) == 0
    ]
    rows = [(b"%08d" % i, b"") for i in range(count)]
    for ending in (62, 63, 64, 200):  # as a first page ends, and just does not
        some = [*rows[:ending], (ends[0], b""), *rows[ending:]]
        assert list(split_pages(iter(some))) == cut_one_by_one(some)
    assert list(split_pages(iter(rows))) == cut_one_by_one(rows)


def test_a_file_cut_in_one_piece_keeps_to_the_profile() -> None:
    data = memoryview(fixed("content", 3_000_000))
    sizes = Cutter(7).cut(data, final=True)
    assert sum(sizes) == len(data)
    assert all(GENERAL.min_size <= size <= GENERAL.max_size for size in sizes[:-1])
    assert Cutter(8).cut(data, final=True) != sizes
    assert GENERAL.min_size == SMALL_FILE_MAX


def test_a_tail_that_may_still_grow_is_left_out() -> None:
    data = memoryview(fixed("content", 3_000_000))
    whole = Cutter(7).cut(data, final=True)
    assert Cutter(7).cut(data, final=False) == whole[:-1]
    assert Cutter(7).cut(memoryview(b""), final=False) == []
    assert Cutter(7).cut(memoryview(b""), final=True) == []


def test_a_chunk_of_the_largest_size_is_cut_although_it_ends_the_buffer() -> None:
    zeros = memoryview(bytes(GENERAL.max_size))
    assert Cutter(0).cut(zeros, final=False) == [GENERAL.max_size]


def test_the_last_runs_may_have_a_page_of_their_own() -> None:
    runs = [ContentRun(bytes([1]) * 32, 9) for _ in range(100)]
    ends = [ContentRun(bytes([number]) * 32, 1) for number in range(2, 7)]
    levels, top, pages = paginate([*runs, *ends], CHUNK_ID, apart=5)
    other = paginate([*runs, *ends[:3]], CHUNK_ID, apart=3)
    assert levels == other[0] == 1
    assert top[:-1] == other[1][:-1], "what comes before is not written again"
    assert decode_page(pages[top[-1].id]) == ends
