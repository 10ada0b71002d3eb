"""Findings become segments: epochs, splitting, gaps and marks, what needs what, and what is kept."""

import sqlite3

import msgspec
import pytest
from unit.pipeline.journaling import Host
from vaultbuilder import version_of

from streamd.catalog import dirty, objects, tree
from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.catalog.journal import load_head
from streamd.catalog.objects import ObjectState
from streamd.catalog.tree import Intent
from streamd.errors import DiskFull
from streamd.format import batch, state_sum
from streamd.format.keys import Role
from streamd.format.layout import parse_segment_name
from streamd.format.segment import RECORDS_MAX
from streamd.model.entry import Dirent, EntryType
from streamd.model.ids import ROOT_FID, Fid
from streamd.model.record import (
    SOURCE_KEY,
    Gap,
    Incident,
    Mark,
    Op,
    StateSum,
    dirent_key,
    version_key,
)
from streamd.pipeline import commit as commit_module
from streamd.pipeline.findings import Found, Ready, Trouble
from streamd.vault.state_reader import StateReader


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.catalog.close()


def segments(result):
    return [put for put in result.puts if parse_segment_name(put.object.name) is not None]


def test_the_first_commit_opens_an_epoch(host) -> None:
    result = host.commit(Ready(intents=host.intents(1)))
    assert [bool(parse_segment_name(put.object.name)) for put in result.puts] == [False, True]
    head = host.catalog.write_now(load_head)
    assert (head.epoch, head.next_seq, head.is_sealed) == (1, 1, False)
    again = host.commit(Ready(intents=host.intents(1)))
    assert [parse_segment_name(put.object.name) for put in again.puts] == [(1, 1)]


def test_a_new_process_seals_the_epoch_before(host) -> None:
    host.commit(Ready(intents=host.intents(1)))
    host.reopen()
    result = host.commit(Ready(intents=host.intents(1)))
    names = [parse_segment_name(put.object.name) for put in result.puts]
    assert names == [(1, 1), None, (2, 0)]
    _, records = host.records(result.puts[0])
    assert [record.op for record in records] == [Op.SEAL]


def test_an_orderly_stop_seals_once_and_the_next_epoch_does_not_seal_again(host) -> None:
    host.commit(Ready(intents=host.intents(1)))
    sealed = host.catalog.write_now(host.journal.seal)
    assert len(sealed.puts) == 1
    assert not host.catalog.write_now(host.journal.seal).puts
    host.reopen()
    assert not host.catalog.write_now(host.journal.seal).puts
    names = [
        parse_segment_name(p.object.name) for p in host.commit(Ready(intents=host.intents(1))).puts
    ]
    assert names == [None, (2, 0)]  # fmt: skip


def test_after_a_seal_the_same_process_opens_another_epoch(host) -> None:
    host.commit(Ready(intents=host.intents(1)))
    host.catalog.write_now(host.journal.seal)
    result = host.commit(Ready(intents=host.intents(1)))
    assert [parse_segment_name(put.object.name) for put in result.puts] == [None, (2, 0)]


def test_what_was_rolled_back_is_forgotten(host) -> None:
    """The disk is full at the end of the transaction: the next attempt makes the same names."""

    def failing(connection: sqlite3.Connection, entries):
        host.journal.commit(connection, entries)
        raise DiskFull("full", path="/")

    entry = host.entry(Ready(intents=host.intents(1)))
    with pytest.raises(DiskFull):
        host.catalog.write_now(failing, [entry])
    result = host.catalog.write_now(host.journal.commit, [entry])
    assert [parse_segment_name(put.object.name) for put in result.puts] == [None, (1, 0)]

    def failing_seal(connection: sqlite3.Connection):
        host.journal.seal(connection)
        raise DiskFull("full", path="/")

    with pytest.raises(DiskFull):
        host.catalog.write_now(failing_seal)
    assert len(host.catalog.write_now(host.journal.seal).puts) == 1


