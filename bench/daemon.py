"""Rows of the running daemon: how late a change is durable, what it costs, and what idling costs.

How late: each version that the journal has of a file that was changed is as late as its segment is
younger than the file: the change time of the segment in the vault's directory, minus the file's
modification time. So nothing is believed that the daemon says about itself.
"""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, Place
from bench.peers import Streamd
from bench.running import Daemon, running
from bench.trees import Changing, many_files

RATE = 1000
SMALL_TREE, LARGE_TREE = 10_000, 1_000_000
CHANGED_FILES = 10_000  # so that each file rests for ten seconds between two changes
LINGER_SECONDS = 1.0  # pipeline.packer: what an open pack waits; a part of the goal
_SETTLE_SECONDS = 20.0  # after a scan and after the load
_SCAN_SECONDS = 1500.0
# what the daemon does once a day would fall into the minute that is measured
_NO_PROOFS = """[verify]
list = "0s"
structure = "0s"
sample = "0s"
[retention]
interval = "24h"
"""


def delays(place: Place) -> Iterator[Figure]:
    """1,000 small changes a second in a tree of 10^4 files: from change to durable."""
    seconds = 20.0 if place.quick else 60.0
    tree = many_files(place.data, SMALL_TREE)
    with _protecting(place, tree) as daemon:
        load = Changing(tree, files=CHANGED_FILES, rate=RATE)
        before = daemon.cpu_seconds
        load.for_seconds(seconds)
        _until_all_is_durable(daemon)
        cpu = daemon.cpu_seconds - before
        peak = daemon.peak_mib
    found = asyncio.run(_delays_of(daemon.tool, load.began_ns, load.ended_ns))
    yield Figure("daemon", "changes a second, offered", load.count / seconds, "")
    lost = max(load.count - len(found), 0)
    yield Figure("daemon", "changes without a version of their own", lost / load.count * 100, "%")
    for percent, goal in ((50, 1 + LINGER_SECONDS), (99, 5.0)):
        at = found[min(len(found) * percent // 100, len(found) - 1)]
        yield Figure("daemon", f"change → durable in the vault, p{percent}", at, "s", goal)
    yield Figure("daemon", "CPU per change", cpu / load.count * 1e6, "µs")
    yield Figure("daemon", "peak RSS", peak, "MiB", 300)


def tree_size(place: Place) -> Iterator[Figure]:
    """The same changes in a tree of 10^4 and of 10^6 files; then an idle daemon over 10^6."""
    seconds, costs = 30.0, []
    for count in (SMALL_TREE, LARGE_TREE):
        tree = many_files(place.data, count)
        began = time.monotonic()
        with _protecting(place, tree) as daemon:
            if count == LARGE_TREE:
                yield Figure("10⁶ files", "protected after", time.monotonic() - began, "s")
                yield from _idle(daemon, 60.0)
            costs.append(_cost_per_change(daemon, tree, seconds))
        yield Figure("10⁶ files", f"CPU per change, {count:,} files", costs[-1], "µs")
    yield Figure("10⁶ files", "the same, as a share of that with 10⁴", costs[1] / costs[0], "", 1.2)


def idle(place: Place) -> Iterator[Figure]:
    """A daemon that watches a tree in which nothing happens."""
    count = SMALL_TREE if place.quick else LARGE_TREE
    with _protecting(place, many_files(place.data, count)) as daemon:
        yield from _idle(daemon, 20.0 if place.quick else 60.0, f"idle, {count:,} files")


def _idle(daemon: Daemon, seconds: float, row: str = "10⁶ files") -> Iterator[Figure]:
    before, began = daemon.cpu_seconds, time.monotonic()
    time.sleep(seconds)
    share = (daemon.cpu_seconds - before) / (time.monotonic() - began)
    yield Figure(row, "idle: share of one core", share * 100, "%", 0.5)
    yield Figure(row, "idle: RSS", daemon.rss_mib, "MiB", 200)


def _cost_per_change(daemon: Daemon, tree: Path, seconds: float) -> float:
    """Return the processor time of a change in µs, until all of them are durable."""
    before = daemon.cpu_seconds
    load = Changing(tree, files=CHANGED_FILES, rate=RATE)
    load.for_seconds(seconds)
    _until_all_is_durable(daemon)
    return (daemon.cpu_seconds - before) / load.count * 1e6


@contextmanager
def _protecting(place: Place, tree: Path) -> Iterator[Daemon]:
    tool = Streamd(place.folder / "streamd")
    shutil.rmtree(tool.folder, ignore_errors=True)
    tool.folder.mkdir(parents=True)
    tool.configure(tree, more=_NO_PROOFS)
    with running(tool) as daemon:
        daemon.wait_for("protected, lag", _SCAN_SECONDS)
        time.sleep(_SETTLE_SECONDS if not place.quick else 5.0)
        yield daemon


def _until_all_is_durable(daemon: Daemon) -> None:
    """Return when the daemon has nothing left to do, and has had a moment for what follows it."""
    end = time.monotonic() + _SETTLE_SECONDS * 3
    time.sleep(2.0)
    while "vault 0 s" not in daemon.status() and time.monotonic() < end:
        time.sleep(1.0)


async def _delays_of(tool: Streamd, since_ns: int, until_ns: int) -> list[float]:
    """Return the delay in seconds of each version of a file changed in that time, sorted."""
    import msgspec

    from streamd.config.load import load
    from streamd.daemon.compose import open_vault_for_reading
    from streamd.model.entry import EntryType, FileVersion
    from streamd.model.record import Op, parse_version_key
    from streamd.vault.state_reader import StateReader

    decode, found = msgspec.msgpack.Decoder(FileVersion).decode, []
    async with open_vault_for_reading(load(tool.config)) as vault:
        for journal in StateReader(vault).journals():
            async for head, records in journal.records():
                durable_ns = (tool.repository / head.name).stat().st_ctime_ns
                for record in records:
                    if record.op != Op.SET or parse_version_key(record.key) is None:
                        continue
                    version = decode(record.value)
                    is_ours = version.type == EntryType.REGULAR
                    if is_ours and since_ns <= version.mtime_ns <= until_ns:
                        found.append((durable_ns - version.mtime_ns) / 1e9)
    return sorted(found)
