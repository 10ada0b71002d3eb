"""What a program writes becomes a file; a program that fails changes nothing."""

import asyncio
import threading
import time

import pytest
from conftest import ZeroByteCutter, chunk_id, content

from streamd.effects import SystemClock
from streamd.sources.command.process import Process, ProgramFailed, run_to_end
from streamd.sources.command.source import CommandSource
from streamd.sources.filesystem.content import Chunking
from streamd.sources.port import VIRTUAL_ROOT, Outcome, ReadRequest


class Clock(SystemClock):
    """The real clock, a settable time ahead."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


@pytest.fixture
def make():
    ran = []

    def build(script: str, **options) -> CommandSource:
        source = CommandSource(
            "db",
            b"dump.sql",
            ["sh", "-c", script],
            every_seconds=options.pop("every_seconds", 3600),
            timeout_seconds=options.pop("timeout_seconds", 30),
            size_min=options.pop("size_min", 1),
            chunking=Chunking(ZeroByteCutter(), chunk_id, 1024),
            clock=options.pop("clock", SystemClock()),
            ran=lambda *what: ran.append(what[1]),
            **options,
        )
        source.ran = ran
        return source

    return build


def run(source):
    entry = source.examine(VIRTUAL_ROOT, None).entries[b"/dump.sql"]
    large = source.open_large(ReadRequest(b"/dump.sql", entry))
    data = b""
    while (part := large.next()) is not None:
        data += content(*part)
    return data, large.finish()


def test_the_output_of_a_program_is_the_content_of_its_file(make):
    source = make("echo one; echo two")
    data, result = run(source)
    assert data == b"one\ntwo\n"
    assert (result.outcome, result.content_size, result.is_derived) == (Outcome.OK, 8, True)
    assert result.stat == source.examine(VIRTUAL_ROOT, [b"/dump.sql"]).entries[b"/dump.sql"]
    assert source.ran == ["ok"]


def test_long_output_comes_in_pieces_of_bounded_size(make):
    source = make(
        "head -c 3000000 /dev/zero | tr '\\0' 'a'; printf '\\377end'", batch_bytes_max=65536
    )
    entry = source.examine(VIRTUAL_ROOT, None).entries[b"/dump.sql"]
    large = source.open_large(ReadRequest(b"/dump.sql", entry))
    total = 0
    while (part := large.next()) is not None:
        assert len(part[0]) <= 65536 * 2
        total += sum(piece.size for piece in part[1])
    assert (total, large.finish().content_size) == (3000004, 3000004)


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        ("echo part; echo 'no such table' >&2; exit 3", {}, ["status 3", "no such table"]),
        ("echo part; kill -9 $$", {}, ["SIGKILL"]),
        ("true", {}, ["wrote 0 bytes", "min_size is 1"]),
        ("echo short", {"size_min": 100}, ["wrote 6 bytes", "min_size is 100"]),
        ("echo part; sleep 60", {"timeout_seconds": 0.5}, ["not done within 0.5 s"]),
        ("yes 'much to say' | head -n 20000 >&2; exit 1", {}, ["status 1", "much to say"]),
    ],
)
def test_a_program_that_fails_gives_no_version_and_its_last_words(make, script, options, words):
    source = make(script, **options)
    _, result = run(source)
    assert result.outcome is Outcome.COMMAND_FAILED
    assert all(word in result.detail for word in words), result.detail
    assert len(result.detail) < 2000
    assert source.ran == ["failed"]


def test_a_program_that_is_not_there_fails_the_same_way(make):
    source = make("true")
    source.argv = ("/nowhere/dump",)
    _, result = run(source)
    assert (result.outcome, "no program" in result.detail) == (Outcome.COMMAND_FAILED, True)


def test_it_is_due_once_in_its_time_and_at_once_when_asked(make):
    clock = Clock()
    source = make("true", clock=clock)

    def stamp(one):
        return one.examine(VIRTUAL_ROOT, None).entries[b"/dump.sql"].ctime_ns

    first = stamp(source)
    assert stamp(make("true", clock=clock)) == first  # a restart does not run it again
    clock.ahead_us = 3600 * 1_000_000
    assert stamp(source) == first + 3600 * 10**9
    assert stamp(make("true", clock=clock, now=True)) > stamp(source)


@pytest.mark.asyncio
async def test_the_schedule_announces_what_is_due_and_retries_what_failed(make):
    clock = Clock()
    source = make("exit 1", clock=clock, tick_seconds=0.01)
    batches = source.watch()
    assert not (await anext(batches)).paths
    assert not (await anext(batches)).paths
    clock.ahead_us = 3600 * 1_000_000
    assert (await anext(batches)).paths == {b"/dump.sql": False}
    assert not (await anext(batches)).paths
    await asyncio.to_thread(run, source)
    source._retry_at = clock.monotonic()
    assert (await anext(batches)).paths == {b"/dump.sql": False}
    await batches.aclose()


def test_a_run_that_is_stopped_ends_soon_and_is_neither_good_nor_bad(make):
    source = make("echo begun; sleep 60; echo end")
    began = time.monotonic()
    threading.Timer(0.5, source.stop).start()
    _, result = run(source)
    assert result.outcome is Outcome.TYPE_CHANGED
    assert time.monotonic() - began < 15
    assert source.ran == []


def test_giving_up_while_another_thread_reads_leaves_no_process_behind(make):
    source = make("sleep 60")
    entry = source.examine(VIRTUAL_ROOT, None).entries[b"/dump.sql"]
    large = source.open_large(ReadRequest(b"/dump.sql", entry))
    reader = threading.Thread(target=large.next)
    reader.start()
    while large._process is None:
        time.sleep(0.01)
    process = large._process._process
    large.close()
    reader.join(15)
    assert process.wait(15) is not None
    assert not reader.is_alive()


def test_the_environment_is_little_and_no_shell_is_between(monkeypatch):
    monkeypatch.setenv("SECRET_OF_OURS", "marker")
    process = Process(["env"], {"STREAMD_SOURCE": "db; $(reboot)"}, seconds=10, clock=SystemClock())
    room = memoryview(bytearray(65536))
    text = bytes(room[: process.read_into(room)])
    process.finish()
    process.close()
    assert b"STREAMD_SOURCE=db; $(reboot)\n" in text
    assert b"marker" not in text
    with pytest.raises(ProgramFailed, match="status 1"):
        run_to_end(["false"], {}, seconds=10, clock=SystemClock())
