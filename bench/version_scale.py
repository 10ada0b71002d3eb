"""A vault with ever more versions in its journal, and what it takes to open it.

`python -m bench.version_scale DIR 10000 100000 1000000` writes it as a host does on which 250 of 4,000
files change every five minutes: commits of 250 changes each, sealed, recorded in the catalog and put into
a directory by the code that the daemon runs, with a checkpoint and the runs of every day. At each of
these sizes it prints a line of JSON: how large it all is, and what it takes to open a state, in a process
of its own (`python -m bench.version_scale ask DIR latest`), whose peak memory is so what opening takes.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from unit.maintenance.smallhost import ROOT, SmallHost
from vaultbuilder import documents_of, version_of

from bench.index_scale import size_of
from streamd.catalog.lookup import TreeLookup
from streamd.catalog.tree import Intent, load_source
from streamd.format import crypto, layout
from streamd.format.codec import Codec
from streamd.format.keys import KeyChain, Role, decode_host_key, encode_host_key
from streamd.maintenance.checkpoint_due import checkpoint_due
from streamd.maintenance.runs import keep_runs
from streamd.model.entry import ContentRun, EntryType
from streamd.model.host import HostStat
from streamd.model.ids import WriterId
from streamd.pipeline.commit import Entry
from streamd.pipeline.findings import Ready
from streamd.storage.local import LocalBlobStore
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import Vault

SOURCE: Final = "web"
FILES: Final = 4_000
EACH: Final = 250  # versions in a commit
STEP_US: Final = 300_000_000
DAY: Final = 288  # commits
CONTENT_BYTES: Final = 48
QUESTIONS: Final = ("latest", "middle", "history", "gaps")
_FACTS: Final = "facts.json"


class Counting(LocalBlobStore):
    """A directory that counts how often something is read of it."""

    reads = 0

    async def get(self, name, **how):
        self.reads += 1
        return await super().get(name, **how)


class Changes:
    """What a live capture hands to the commit when files that it knows have changed."""

    def __init__(self, host: SmallHost) -> None:
        self._host, self._rng = host, random.Random(1)
        self._chunk_id = host.vault.keys.domain_keys.chunk_id
        state = host.catalog.write_now(load_source, SOURCE, host.identity(SOURCE).id)
        with host.catalog.reader() as connection:
            lookup = TreeLookup(connection, state.number)
            self._parent = lookup.directory(-state.number, ROOT)[0]
            known = lookup.children(self._parent)
        self._files = sorted((name, row.fid) for name, row in known.items())

    def next(self, count: int) -> Entry:
        """Return the change of so many files, with their content sealed."""
        ready, sealer = Ready(), self._host.writer.sealer(Role.DATA)
        bodies = [self._rng.randbytes(CONTENT_BYTES) for _ in range(count)]
        ids = [self._chunk_id(body) for body in bodies]
        sealer.seal(b"".join(bodies), b"".join(ids), [CONTENT_BYTES] * count, codec=Codec.RAW)
        ready.inline_data.append(sealer.finish())
        chosen = self._rng.sample(self._files, count)
        now_ns = self._host.clock.us * 1000
        ready.intents = [
            self._intent(name, fid, chunk, now_ns)
            for (name, fid), chunk in zip(chosen, ids, strict=True)
        ]
        return Entry(self._host.identity(SOURCE), ready)

    def _intent(self, name: bytes, fid: int, chunk: bytes, now_ns: int) -> Intent:
        version = version_of(
            EntryType.REGULAR,
            size=CONTENT_BYTES,
            mtime_ns=now_ns,
            content=(ContentRun(chunk, CONTENT_BYTES),),
        )
        stat = HostStat(
            version.type, version.mode, 0, 0, CONTENT_BYTES, now_ns, 0, 1, fid, 1, now_ns
        )
        encoded = msgspec.msgpack.encode(version)
        return Intent(self._parent, name, fid, stat, encoded, again=False, is_fresh=False)


class Host:
    """The host whose vault grows. Its key file and what is asked for lie beside the vault."""

    def __init__(self, root: Path) -> None:
        self.root, self._times, self._done = root, [], 0
        (root / "state").mkdir(parents=True)
        self._store = LocalBlobStore(str(root / "vault"), create=True)
        self._host = SmallHost(root / "state", store=self._store)
        (root / "key").write_bytes(encode_host_key(self._host.key))
        self._changes: Changes | None = None

    async def grow(self, versions: int) -> dict[str, object]:
        """Go on until there are so many versions; return what it all came to."""
        began, cpu, before = time.perf_counter(), time.process_time(), self._done
        if self._changes is None:
            content = random.Random(2).randbytes
            tree = {b"f%05d" % n: content(CONTENT_BYTES) for n in range(FILES)}
            self._times.append(await self._host.capture(SOURCE, tree))
            self._changes, self._done = Changes(self._host), FILES
        while self._done < versions:
            self._host.clock.us += STEP_US
            count = min(EACH, versions - self._done)
            self._times.append(await self._host.commit(self._changes.next(count)))
            self._done += count
            if len(self._times) % DAY == 0:
                await checkpoint_due(self._host.site, [SOURCE])
                await keep_runs(self._host.site, self._store)
        await keep_runs(self._host.site, self._store, force_index=True)
        seconds = time.perf_counter() - began
        cpu_seconds = time.process_time() - cpu
        times = self._times
        points = {"latest": times[-1], "middle": times[len(times) * 2 // 3]}
        (self.root / _FACTS).write_text(json.dumps({"versions": self._done, **points}))
        return {
            "versions": self._done,
            "segments": len(times),
            "catalog_bytes": size_of(self._host.catalog.path),
            **await self._sizes(),
            "build_seconds": seconds,
            "build_us_per_version": cpu_seconds / (self._done - before) * 1e6,
        }

    async def _sizes(self) -> dict[str, int]:
        """Return the bytes of the vault's objects, and how many are the newest index."""
        whole, index = 0, {0: 0}
        async for info in self._store.scan("d/"):
            whole += info.size_bytes
            if (name := layout.parse_index_name(info.name)) is not None:
                index[name.generation] = index.get(name.generation, 0) + info.size_bytes
        return {"vault_bytes": whole, "index_bytes": index[max(index)]}


