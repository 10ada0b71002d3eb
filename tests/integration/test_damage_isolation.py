"""One damaged object of any kind never takes with it what does not depend on it.

Each object of a vault with a history in its turn is flipped, cut, replaced by junk or taken away;
then everything is restored, as now and as at every instant, and what came back is compared.
"""

import random
from typing import Any

import pytest
from msgspec.structs import replace
from unit.maintenance import smallhost
from unit.maintenance.smallhost import HOUR_US, SmallHost

from streamd.errors import NotFound, StreamdError, VaultDamaged
from streamd.format import layout
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.maintenance.runs import keep_runs
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.model.entry import EntryType
from streamd.storage.memory import MemoryBlobStore
from streamd.vault import chunk_reader
from streamd.vault.state_reader import StateReader

PARSERS = {
    "pack": layout.parse_pack_name,
    "segment": layout.parse_segment_name,
    "checkpoint": layout.parse_checkpoint_name,
    "epoch": layout.parse_epoch_name,
    "index": layout.parse_index_name,
    "history": layout.parse_history_name,
}
HOWS = ("flip", "cut", "junk", "gone")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(chunk_reader, "INDEX_PAYS", 1)
    host = SmallHost(tmp_path)
    yield host
    host.catalog.close()


async def history(host: SmallHost) -> dict[int, dict[bytes, bytes]]:
    """Six hours with files that come, change and go, two epochs, checkpoints and runs."""
    rng, truth = random.Random(2), {}
    files = {b"large": rng.randbytes(5_000), b"long": rng.randbytes(70_000), b"still": b"x" * 400}
    for hour in range(6):
        host.clock.us += HOUR_US
        files[b"f%d" % hour] = rng.randbytes(rng.choice([40, 3_500]))
        files[b"large"] = rng.randbytes(5_000)
        truth[await host.capture("web", files)] = dict(files)
        if hour in (1, 3):
            await checkpoint_current(host.site, "web")
        if hour == 3:
            await host.finish_epoch()
    await keep_runs(host.site, host.store)
    return truth


def kind_of(name: str) -> str:
    return next((kind for kind, parse in PARSERS.items() if parse(name)), "")


def harm(blobs: dict[str, Any], name: str, how: str) -> None:
    blob, at_us = blobs.pop(name)
    if how == "gone":
        return
    middle = len(blob) // 2
    changed = {
        "flip": blob[:middle] + bytes((blob[middle] ^ 4,)) + blob[middle + 1 :],
        "cut": blob[: middle | 1],
        "junk": random.Random(1).randbytes(len(blob)),
    }
    blobs[name] = (changed[how], at_us)


async def restored(vault, at_us: int) -> tuple[dict[bytes, bytes], int, set[bytes], bool]:
    """Return the files that come back, the instant that they are of, and those that do not."""
    reader = StateReader(vault)
    found, lost = {}, set()
    with await reader.state_at("web", at_us) as state:
        for entry in state.walk():
            if entry.version is None or entry.dirent.type != EntryType.REGULAR:
                continue
            name = entry.path.removeprefix(smallhost.ROOT + b"/")
            try:
                parts = [bytes(part) async for part in reader.chunks.content(entry.version)]
                found[name] = b"".join(parts)
            except VaultDamaged:
                lost.add(name)
        return found, state.at_us, lost, bool(state.damage) or not state.is_exact


@pytest.mark.asyncio
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", PARSERS)
async def test_what_does_not_depend_on_it_comes_back(host, kind, how) -> None:
    truth = await history(host)
    original = dict(host.store._blobs)
    times = sorted(truth)
    victims = [name for name in sorted(original) if kind_of(name) == kind]
    assert victims
    returned = 0
    for victim in victims[:6]:
        store = MemoryBlobStore(host.clock)
        store._blobs = dict(original)
        harm(store._blobs, victim, how)
        vault = replace(host.vault, store=store)
        for at_us in times:
            try:
                files, of_us, lost, is_told = await restored(vault, at_us)
            except (VaultDamaged, NotFound):  # nothing of that instant is left, and it says so
                assert kind in ("segment", "epoch"), victim
                continue
            expected = truth[max(t for t in times if t <= of_us)]
            assert files == {n: body for n, body in expected.items() if n not in lost}, victim
            assert of_us == at_us or is_told  # never older than asked without a word
            assert not lost or kind in ("pack", "segment")
            assert len(lost) < len(expected) or kind == "pack"
            returned += 1
        await judge(vault, kind, how, victim)
    assert returned >= len(times)


async def judge(vault, kind: str, how: str, victim: str) -> None:
    """A verification names it, whatever it is."""
    report = await Verifier(vault, Level.FULL, clock=vault_clock()).run()
    is_named = any(damage.name == victim for damage in report.damage)
    # without the index itself nothing remembers that it was there, and it is written again
    assert is_named or (kind == "index" and how == "gone"), (victim, how, report.damage)


def vault_clock():
    return smallhost.ManualClock()


@pytest.mark.asyncio
async def test_objects_that_were_added_hinder_nobody(host) -> None:
    truth = await history(host)
    junk = random.Random(4)
    domain, writer = host.vault.keys.domain, host.vault.keys.writer
    source = host.identity("web").id
    last = max(
        parsed
        for name in host.store._blobs
        if (parsed := layout.parse_segment_name(name)) is not None
    )
    beyond = layout.JournalPosition(last.epoch, last.seq + 7)
    span = layout.HistorySpan(source, 1, smallhost.ManualClock().us, 1 << 50)
    names = [
        layout.pack_name(domain, junk.randbytes(32)),
        layout.segment_name(domain, writer, beyond),
        layout.epoch_name(domain, writer, 77),
        layout.checkpoint_name(domain, source, max(truth) + 5_000, bytes(8)),
        layout.checkpoint_name(domain, source, min(truth) + 5_000, bytes(8)),
        layout.history_name(domain, span, bytes(8)),
        layout.index_manifest_name(domain, 9_999),
        layout.index_shard_name(domain, 1, 0, bytes(8)),
        layout.final_name(domain, 4_000),
        layout.domain_prefix(domain) + "nonsense/of/any/kind",
    ]
    for name in names:
        host.store._blobs[name] = (junk.randbytes(4096), host.clock.us)
        for at_us in sorted(truth):
            files, of_us, lost, _ = await restored(host.vault, at_us)
            assert (files, lost) == (truth[at_us], set()), name
            assert of_us == at_us
        report = await Verifier(host.vault, Level.STRUCTURE, clock=host.clock).run()
        assert not report.missing_count
        del host.store._blobs[name]


@pytest.mark.asyncio
async def test_whatever_is_thrown_at_it_a_reader_fails_in_one_way_only(host) -> None:
    """Several objects at once, chosen at random: the right content, or a StreamdError."""
    truth = await history(host)
    original, rng = dict(host.store._blobs), random.Random(8)
    for _ in range(40):
        store = MemoryBlobStore(host.clock)
        store._blobs = dict(original)
        for name in rng.sample(sorted(original), rng.randrange(1, 6)):
            harm(store._blobs, name, rng.choice(HOWS))
        vault = replace(host.vault, store=store)
        at_us = rng.choice(sorted(truth))
        try:
            files, of_us, lost, _ = await restored(vault, at_us)
        except StreamdError:
            continue
        expected = truth[max(t for t in truth if t <= of_us)]
        assert files == {name: body for name, body in expected.items() if name not in lost}
