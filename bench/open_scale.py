"""How long it takes to open a state at T, and to list one file's versions, in a long journal.

`python -m bench.open_scale 4000 25` writes so many segments of so many versions
each, one every 15 s, with a checkpoint a day and runs; then asks with the runs and without them.
Objects are in memory: what a request costs elsewhere is the count of reads times its latency.
"""

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace
from unit.maintenance.smallhost import SmallHost

from streamd.maintenance.checkpoint_due import checkpoint_due
from streamd.maintenance.runs import keep_runs
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.storage.memory import MemoryBlobStore
from streamd.vault.state_reader import StateReader

STEP_US = 15_000_000


class Counting(MemoryBlobStore):
    def __init__(self, clock, blobs=None) -> None:
        super().__init__(clock)
        self._blobs = blobs or {}
        self.reads = 0

    def without(self, *letters: str) -> "Counting":
        """Return the same objects but for those of these kinds."""
        return Counting(
            self._clock,
            {
                name: blob
                for name, blob in self._blobs.items()
                if name.split("/")[2:3] not in [[letter] for letter in letters]
            },
        )

    async def get(self, name, **how):
        self.reads += 1
        return await super().get(name, **how)


async def asked(vault, work) -> dict[str, float]:
    vault.store.reads = 0
    begin, cpu = time.perf_counter(), time.process_time()
    await work(vault)
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "reads": vault.store.reads,
    }


async def measure(segments: int, versions: int, root: Path) -> dict[str, object]:
    host, rng = SmallHost(root), random.Random(1)
    store = Counting(host.clock)
    host.store = store
    host.catalog.close()
    host.open(store)
    files = {b"f%05d" % n: b"" for n in range(4 * versions)}
    times = []
    for count in range(segments):
        host.clock.us += STEP_US
        for name in rng.sample(sorted(files), versions):
            files[name] = rng.randbytes(20)
        times.append(await host.capture("web", dict(files)))
        if count % 240 == 0:
            await checkpoint_due(host.site, ["web"])
    await keep_runs(host.site, store, force_index=True)
    figures: dict[str, object] = {"segments": segments, "versions": segments * versions}
    hidden = store.without("x", "h")
    bare = hidden.without("c")

    async def open_latest(vault) -> None:
        (await StateReader(vault).state_at("web", times[-1])).close()

    async def open_middle(vault) -> None:
        (await StateReader(vault).state_at("web", times[len(times) * 2 // 3])).close()

    async def history(vault) -> None:
        async for _ in StateReader(vault).changes("web", -1, 1 << 62):
            pass

    async def gaps(vault) -> None:
        await StateReader(vault).gaps("web")

    kinds = (("runs", store), ("no runs", hidden), ("no checkpoints", bare))
    for label, each in kinds:
        vault = replace(host.vault, store=each)
        for name, work in (
            ("open latest", open_latest),
            ("open middle", open_middle),
            ("history", history),
            ("gaps", gaps),
        ):
            figures[f"{name}, {label}"] = await asked(vault, work)
    for level in (Level.LIST, Level.STRUCTURE, Level.SAMPLE):
        figures[f"verify {level}"] = await asked(
            host.vault, lambda vault, level=level: Verifier(vault, level, clock=host.clock).run()
        )
    await host.catalog.aclose()
    return figures


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="open-scale-"))
    try:
        figures = asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2]), root))
    finally:
        shutil.rmtree(root)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
