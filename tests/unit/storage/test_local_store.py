"""What a directory store does beyond the contract: durability, full disks, litter, crashes."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    ContainerMissing,
    DiskFull,
    StorageRefused,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.storage.local import LocalBlobStore
from streamd.storage.port import BlobName

NAME = BlobName("d/x/p/aa/aapack")
pytestmark = pytest.mark.asyncio


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def litter(root: Path) -> list[str]:
    return os.listdir(root / "tmp")


async def test_objects_are_files_that_only_the_owner_can_read(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    await store.put(NAME, b"hello")
    assert store.path_of(NAME) == str(tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == b"hello"
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / NAME).stat().st_nlink == 1
    assert litter(tmp_path) == []


async def test_a_missing_root_is_not_begun_anew(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    store = LocalBlobStore(root)
    with pytest.raises(ContainerMissing):
        await store.put(NAME, b"x")
    with pytest.raises(ContainerMissing):
        await store.get(NAME)
    with pytest.raises(ContainerMissing):
        _ = [info async for info in store.scan("")]
    assert not root.exists()
    await LocalBlobStore(root, create=True).put(NAME, b"x")
    assert await store.get(NAME) == b"x"


async def test_everything_is_flushed_before_a_put_returns(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def fsync(handle: int) -> None:
        flushed.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))

    monkeypatch.setattr(os, "fsync", fsync)
    await store.put(NAME, b"x")
    file, *directories = [path for path in flushed if path != "."]
    assert file.startswith("tmp/")
    assert set(directories) >= {"d", "d/x", "d/x/p", "d/x/p/aa"}
    assert "." in flushed
    assert flushed[-1] == "d/x/p/aa"
    flushed.clear()
    await store.put(BlobName("d/x/p/aa/another"), b"x")
    assert len(flushed) == 2  # the file, and its directory: the others are known to be there
    flushed.clear()
    await LocalBlobStore(tmp_path).put(NAME, b"x")  # another process's put, which may have died
    assert set(flushed) >= {".", "d", "d/x", "d/x/p", "d/x/p/aa"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, VaultUnreachable),
        (errno.EROFS, StorageRefused),
    ],
)
async def test_a_failed_flush_leaves_no_object_and_no_litter(
    store: LocalBlobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[Exception],
) -> None:
    await store.put(BlobName("d/x/p/aa/other"), b"x")
    real, failures = os.fsync, [number]

    def fsync(handle: int) -> None:
        if failures:
            raise OSError(failures.pop(), "injected")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(expected):
        await store.put(NAME, b"content")
    with pytest.raises(BlobNotFound):
        await store.get(NAME)
    assert litter(tmp_path) == []
    await store.put(NAME, b"content")  # written anew, not flushed again
    assert await store.get(NAME) == b"content"


async def test_the_name_is_not_given_before_the_content_is_on_the_disk(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "link", lambda *a: (order.append("link"), link(*a)))
    await store.put(NAME, b"x")
    last = len(order) - 1 - order[::-1].index("link")
    assert "fsync" in order[:last]
    assert "fsync" in order[last:]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
async def test_a_full_disk_is_told_and_recovered_from(small_disk: Path) -> None:
    store = LocalBlobStore(small_disk)
    await store.put(BlobName("a/1"), bytes(100_000))
    for _ in range(100):
        with pytest.raises(DiskFull) as caught:
            await store.put(BlobName("a/2"), bytes(300_000))
        assert str(small_disk) in caught.value.advice()
        assert litter(small_disk) == []
        await store.put(BlobName("a/3"), bytes(100_000))
        await store.delete(BlobName("a/3"))
    assert await store.get(BlobName("a/1")) == bytes(100_000)


async def test_litter_is_swept_and_never_listed(store: LocalBlobStore, tmp_path: Path) -> None:
    assert await store.sweep_tmp() == 0
    await store.put(NAME, b"x")
    (tmp_path / "tmp" / f"{os.getpid()}-1").write_bytes(b"half an obj")
    (tmp_path / "tmp" / "4711-0").write_bytes(b"")
    assert [info.name async for info in store.scan("")] == [NAME]
    await store.put(BlobName("z"), b"our own number in the litter is stepped over")
    assert await store.sweep_tmp() == 2
    assert litter(tmp_path) == []


async def test_a_delete_removes_the_directories_it_empties(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    other = BlobName("d/x/c/1")
    await store.put(NAME, b"x")
    await store.put(other, b"x")
    await store.delete(NAME)
    assert sorted(os.listdir(tmp_path / "d/x")) == ["c"]
    await store.delete(other)
    assert sorted(os.listdir(tmp_path)) == ["tmp"]


async def test_a_cancelled_put_does_not_return_while_it_reads_the_buffer(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    real = os.write

    def write(handle: int, data: memoryview) -> int:
        if len(data) == 8:
            writing.set()
            go_on.wait(5)
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    buffer = bytearray(b"original")

    async def put_and_reuse() -> None:
        try:
            await store.put(NAME, buffer)
        finally:
            buffer[:] = b"garbage!"

    task = asyncio.get_running_loop().create_task(put_and_reuse())
    await asyncio.to_thread(writing.wait, 5)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.get(NAME) == b"original"


async def test_a_truncated_object_is_damage(store: LocalBlobStore, tmp_path: Path) -> None:
    await store.put(NAME, b"0123456789")
    os.truncate(tmp_path / NAME, 4)
    with pytest.raises(VaultDamaged):
        await store.get(NAME, offset=2, size=4)
    with pytest.raises(BlobConflict):
        await store.put(NAME, b"0123456789")


async def test_a_link_in_place_of_an_object_is_not_followed(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(VaultDamaged):
        await store.get(BlobName("a"))


async def test_an_object_in_the_way_of_a_directory_is_a_conflict(store: LocalBlobStore) -> None:
    await store.put(BlobName("a"), b"x")
    with pytest.raises(BlobConflict):
        await store.put(BlobName("a/b/c"), b"x")
    with pytest.raises(BlobNotFound):
        await store.get(BlobName("a/b"))


async def test_a_scan_reads_matching_directories_only(
    store: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("d/x/p/aa/1", "d/x/p/ab/1", "d/x/p/bb/1", "d/y/p/aa/1", "v/1"):
        await store.put(BlobName(name), b"x")
    visited: list[str] = []
    real = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: (visited.append(os.path.relpath(path, tmp_path)), real(path))[1]
    )
    assert [info.name async for info in store.scan("d/x/p/a")] == ["d/x/p/aa/1", "d/x/p/ab/1"]
    assert visited == ["d/x/p", "d/x/p/aa", "d/x/p/ab"]


_WRITER = """
import asyncio, sys
from streamd.storage.local import LocalBlobStore
async def main():
    store = LocalBlobStore(sys.argv[1])
    print("ready", flush=True)
    for n in range(10**6):
        await store.put(f"p/{n % 7}/{n}", b"%09d" % n * 5000)
        print(n, flush=True)
asyncio.run(main())
"""


async def test_every_acknowledged_object_outlives_a_kill_at_any_moment(tmp_path: Path) -> None:
    for round_ in range(3):
        root = tmp_path / str(round_)
        root.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, root], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            lines = [writer.stdout.readline() for _ in range(20 + round_)]
            writer.kill()
            lines += writer.stdout.readlines()
        store = LocalBlobStore(root)
        for number in (int(line) for line in lines if line.endswith(b"\n")):
            assert await store.get(BlobName(f"p/{number % 7}/{number}")) == b"%09d" % number * 5000
        async for info in store.scan(""):
            assert info.size_bytes == 45_000  # whole or not at all
        assert await store.sweep_tmp() <= 1
