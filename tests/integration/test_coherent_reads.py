"""Reads beside a writer that never rests, on file systems that can clone and on one that cannot."""

import os
import subprocess
import sys
import time

import pytest
from watch_tools import make_source, new_disk

from streamd.sources.port import Outcome, ReadRequest

pytestmark = [pytest.mark.root, pytest.mark.slow]
SIZE = 24 << 20
READS = int(os.environ.get("STREAMD_COHERENT_READS", "4"))
# Each pass is one write of the whole file: any mix of two bytes is a torn read.
WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
number = 0
while True:
    number = number % 250 + 1
    os.pwrite(fd, bytes([number]) * int(sys.argv[2]), 0)
"""


@pytest.fixture
def disk(request, tmp_path):
    with new_disk(tmp_path, request.param) as point:
        (point / "tree").mkdir()
        yield point


def hammered(path, size):
    path.write_bytes(b"\1" * size)
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size)])


def read(source, directory, name, size):
    """Return the outcome and the set of different bytes in what was read."""
    entry = source.examine(os.fsencode(directory), [name]).entries[name]
    request = ReadRequest(os.fsencode(directory) + b"/" + name, entry)
    if size > 4 << 20:
        large = source.open_large(request)
        values = set()
        while (part := large.next()) is not None:
            values |= set(bytes(part[0][::4096]))
        return large.finish().outcome, values
    batch = source.read([request])
    return batch.results[0].outcome, set(bytes(batch.arena[::512]))


@pytest.mark.parametrize("disk", ["xfs", "btrfs"], indirect=True)
@pytest.mark.parametrize("size", [SIZE, 2 << 20], ids=["large", "small"])
def test_a_clone_is_whole_however_busy_the_writer_is(disk, size):
    source = make_source(disk / "tree")
    with hammered(disk / "tree/f", size) as writer:
        try:
            time.sleep(0.3)
            for _ in range(READS):
                outcome, values = read(source, disk / "tree", b"f", size)
                assert (outcome, len(values)) == (Outcome.OK, 1)
        finally:
            writer.kill()


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_without_clones_a_read_beside_a_writer_is_never_called_good(disk):
    source = make_source(disk / "tree")
    with hammered(disk / "tree/f", SIZE) as writer:
        try:
            time.sleep(0.3)
            for _ in range(READS):
                outcome, _ = read(source, disk / "tree", b"f", SIZE)
                assert outcome is Outcome.FUZZY
        finally:
            writer.kill()
    outcome, values = read(source, disk / "tree", b"f", SIZE)  # the last write was cut short
    assert (outcome, values) == (Outcome.OK, set((disk / "tree/f").read_bytes()[::4096]))