@pytest.mark.asyncio
async def test_more_records_than_a_segment_holds_become_several_of_one_instant(
    host, monkeypatch
) -> None:
    assert commit_module._RECORDS_PER_SEGMENT < RECORDS_MAX == 65_536
    monkeypatch.setattr(commit_module, "_RECORDS_PER_SEGMENT", 10)
    result = host.commit(Ready(intents=host.intents(30)))
    counts = []
    for put in segments(result):
        segment, records = host.records(put)
        assert (segment.start_us, segment.end_us) == (result.at_us, result.at_us)
        assert len(records) <= 10
        counts.append(len(records))
    assert sum(counts) == 30 * 2 + 1 + 1  # names and versions, the source's name, the sum
    await host.put(result)
    with await StateReader(host.builder.vault).state_at("web", result.at_us) as state:
        assert not state.damage
        assert len(list(state.rows())) == 61


@pytest.mark.asyncio
@pytest.mark.slow
async def test_really_many_records_fit(host) -> None:
    result = host.commit(Ready(intents=host.intents(40_000)))
    assert len(segments(result)) == 2
    await host.put(result)
    with await StateReader(host.builder.vault).state_at("web", result.at_us) as state:
        assert not state.damage
        assert state.sums_checked == 1


@pytest.mark.asyncio
async def test_gaps_and_marks_are_written_even_if_nothing_changed(host) -> None:
    host_result = host.commit(Ready(intents=host.intents(1)))
    await host.put(host_result)
    gap, mark = Gap(5, 6, "overflow"), Mark("release", hold_until_us=9)
    result = host.commit(Ready(gaps=[gap], marks=[mark]))
    await host.put(result)
    reader = StateReader(host.builder.vault)
    (recorded,) = await reader.gaps("web")
    assert (recorded.start_us, recorded.reason) == (gap.start_us, gap.reason)
    assert recorded.end_us == result.at_us  # only what is recorded with it closes it
    assert await reader.marks("web") == [(result.at_us, Incident("release", hold_until_us=9))]


def test_nothing_to_record_writes_nothing(host) -> None:
    host.commit(Ready(intents=host.intents(1)))
    result = host.commit(Ready(gone=[(77, b"never was")], survey_done=3))
    assert not result.puts
    assert result.at_us == 0


def test_times_never_go_back_with_the_clock(host) -> None:
    first = host.commit(Ready(intents=host.intents(1)))
    host.builder.clock.us -= 3_600_000_000
    second = host.commit(Ready(intents=host.intents(1)))
    assert second.at_us == first.at_us + 1


def test_the_bytes_are_remembered_until_they_are_put(host) -> None:
    result = host.commit(Ready(intents=host.intents(1)))
    rows = host.catalog.write_now(objects.unput)
    assert [(row.name, data) for row, data in rows] == [
        (put.object.name, bytes(put.object.data)) for put in result.puts
    ]
    host.catalog.write_now(host.journal.mark_put, [put.number for put in result.puts])
    assert host.catalog.write_now(objects.unput) == []


def test_a_segment_needs_the_packs_that_its_files_refer_to(tmp_path) -> None:
    host = Host(tmp_path, remote=True)
    pack = host.builder.writer.encode_pack([host.sealed(b"x" * 100)], Role.DATA)
    number = host.catalog.write_now(host.journal.add_pack, pack)
    chunk = host.builder.keys.domain_keys.chunk_id(b"x" * 100)
    ready = Ready(intents=host.intents(1), needs={number}, new_chunks={number: [chunk]})
    result = host.commit(ready)
    host.catalog.write_now(host.journal.mark_put, [put.number for put in result.puts])
    rows = host.catalog.write_now(objects.pending_uploads, 10, packs=False)
    assert rows[-1].needs == (number,)
    assert host.catalog.write_now(objects.unfinished_among, [number])
    assert host.catalog.write_now(objects.find_chunks, [chunk]) == {chunk: number}
    host.catalog.close()


def test_inline_chunks_are_known_by_their_segment(host) -> None:
    ids = [host.builder.keys.domain_keys.chunk_id(content) for content in (b"one", b"two")]
    result = host.commit(Ready(intents=host.intents(1), inline_data=[host.sealed(b"one", b"two")]))
    assert host.catalog.write_now(objects.find_chunks, ids) == dict.fromkeys(
        ids, result.puts[-1].number
    )


