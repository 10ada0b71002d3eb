"""Index figures: bytes per chunk on disk and in memory, look-ups, and a rebuild of the catalog.

`python -m bench.index_scale 1000000` builds the catalog's chunk table with that many chunks in
objects of 128, an index generation of it in a directory vault, and makes the catalog again from it. The
table is filled by another process (`python -m bench.index_scale fill DIR 1000000`), in transactions of 2^19
chunks, so that what that takes of memory is not counted and that it does not take the longest.
"""

import asyncio
import json
import os
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace
from unit.maintenance.smallhost import SmallHost

from streamd.catalog import objects
from streamd.catalog.db import FILE_NAME, INDEX_CACHE_KIB, Catalog
from streamd.catalog.objects import ObjectState
from streamd.catalog.rows import insert_rows
from streamd.format import layout
from streamd.maintenance.index_writing import write_index
from streamd.maintenance.rebuild import rebuild
from streamd.storage.local import LocalBlobStore
from streamd.storage.port import BlobInfo
from streamd.vault.index_reader import newest_index

PER_OBJECT = 128
LOOK_UPS = 50_000
BATCH = 256  # look-ups at a time, as a sealing thread asks
OBJECTS_AT_ONCE = 4096


class Listing(LocalBlobStore):
    """A directory that also lists packs that only the catalog knows: their content is not read."""

    packs: list[BlobInfo] = []  # noqa: RUF012 - one run, one list

    async def scan(self, prefix: str):
        for info in self.packs:
            if info.name.startswith(prefix):
                yield info
        async for info in super().scan(prefix):
            yield info


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def size_of(path: str | Path) -> int:
    return os.path.getsize(path)


def names_of(domain: bytes, count: int) -> list[str]:
    """Return the names of so many chunks' packs: the same in both processes."""
    rng = random.Random(2)
    return [layout.pack_name(domain, rng.randbytes(32)) for _ in range(-(-count // PER_OBJECT))]


def fill(directory: str, domain: bytes, count: int) -> None:
    """Add so many chunks to the catalog in a directory."""
    catalog, rng = Catalog(directory), random.Random(3)
    names = names_of(domain, count)

    def add(connection: sqlite3.Connection, start: int) -> None:
        held: list[tuple[bytes, int]] = []
        for at, name in enumerate(names[start : start + OBJECTS_AT_ONCE], start):
            number = objects.add(
                connection, name=name, kind="P", size=1 << 24, now_us=5, state=ObjectState.VAULT
            )
            size = min(PER_OBJECT, count - at * PER_OBJECT)
            held += [(rng.randbytes(32), number) for _ in range(size)]
        insert_rows(connection, "INSERT OR IGNORE INTO chunk", sorted(held))

    for start in range(0, len(names), OBJECTS_AT_ONCE):
        catalog.write_now(add, start)
    catalog.close()


def some_chunks(connection: sqlite3.Connection, rng: random.Random) -> list[bytes]:
    """Return ids that are there, from all over the table."""
    query = "SELECT id FROM chunk WHERE id >= ? LIMIT 1"
    rows = (connection.execute(query, (rng.randbytes(32),)).fetchone() for _ in range(LOOK_UPS))
    return [row[0] for row in rows if row is not None]


async def measure(count: int, root: Path) -> dict[str, float]:
    rng, figures = random.Random(1), {"chunks": count}
    (root / "state").mkdir()
    store = Listing(str(root / "vault"), create=True)
    host = SmallHost(root / "state", store=store)
    await host.capture("web", {b"a": b"one"})
    host.catalog.close()
    domain, began = host.vault.keys.domain, time.perf_counter()
    command = [sys.executable, "-m", "bench.index_scale", "fill", str(root / "state")]
    filling = await asyncio.create_subprocess_exec(*command, domain.hex(), str(count))
    assert await filling.wait() == 0
    host.open()
    infos = [BlobInfo(name, 1 << 24, 5) for name in names_of(domain, count)]
    store.packs = sorted(infos, key=lambda info: info.name)
    figures["fill_seconds"] = time.perf_counter() - began
    figures["catalog_bytes_per_chunk"] = size_of(host.catalog.path) / count
    with host.catalog.reader() as connection:
        there = some_chunks(connection, rng)
    for label, ids in (
        ("hit", there),
        ("miss", [rng.randbytes(32) for _ in range(LOOK_UPS)]),
    ):
        connection = host.catalog.open_reader(cache_kib=INDEX_CACHE_KIB)
        begin = time.process_time()
        for at in range(0, len(ids), BATCH):
            objects.find_chunks(connection, ids[at : at + BATCH])
        figures[f"{label}_us_per_chunk"] = (time.process_time() - begin) / len(ids) * 1e6
        connection.close()
    begin = time.process_time()
    await write_index(host.site, store)
    figures["write_index_cpu_seconds"] = time.process_time() - begin
    size = sum(
        info.size_bytes
        for info in [i async for i in store.scan(layout.index_prefix(host.vault.keys.domain))]
    )
    figures["index_bytes_per_chunk"] = size / count
    before = rss_bytes()
    begin = time.perf_counter()
    index = await newest_index(host.vault, [])
    await index.find([rng.randbytes(32) for _ in range(1000)])
    figures["index_open_seconds"] = time.perf_counter() - begin
    figures["index_rss_mib"] = (rss_bytes() - before) / (1 << 20)
    del index
    await host.catalog.aclose()
    (root / "again").mkdir()
    begin, cpu = time.perf_counter(), time.process_time()
    report = await rebuild(replace(host.vault), str(root / "again"), clock=host.clock)
    figures["rebuild_seconds"] = time.perf_counter() - begin
    figures["rebuild_cpu_seconds"] = time.process_time() - cpu
    assert report.chunks >= count, report
    figures["rebuilt_bytes_per_chunk"] = size_of(root / "again" / FILE_NAME) / count
    figures["max_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def main() -> None:
    if sys.argv[1] == "fill":
        fill(sys.argv[2], bytes.fromhex(sys.argv[3]), int(sys.argv[4]))
        return
    root = Path(tempfile.mkdtemp(prefix="index-scale-"))
    try:
        figures = asyncio.run(measure(int(sys.argv[1]), root))
    finally:
        shutil.rmtree(root)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