async def ask(root: Path, what: str) -> dict[str, float]:
    """Open the vault, answer one question; return what that took in this process."""
    facts = json.loads((root / _FACTS).read_text())
    path = root / "key"
    key = decode_host_key(path.read_bytes(), str(path))
    store = Counting(str(root / "vault"))
    verify = {WriterId(key.writer): crypto.verify_key_of(key.signing_key)}
    before, began, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    vault = Vault(store, KeyChain(key), documents_of(key)[0], verify)
    reader, count = StateReader(vault), 0
    if what in {"latest", "middle"}:
        with await reader.state_at(SOURCE, facts[what]) as state:
            assert not state.damage, state.damage
            count = sum(1 for _ in state.walk())
        assert count > FILES, count
    elif what == "history":
        async for _ in reader.changes(SOURCE, -1, 1 << 62):
            count += 1
        assert count >= facts["versions"], count
    else:
        assert what == "gaps", what
        count = len(await reader.gaps(SOURCE))
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "reads": store.reads,
        "found": count,
        "grown_mib": _peak_mib() - before,
    }


def _peak_mib() -> float:
    """Return the largest resident size of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not say how much memory this process takes")


def _asked(root: Path) -> dict[str, dict[str, float]]:
    """Let a new process answer each question."""
    found = {}
    for what in QUESTIONS:
        command = [sys.executable, "-m", "bench.version_scale", "ask", str(root), what]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        found[what] = json.loads(done.stdout)
    return found


async def _grow(root: Path, sizes: list[int]) -> None:
    host = Host(root)
    for size in sizes:
        facts = await host.grow(size)
        print(json.dumps({**facts, **_asked(root)}), flush=True)


def main() -> None:
    if sys.argv[1] == "ask":
        print(json.dumps(asyncio.run(ask(Path(sys.argv[2]), sys.argv[3]))))
    else:
        asyncio.run(_grow(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]]))


if __name__ == "__main__":
    main()
