"""A local copy on a small file system that is filled and emptied again and again.

STREAMD_SPOOL_CYCLES (default 10; 100 for acceptance) sets how often. Nothing that only the copy has may
be lost, what is kept free for the host stays free, and every put ends once there is a way.
"""

import asyncio
import os
import random
import subprocess

import pytest
from patience import Patience
from watch_tools import mounted

from streamd.catalog import objects
from streamd.catalog.db import Catalog
from streamd.catalog.objects import ObjectState
from streamd.effects import SystemClock
from streamd.maintenance.evict import LocalCopy
from streamd.pipeline.spool import Spool
from streamd.policy.spool import Bounds
from streamd.storage.local import LocalBlobStore
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName

CYCLES = int(os.environ.get("STREAMD_SPOOL_CYCLES", "10"))
IMAGE_BYTES = 64 << 20
HEAD = b"STRMD\r\n\x1aP"
MIN_FREE = 0.25


@pytest.fixture
def disk(tmp_path):
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # 2,048 inodes: they can run out before the bytes do
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2048", str(image)]
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path})
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as point:
        yield str(point)


class Quiet:
    """A spool observer that counts."""

    around = 0
    alarms = 0

    def spool_filled(self, *, is_full: bool) -> None:
        self.alarms += is_full

    def spool_bypassed(self, size_bytes: int) -> None:
        self.around += 1


class Outage(MemoryBlobStore):
    """A container that is away now and then."""

    away = False

    async def put(self, name, data) -> None:
        if self.away:
            from streamd.errors import VaultUnreachable

            raise VaultUnreachable("away", endpoint="test")
        await super().put(name, data)


def free_share(path: str) -> float:
    disk = os.statvfs(path)
    return min(disk.f_bavail / disk.f_blocks, disk.f_favail / disk.f_files)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(0)  # by progress
@pytest.mark.parametrize(("size", "count"), [(1 << 20, 60), (512, 1800)], ids=["bytes", "inodes"])
def test_a_small_disk_is_filled_to_its_bound_and_no_further(disk, tmp_path, size, count) -> None:
    with Patience(60) as patience:
        asyncio.run(_fill_and_empty(disk, tmp_path / "state", size, count, patience))


async def _fill_and_empty(disk: str, state, size: int, count: int, patience: Patience) -> None:
    state.mkdir()
    catalog, clock, told = Catalog(str(state)), SystemClock(), Quiet()
    local, remote = LocalBlobStore(f"{disk}/copy", create=True), Outage(clock)
    copy = LocalCopy(catalog, local, disk)
    bounds = Bounds(max_size_bytes=1 << 40, min_free=MIN_FREE)
    spool = Spool(local, remote, copy, lambda: bounds, clock, told)
    rng, written = random.Random(5), {}
    lowest = 1.0
    for cycle in range(CYCLES if size > 4096 else max(CYCLES // 5, 1)):
        remote.away = True
        names = [BlobName(f"d/p/{cycle}-{n}") for n in range(count)]
        stuck = None
        for name in names:
            written[name] = HEAD + rng.randbytes(size - len(HEAD))
            putting = asyncio.ensure_future(spool.put(name, written[name]))
            while not putting.done() and not spool.full_since_us:  # a busy disk is not a full one
                await asyncio.wait({putting}, timeout=0.02)
            lowest = min(lowest, free_share(disk))
            if not putting.done():
                stuck = putting
                break
            await _register(catalog, name, size)
            patience.progress()
        assert stuck is not None, "the disk was never full, or nobody was told"
        assert [name async for name in _lost(local, written, remote)] == [name]
        remote.away = False
        await _upload(catalog, local, remote)
        await asyncio.wait_for(stuck, 20)
        assert not spool.full_since_us
        await _register(catalog, name, size)
        assert [name async for name in _lost(local, written, remote)] == []
        for name in [name for name in written if f"/{cycle}-" not in name]:
            del written[name]  # looked at twice; gigabytes otherwise
            await remote.delete(name)
    assert lowest >= MIN_FREE - 0.02
    assert told.alarms >= 1
    await catalog.aclose()


async def _register(catalog: Catalog, name: str, size: int) -> None:
    await catalog.write(
        objects.add, name=name, kind="P", size=size, now_us=1, state=ObjectState.LOCAL
    )


async def _upload(catalog: Catalog, local: LocalBlobStore, remote: MemoryBlobStore) -> None:
    while rows := await catalog.read(objects.pending_uploads, 100, packs=True):
        for row in rows:
            if BlobName(row.name) not in {info.name async for info in remote.scan(row.name)}:
                await remote.put(BlobName(row.name), await local.get(BlobName(row.name)))
            await catalog.write(objects.mark_uploaded, row.number)


async def _lost(local, written, remote):
    """Yield what is neither in the copy nor in the container, or has other bytes."""
    there = {info.name: local async for info in local.scan("d/p/")}
    there.update({info.name: remote async for info in remote.scan("d/p/")})
    for name, data in written.items():
        store = there.get(name)
        if store is None or await store.get(name) != data:
            yield name