def test_inline_chunks_are_written_even_if_nothing_else_is(host) -> None:
    """A later finding of the lane may refer to them already."""
    host.commit(Ready(intents=host.intents(1)))
    result = host.commit(Ready(inline_data=[host.sealed(b"one")]))
    chunk = host.builder.keys.domain_keys.chunk_id(b"one")
    assert len(result.puts) == 1
    assert chunk in host.catalog.write_now(objects.find_chunks, [chunk])


def test_an_intent_without_a_place_makes_its_place_dirty_again(host) -> None:
    (intent,) = host.intents(1)
    ready = Ready(
        intents=[intent._replace(parent=999)],
        settled=[(999, intent.name)],
        found=[
            Found(
                999,
                intent.name,
                b"/r/lost",
                intent.fid,
                intent.stat,
                42,
                0,
                read=True,
                is_fresh=True,
            ),
            Found(1, b"kept", b"/r/kept", 7, intent.stat, 43, 0, read=True, is_fresh=True),
        ],
    )
    host.commit(ready)
    assert ready.lost == [DirtyPlace(b"/r/lost", Depth.BELOW, 42)]
    rows = host.catalog.write_now(dirty.pick, host.number(), 9, scan=False, limit=9)
    assert rows == [DirtyPlace(b"/r/lost", Depth.BELOW, 42)]


def test_problems_come_and_go_with_what_is_committed(host) -> None:
    host.commit(Ready(troubles=[Trouble(b"/r/x", "unreadable", 13)]))
    assert [(row.path, row.errno) for row in host.catalog.write_now(dirty.problems, host.number())] == [
        (b"/r/x", 13)
    ]  # fmt: skip
    host.commit(Ready(good_paths=[b"/r/x"]))
    assert host.catalog.write_now(dirty.problems, host.number()) == []


@pytest.mark.parametrize("remote", [False, True])
def test_a_change_waits_until_its_segment_is_where_it_belongs(tmp_path, remote) -> None:
    host = Host(tmp_path, remote=remote)
    result = host.commit(Ready(intents=host.intents(1), first_us=42))
    ask = lambda question: host.catalog.write_now(question, host.number())  # noqa: E731
    assert ask(objects.oldest_unput_us) == 42
    assert ask(objects.oldest_waiting_us) == 42
    host.catalog.write_now(host.journal.mark_put, [put.number for put in result.puts])
    assert ask(objects.oldest_unput_us) is None
    assert ask(objects.oldest_waiting_us) == (42 if remote else None)
    for put in result.puts:
        host.catalog.write_now(objects.mark_uploaded, put.number)
    assert ask(objects.oldest_waiting_us) is None
    host.catalog.close()


def test_what_was_found_as_captured_waits_for_the_segment_that_captured_it(tmp_path) -> None:
    """Another look recorded the change, with a younger age; it is not in the container yet."""
    host = Host(tmp_path, remote=True)
    host.commit(Ready(intents=host.intents(1), first_us=500))
    host.commit(Ready(survey_done=7, first_us=42))
    assert host.catalog.write_now(objects.oldest_waiting_us, host.number()) == 42
    host.catalog.close()


def test_a_state_is_left_local_until_uploaded_only_with_a_container(host) -> None:
    result = host.commit(Ready(intents=host.intents(1)))
    host.catalog.write_now(host.journal.mark_put, [put.number for put in result.puts])
    assert host.catalog.write_now(objects.backlog) == (0, 0)
    assert ObjectState.VAULT > ObjectState.LOCAL


# -- many findings at once -------------------------------------------------------------------------


def test_findings_recorded_together_need_another_look_each_by_itself(host) -> None:
    good, lost, other = host.intents(3)
    lost = lost._replace(parent=999)
    found = [
        Found(one.parent, one.name, b"/r/" + one.name, one.fid, one.stat, 7, 0, True, True)
        for one in (good, lost, other)
    ]
    readies = [
        Ready(intents=[one], found=[place])
        for one, place in zip((good, lost, other), found, strict=True)
    ]
    host.commit(*readies)
    assert [ready.is_torn for ready in readies] == [False, True, False]
    assert [[place.path for place in ready.lost] for ready in readies] == [
        [],
        [b"/r/" + lost.name],
        [],
    ]


