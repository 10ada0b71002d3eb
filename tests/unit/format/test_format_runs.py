"""Index and history runs: they come back, find what is in them, and contradictions do not."""

import pytest
from golden.invalid import invalid_objects, manifest_with
from golden.materials import (
    CREATED_US,
    DOMAIN,
    SIGNER,
    WRITER_PUBLIC,
    CountedEntropy,
    fixed,
    key_chain,
)
from golden.readers import CHAIN, META, READERS
from golden.specimens import history_root, history_rows
from hypothesis import given
from hypothesis import strategies as st

from streamd.errors import KeyRejected, VaultDamaged
from streamd.format import envelope, history_run, index_run, layout
from streamd.format.envelope import Kind
from streamd.format.history_run import (
    HistoryPage,
    HistoryRow,
    decode_page,
    decode_root,
    decode_run,
    encode_run,
    pages_with,
    split_pages,
)
from streamd.format.index_run import (
    SHARD_CHUNKS_TARGET,
    IndexShard,
    bits_for,
    decode_manifest,
    decode_shard,
    encode_shard,
    shard_of,
)
from streamd.format.layout import JournalPosition, parse_history_name, parse_index_name

READERS_OF_RUNS = {"index-shard", "index-manifest", "history"}
chunk_ids = st.sets(st.binary(min_size=32, max_size=32), max_size=40)


@given(chunk_ids, st.integers(0, 8))
def test_a_shard_finds_what_is_in_it_and_nothing_else(ids: set[bytes], bits: int) -> None:
    wanted = 5 % (1 << bits)
    here = sorted(chunk for chunk in ids if shard_of(chunk, bits) == wanted)
    objects = b"".join(n.to_bytes(4, "little") for n in range(len(here)))
    shard = IndexShard(wanted, bits, b"".join(here), objects)
    made = encode_shard(
        shard, 3, keys=CHAIN, now_us=CREATED_US, signer=SIGNER, entropy=CountedEntropy()
    )
    parsed = parse_index_name(made.name)
    assert parsed is not None
    assert (parsed.generation, parsed.shard) == (3, wanted)
    read = decode_shard(made.data, WRITER_PUBLIC, CHAIN.secret_for)
    assert read == shard
    assert list(read.rows()) == [(chunk, n) for n, chunk in enumerate(here)]
    for number, chunk in enumerate(here):
        assert read.find(chunk) == number
    for chunk in ids - set(here):
        assert read.find(chunk) is None
    assert read.find(bytes(32)) in (None, 0)


@pytest.mark.parametrize(
    ("count", "bits"),
    [(0, 0), (SHARD_CHUNKS_TARGET, 0), (SHARD_CHUNKS_TARGET + 1, 1), (10**7, 5), (10**12, 8)],
)
def test_there_are_as_many_shards_as_the_chunks_need(count: int, bits: int) -> None:
    assert bits_for(count) == bits


def test_a_manifest_with_too_many_objects_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(index_run, "OBJECTS_MAX", 1)
    decode_manifest(manifest_with(objects=[["p", 1]]), WRITER_PUBLIC, CHAIN.secret_for)
    with pytest.raises(VaultDamaged, match="limits"):
        decode_manifest(manifest_with(objects=[["p", 1]] * 2), WRITER_PUBLIC, CHAIN.secret_for)


# -- history -------------------------------------------------------------------------------------


def made_run():
    return encode_run(
        history_root(fixed("hash")),
        history_rows(),
        keys=CHAIN,
        meta=META,
        signer=SIGNER,
        entropy=CountedEntropy(),
    )


def test_a_run_comes_back_whole_and_page_by_page() -> None:
    made, rows = made_run(), history_rows()
    root, read = decode_run(made.data, WRITER_PUBLIC, CHAIN.secret_for)
    assert read == rows
    assert (root.cover.first, root.cover.last) == (JournalPosition(1, 0), JournalPosition(1, 1))
    assert len(root.pages) > 1
    span = parse_history_name(made.name)
    assert span is not None
    assert (span.source, span.level) == (root.source, 1)
    assert span.start_us == root.start_us // 1000 * 1000
    parsed = envelope.parse(made.data, Kind.HISTORY)
    assert decode_root(parsed, CHAIN.secret_for) == root
    pages = [decode_page(parsed, root, n, CHAIN.secret_for) for n in range(len(root.pages))]
    assert [row for page in pages for row in page] == rows


def test_a_run_is_not_for_a_host_that_may_not_read() -> None:
    with pytest.raises(KeyRejected):
        decode_run(made_run().data, WRITER_PUBLIC, key_chain(full=False).secret_for)


