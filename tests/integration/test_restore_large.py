"""A large file that comes in parts, from two threads: right, one writer at a time, and whole or not."""

import asyncio
import errno
import os
import threading
import time

import pytest
from test_restore import noise, restore
from vaultbuilder import VaultBuilder

from streamd.errors import DiskFull
from streamd.model.entry import ContentRun
from streamd.restore.target import Target
from streamd.storage.local import LocalBlobStore

SIZE = 20_000_000  # five ranges of the pack


async def vault_with_large_file(tmp_path) -> tuple[VaultBuilder, bytes]:
    builder = VaultBuilder(LocalBlobStore(tmp_path / "vault", create=True))
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    data = noise(SIZE)
    web.file(b"/w/large", data, mtime_ns=5)
    web.file(b"/w/small", b"beside")
    runs = builder.store_content(data)
    # the same chunks a second time, in another order and around a hole
    web.runs_file(b"/w/mixed", [*runs[1::2], ContentRun(None, 1 << 20), *runs[::2]])
    await builder.commit(packed=True)
    return builder, data


def mixed_of(data: bytes) -> bytes:
    parts = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    return b"".join([*parts[1::2], bytes(1 << 20), *parts[::2]])


@pytest.mark.asyncio
async def test_pieces_from_two_threads_make_the_right_file_and_one_writes_at_a_time(
    tmp_path, monkeypatch
):
    builder, data = await vault_with_large_file(tmp_path)
    at_work: dict[bytes, threading.Lock] = {b"large": threading.Lock(), b"mixed": threading.Lock()}
    threads, write = set[int](), Target.write_part

    def slowly(self, file, pieces) -> None:
        assert at_work[file.name].acquire(blocking=False), "two write into one file"
        threads.add(threading.get_ident())
        time.sleep(0.005)
        write(self, file, pieces)
        at_work[file.name].release()

    monkeypatch.setattr(Target, "write_part", slowly)
    report = await restore(builder, tmp_path / "out")
    assert report.refused == []
    assert report.file_count == 3
    assert (tmp_path / "out/large").read_bytes() == data
    assert (tmp_path / "out/mixed").read_bytes() == mixed_of(data)
    assert (tmp_path / "out/large").stat().st_mtime_ns == 5
    assert sorted(os.listdir(tmp_path / "out")) == ["large", "mixed", "small"]


@pytest.mark.asyncio
async def test_calls_that_write_less_than_asked_are_gone_on_with(tmp_path, monkeypatch):
    builder, data = await vault_with_large_file(tmp_path)
    whole, single = os.pwritev, os.pwrite

    def some(handle, pieces, offset) -> int:
        total = sum(map(len, pieces))
        return whole(handle, [b"".join(pieces)[: total * 2 // 3]], offset)

    monkeypatch.setattr(os, "pwritev", some)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: single(fd, data[:40_000], at))
    report = await restore(builder, tmp_path / "out")
    assert report.refused == []
    assert (tmp_path / "out/large").read_bytes() == data
    assert (tmp_path / "out/mixed").read_bytes() == mixed_of(data)


@pytest.mark.asyncio
@pytest.mark.parametrize("failing", [1, 2])
async def test_an_error_at_one_piece_refuses_that_file_and_no_other(tmp_path, monkeypatch, failing):
    builder, data = await vault_with_large_file(tmp_path)
    write, count, lock = Target.write_part, [0], threading.Lock()

    def failing_once(self, file, pieces) -> None:
        if file.name == b"large":
            with lock:
                count[0] += 1
                now = count[0]
            time.sleep(0.01)
            if now >= failing:
                raise OSError(errno.EIO, "Input/output error")
        write(self, file, pieces)

    monkeypatch.setattr(Target, "write_part", failing_once)
    report = await restore(builder, tmp_path / "out")
    reason = [(each.path, each.reason) for each in report.refused]
    assert reason == [(b"/w/large", "Input/output error")]
    assert report.file_count == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["mixed", "small"]
    assert (tmp_path / "out/mixed").read_bytes() == mixed_of(data)


@pytest.mark.asyncio
async def test_a_full_disk_ends_the_restore_and_the_next_one_brings_everything(
    tmp_path, monkeypatch
):
    builder, data = await vault_with_large_file(tmp_path)
    write, count = Target.write_part, [0]

    def until_full(self, file, pieces) -> None:
        count[0] += 1
        time.sleep(0.01)
        if count[0] >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, file, pieces)

    monkeypatch.setattr(Target, "write_part", until_full)
    with pytest.raises(DiskFull):
        await restore(builder, tmp_path / "out")
    assert not (tmp_path / "out/large").exists()
    monkeypatch.undo()
    report = await restore(builder, tmp_path / "out")
    assert report.refused == []
    assert (tmp_path / "out/large").read_bytes() == data
    assert (tmp_path / "out/mixed").read_bytes() == mixed_of(data)
    assert sorted(os.listdir(tmp_path / "out")) == ["large", "mixed", "small"]


@pytest.mark.asyncio
async def test_a_cancelled_restore_leaves_no_thread_that_writes(tmp_path, monkeypatch):
    builder, _ = await vault_with_large_file(tmp_path)
    write, began, at_work = Target.write_part, threading.Event(), set[int]()

    def noted(self, file, pieces) -> None:
        at_work.add(threading.get_ident())
        began.set()
        time.sleep(0.01)
        write(self, file, pieces)
        at_work.discard(threading.get_ident())

    monkeypatch.setattr(Target, "write_part", noted)
    task = asyncio.create_task(restore(builder, tmp_path / "out"))
    while not began.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert at_work == set()
    assert not (tmp_path / "out/large").exists()