def test_what_is_gone_between_two_findings_is_gone_before_the_later_one(host) -> None:
    """The same place, by another file: removed and made again, in one transaction."""
    first, second = host.intents(2)
    second = second._replace(name=first.name)
    gone = Ready(intents=[first], gone=[(first.parent, first.name)])
    result = host.commit(gone, Ready(intents=[second]))
    _, records = host.records(segments(result)[0])
    ops = [record.op for record in records if record.op != Op.STATE]
    assert ops == [Op.SET, Op.SET, Op.SET, Op.DEL, Op.DEL, Op.SET, Op.SET]


def test_a_first_capture_asks_the_catalog_few_times(host) -> None:
    """Each statement gives the interpreter's lock away several times."""
    readies = []
    for _ in range(40):  # as many findings, each of five directories with nine files
        made = host.intents(50)
        for at in range(0, 50, 10):
            inside = [one._replace(parent=made[at].fid) for one in made[at + 1 : at + 10]]
            made[at : at + 10] = [made[at], *inside]
        readies.append(Ready(intents=made, new_chunks={1: [b"%32d" % one.fid for one in made]}))
    said: list[str] = []

    def commit(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)
        host.journal.commit(connection, [host.entry(each) for each in readies])
        connection.set_trace_callback(None)

    host.catalog.write_now(commit)
    with host.catalog.reader() as reader:
        counts = [
            reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("node", "dirent", "chunk")
        ]
    assert counts == [2000, 2000, 2000]
    assert len(said) < 100


def test_many_files_that_changed_are_recorded_as_they_are_now_by_few_statements(host) -> None:
    intents = host.intents(600)
    intents[0] = intents[0]._replace(stat=intents[0].stat._replace(nlink=2))
    twin = intents[0]._replace(name=b"twin", version=None, is_fresh=False)
    host.commit(Ready(intents=[*intents, twin]))
    changed = [
        one._replace(
            stat=one.stat._replace(ctime_ns=9, ino=one.fid + 1),
            version=msgspec.msgpack.encode(version_of(EntryType.REGULAR, size=3)),
            generation=3,
            again=True,
            is_fresh=False,
        )
        for one in intents
    ]
    said: list[str] = []

    def commit(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)
        host.journal.commit(connection, [host.entry(Ready(intents=changed))])
        connection.set_trace_callback(None)

    host.catalog.write_now(commit)
    assert len(said) < 60
    with host.catalog.reader() as reader:
        rows = reader.execute(
            "SELECT fid, source, ctime_ns, ino, generation, links, again, version FROM node"
        ).fetchall()
    number = host.number()
    assert sorted(rows) == [
        (one.fid, number, 9, one.fid + 1, 3, 1 + (one.fid == twin.fid), 1, one.version)
        for one in changed
    ]


def test_the_state_sum_is_the_same_however_many_terms_wait(host, monkeypatch) -> None:
    monkeypatch.setattr(tree, "REMOVED_MAX", 3)
    intents = host.intents(10)
    host.commit(Ready(intents=intents))
    gone = [(one.parent, one.name) for one in intents[:8]]
    result = host.commit(Ready(gone=gone))
    _, records = host.records(segments(result)[0])
    (total,) = [record.value for record in records if record.op == Op.STATE]
    live = [row for one in intents[8:] for row in rows_of(one)]
    info = msgspec.msgpack.encode(host.entry(Ready()).source.info)
    expected = StateSum(state_sum.to_bytes(batch.sum_rows([*live, (SOURCE_KEY, info)])), 5)
    assert msgspec.msgpack.decode(total, type=StateSum) == expected


def rows_of(intent: Intent) -> list[tuple[bytes, bytes]]:
    dirent = msgspec.msgpack.encode(Dirent(intent.fid, intent.stat.type))
    return [
        (dirent_key(ROOT_FID, intent.name), dirent),
        (version_key(Fid(intent.fid)), intent.version),
    ]