def test_a_run_with_too_many_pages_is_refused(monkeypatch) -> None:
    made = made_run()
    monkeypatch.setattr(history_run, "PAGES_MAX", 1)
    with pytest.raises(VaultDamaged, match="pages"):
        decode_run(made.data, WRITER_PUBLIC, CHAIN.secret_for)


keys = st.binary(max_size=3)


@given(st.lists(keys, max_size=30), st.lists(keys.filter(bool), max_size=3), st.integers(1, 9))
def test_the_pages_of_a_prefix_hold_all_of_it(
    found: list[bytes], prefixes: list[bytes], size: int
) -> None:
    rows = [HistoryRow(key, n, 5, 0, b"") for n, key in enumerate(sorted(found))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_run, "PAGE_BYTES", size)
        parts = list(split_pages(rows))
    assert [row for part in parts for row in part] == rows
    pages = tuple(HistoryPage(part[0].key, len(part)) for part in parts)
    root = history_run.HistoryRoot(b"", 1, 0, 0, history_root(b"").cover, pages)
    chosen = pages_with(root, prefixes)
    for number, part in enumerate(parts):
        is_wanted = any(not row.key or row.key.startswith(tuple(prefixes)) for row in part)
        assert number in chosen or not is_wanted
    if not prefixes:
        assert chosen == [n for n, part in enumerate(parts) if not part[0].key]


def test_a_page_beside_a_prefix_is_not_read() -> None:
    pages = tuple(HistoryPage(key, 1) for key in (b"d1", b"d5", b"f1", b"f5"))
    root = history_run.HistoryRoot(b"", 1, 0, 0, history_root(b"").cover, pages)
    assert pages_with(root, [b"d7"]) == [1]
    assert pages_with(root, [b"d"]) == [0, 1]
    assert pages_with(root, [b"f5"]) == [2, 3]
    assert pages_with(root, [b"a", b"s"]) == [3]


@pytest.mark.parametrize(
    "bad",
    [each for each in invalid_objects() if each.reader in READERS_OF_RUNS],
    ids=lambda bad: bad.file,
)
def test_a_run_that_contradicts_itself_is_refused(bad) -> None:
    with pytest.raises(VaultDamaged):
        READERS[bad.reader](bad.data, bad.name)


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "d/D/h/{s}/1/0000000000001-0000000000002",
        "d/D/h/{s}/1/0000000000001-0000000000002-x",
        "d/D/h/{s}/10/0000000000001-0000000000002-aaaaaaaaaaaaa",
        "d/D/h/{s}/1/000000000001-0000000000002-aaaaaaaaaaaaa",
        "d/D/h/{s}/1/0000000000001-000000000002-aaaaaaaaaaaaa",
        "d/D/h/1/1/0000000000001-0000000000002-aaaaaaaaaaaaa",
        "d/D/h/{s}/1",
        "d/D/c/{s}/1/0000000000001-0000000000002-aaaaaaaaaaaaa",
    ],
)
def test_almost_a_history_name_is_none(name: str) -> None:
    assert parse_history_name(name.format(s="a" * 26)) is None


@pytest.mark.parametrize(
    "name",
    [
        "d/D/x/0000001/done",
        "d/D/x/0000001/00-aaaaaaaaaaaaa",
        "d/D/x/00000001/0-aaaaaaaaaaaaa",
        "d/D/x/00000001/00-aaaa",
        "d/D/x/00000001/x/done",
        "d/D/y/00000001/done",
    ],
)
def test_almost_an_index_name_is_none(name: str) -> None:
    assert parse_index_name(name) is None


def test_index_and_history_names_are_what_the_specification_says() -> None:
    d = layout.domain_prefix(DOMAIN)
    assert layout.index_manifest_name(DOMAIN, 7) == f"{d}x/00000007/done"
    assert layout.index_shard_name(DOMAIN, 7, 31, bytes(8)) == f"{d}x/00000007/1f-aaaaaaaaaaaaa"
    assert parse_index_name(f"{d}x/00000007/done") == layout.IndexName(7, None)
    span = layout.HistorySpan(history_root(b"").source, 2, 16_000, 32_000)
    name = layout.history_name(DOMAIN, span, bytes(8))
    assert name.startswith(layout.history_prefix(DOMAIN))
    assert name.startswith(layout.history_prefix(DOMAIN, span.source))
    assert name.endswith("/2/0000000000010-0000000000020-aaaaaaaaaaaaa")
