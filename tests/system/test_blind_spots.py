"""T-F10: every way to change a file, whether an event tells of it or not, is captured in the end.

Which are told by an event is printed (`pytest -s`); what is not, the periodic comparison finds.
"""

import ctypes
import fcntl
import mmap
import os
import subprocess
import time
from pathlib import Path

import pytest
from system.daemon_process import Daemon
from system.test_fidelity import disk  # noqa: F401 - a fixture

FICLONE = 0x40049409
SIZE = 64 * 1024
RECONCILE_SECONDS = 3
SYS_IO_URING_SETUP, SYS_IO_URING_ENTER = 425, 426
IORING_OP_WRITE, GETEVENTS = 23, 1
_libc = ctypes.CDLL(None, use_errno=True)


def by_mapping(path: Path, data: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[: len(data)] = data


def by_mapping_after_close(path: Path, data: bytes) -> None:
    """The store comes when no descriptor is left that could tell by its close."""
    fd = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(fd, 0)
    os.close(fd)
    time.sleep(1.5)  # whatever opening and closing it told has been looked at
    mapped[: len(data)] = data
    mapped.flush()
    mapped.close()


def by_direct_io(path: Path, data: bytes) -> None:
    block = mmap.mmap(-1, SIZE)
    block[:] = data.ljust(SIZE, b"\0")
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    os.pwritev(fd, [block], 0)
    os.close(fd)


def by_reflink(path: Path, data: bytes) -> None:
    other = path.with_name("source of the clone")
    other.write_bytes(data.ljust(SIZE, b"\0"))
    with other.open("rb") as source, path.open("r+b") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())


def by_copy_file_range(path: Path, data: bytes) -> None:
    other = path.with_name("source of the copy")
    other.write_bytes(data)
    with other.open("rb") as source, path.open("r+b") as target:
        os.copy_file_range(source.fileno(), target.fileno(), len(data), 0, 0)


def by_io_uring(path: Path, data: bytes) -> None:
    """One write through a ring of one entry; struct io_uring_params is 120 bytes."""
    params = (ctypes.c_uint32 * 30)()
    ring = _libc.syscall(SYS_IO_URING_SETUP, 1, params)
    assert ring >= 0, os.strerror(ctypes.get_errno())
    sq_off = params[10:20]  # head, tail, mask, entries, flags, dropped, array
    queue = mmap.mmap(ring, sq_off[6] + 4 * params[0], offset=0)
    entries = mmap.mmap(ring, 64, offset=0x10000000)
    buffer = ctypes.create_string_buffer(data)
    fd = os.open(path, os.O_WRONLY)
    entries[:64] = (
        bytes([IORING_OP_WRITE, 0])
        + bytes(2)
        + fd.to_bytes(4, "little")
        + (0).to_bytes(8, "little")
        + ctypes.addressof(buffer).to_bytes(8, "little")
        + len(data).to_bytes(4, "little")
    ).ljust(64, b"\0")
    queue[sq_off[6] : sq_off[6] + 4] = (0).to_bytes(4, "little")
    tail = int.from_bytes(queue[sq_off[1] : sq_off[1] + 4], "little")
    queue[sq_off[1] : sq_off[1] + 4] = (tail + 1).to_bytes(4, "little")
    done = _libc.syscall(SYS_IO_URING_ENTER, ring, 1, 1, GETEVENTS, None, 0)
    assert done == 1, os.strerror(ctypes.get_errno())
    os.close(fd)
    os.close(ring)


def by_fallocate(path: Path, data: bytes) -> None:
    subprocess.run(["fallocate", "-p", "-o", "0", "-l", "4096", path], check=True)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, 8192)
    os.close(fd)


def by_chattr(path: Path, data: bytes) -> None:
    """No content: the change time moves and nobody is told."""
    del data
    subprocess.run(["chattr", "+d", path], check=True)


WAYS = (
    by_mapping,
    by_mapping_after_close,
    by_direct_io,
    by_reflink,
    by_copy_file_range,
    by_io_uring,
    by_fallocate,
    by_chattr,
)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("disk", ["xfs"], indirect=True)
def test_t_f10_every_way_to_change_a_file_is_captured_in_the_end(tmp_path, disk) -> None:
    _, point = disk
    tree = point / "tree"
    tree.mkdir()
    for way in WAYS:
        (tree / way.__name__).write_bytes(os.urandom(SIZE))
    image = tree / "image of a file system"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    checks = {"reconcile": f"{RECONCILE_SECONDS}s", "reread": "0s", "canary": "0s"}
    with Daemon(tmp_path / "streamd", tree, source_options=checks) as daemon:
        daemon.init()
        daemon.start()
        daemon.wait_protected()
        told = {}
        for way in WAYS:
            events = _total(daemon, "streamd_watch_events_total")
            way(tree / way.__name__, f"written {way.__name__}".encode())
            until = time.monotonic() + 1.5
            while not (is_told := _total(daemon, "streamd_watch_events_total") > events):
                if time.monotonic() > until:
                    break
                time.sleep(0.1)
            told[way.__name__] = is_told
        inner = tmp_path / "inner"
        inner.mkdir()
        subprocess.run(["mount", "-o", "loop", image, inner], check=True)
        (inner / "written through the loop device").write_text("x" * 100_000)
        subprocess.run(["umount", inner], check=True)
        print("\ntold by an event:", told)
        scans = _total(daemon, "streamd_rescans_total")
        until = time.monotonic() + 120  # two whole comparisons begun after the last change
        while _total(daemon, "streamd_rescans_total") < scans + 2:
            assert time.monotonic() < until, daemon.log_tail()
            time.sleep(0.2)
        daemon.wait_protected()
        missed = [
            value
            for labels, value in daemon.metrics("streamd_rescan_missed_changes_total")
            if labels.get("reason") == "periodic"
        ]
        print("found by comparing:", missed)
        daemon.stop()
        daemon.restore(tmp_path / "back")
    subprocess.run(["diff", "-r", tree, tmp_path / "back"], check=True)
    assert told["by_direct_io"]
    assert told["by_io_uring"]


def _total(daemon: Daemon, name: str) -> float:
    return sum(value for _, value in daemon.metrics(name))
