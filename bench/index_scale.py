"""Index figures: bytes per chunk on disk and in memory, look-ups, and a rebuild of the catalog.

`python -m bench.index_scale 1000000` builds the catalog's chunk table with that many chunks in
objects of 128, an index generation of it in a directory vault, and makes the catalog again from it.
"""

import asyncio
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from unit.maintenance.smallhost import SmallHost

from streamd.catalog import objects
from streamd.catalog.db import FILE_NAME
from streamd.catalog.objects import ObjectState
from streamd.format import layout
from streamd.maintenance.index_writing import write_index
from streamd.maintenance.rebuild import rebuild
from streamd.storage.local import LocalBlobStore
from streamd.storage.port import BlobInfo
from streamd.vault.index_reader import newest_index

PER_OBJECT = 128
LOOK_UPS = 50_000


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


async def measure(count: int, root: Path) -> dict[str, float]:
    rng, figures = random.Random(1), {"chunks": count}
    (root / "state").mkdir()
    store = Listing(str(root / "vault"), create=True)
    host = SmallHost(root / "state", store=store)
    await host.capture("web", {b"a": b"one"})
    started = time.perf_counter()
    infos = []
    for start in range(0, count, PER_OBJECT * 100):
        names = [layout.pack_name(host.vault.keys.domain, rng.randbytes(32)) for _ in range(100)]

        def add(connection, names=names, start=start):
            for at, name in enumerate(names):
                number = objects.add(
                    connection, name=name, kind="P", size=1 << 24, now_us=5, state=ObjectState.VAULT
                )
                size = max(min(PER_OBJECT, count - start - at * PER_OBJECT), 0)
                objects.add_chunks(connection, number, [rng.randbytes(32) for _ in range(size)])

        await host.catalog.write(add)
        infos += [BlobInfo(name, 1 << 24, 5) for name in names]
    store.packs = sorted(infos, key=lambda info: info.name)
    figures["fill_seconds"] = time.perf_counter() - started
    figures["catalog_bytes_per_chunk"] = size_of(host.catalog.path) / count
    with host.catalog.reader() as connection:
        rows = connection.execute("SELECT id FROM chunk LIMIT ?", (LOOK_UPS,)).fetchall()
        for label, ids in (
            ("hit", [row[0] for row in rng.sample(rows, len(rows))]),
            ("miss", [rng.randbytes(32) for _ in range(LOOK_UPS)]),
        ):
            begin = time.process_time()
            for at in range(0, len(ids), 256):
                objects.find_chunks(connection, ids[at : at + 256])
            figures[f"{label}_us_per_chunk"] = (time.process_time() - begin) / len(ids) * 1e6
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
    root = Path(tempfile.mkdtemp(prefix="index-scale-"))
    try:
        figures = asyncio.run(measure(int(sys.argv[1]), root))
    finally:
        shutil.rmtree(root)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
