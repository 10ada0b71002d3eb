"""What is damaged and still is somewhere else is stored anew; what is nowhere is said so."""

import os
import random

import msgspec
import pytest
from msgspec.structs import replace
from unit.maintenance import smallhost
from unit.maintenance.smallhost import DAY_US, HOUR_US, SmallHost

from streamd.catalog import objects
from streamd.format import layout, pack
from streamd.format.chunker import Cutter
from streamd.maintenance import expire, heal
from streamd.maintenance.checkpointing import checkpoint_current
from streamd.maintenance.heal import Healer
from streamd.maintenance.runs import keep_runs
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.policy.retention import Rule
from streamd.storage.memory import MemoryBlobStore

LATEST_US = 1 << 62


@pytest.fixture
def host(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.setattr(smallhost, "ROOT", os.fsencode(tree))
    (tmp_path / "state").mkdir()
    host = SmallHost(tmp_path / "state")
    host.tree = tree
    yield host
    host.catalog.close()


async def captured(host: SmallHost) -> dict[bytes, bytes]:
    """Files on disk and in the vault, some of them long; a checkpoint; and a past that is gone."""
    rng = random.Random(11)
    await host.capture("web", {b"past": rng.randbytes(5000)})
    host.clock.us += HOUR_US
    files = {b"small": rng.randbytes(700), b"large": rng.randbytes(9_000)}
    files[b"long"] = rng.randbytes(120_000)  # a chunk list with pages
    for name, content in files.items():
        (host.tree / os.fsdecode(name)).write_bytes(content)
    await host.capture("web", files)
    await checkpoint_current(host.site, "web")
    host.clock.us += HOUR_US
    return files


def packs(host: SmallHost) -> list[str]:
    return [name for name in host.store._blobs if layout.parse_pack_name(name)]


def spoil(store: MemoryBlobStore, name: str, how: str) -> None:
    """Damage an object so that its index can still be read, or not, or take it away."""
    blob, at_us = store._blobs[name]
    if how == "gone":
        del store._blobs[name]
    else:
        spots = range(pack.index_end(blob), len(blob)) if how == "frames" else range(60, 100)
        changed = bytearray(blob)
        for at in spots:
            changed[at] ^= 0x55
        store._blobs[name] = (bytes(changed), at_us)


async def verified(host: SmallHost, level: Level = Level.FULL, store=None):
    vault = host.vault if store is None else replace(host.vault, store=store)
    return await Verifier(vault, level, clock=host.clock).run()


async def healed(host: SmallHost, copies=()):
    """Verify and heal, as `streamd verify --heal` does."""

    async def look():
        with host.catalog.reader() as connection:
            bad = heal.read_bad_frames(connection)
        return await Verifier(host.vault, Level.FULL, clock=host.clock, bad=bad).run()

    with pytest.MonkeyPatch.context() as patch:
        # the chunks of this small host are cut at a thousand bytes, not by content
        patch.setattr(heal, "Cutter", FixedCutter)
        return await heal.heal_all(
            lambda: Healer(host.site, host.store, copies), await look(), look, arrived
        )


async def arrived(_: object) -> bool:
    return True


class FixedCutter(Cutter):
    """Cuts as the small host does."""

    def cut(self, buffer, *, final):
        sizes = [smallhost.CHUNK] * (len(buffer) // smallhost.CHUNK)
        rest = len(buffer) % smallhost.CHUNK
        return sizes + ([rest] if final and rest else [])


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["frames", "index", "gone"])
async def test_what_the_live_files_still_hold_is_healed(host, how) -> None:
    files = await captured(host)
    for name in packs(host):
        spoil(host.store, name, how)
    found = await verified(host)
    assert found.missing_count > 10
    assert {each.path.rpartition(b"/")[2] for each in found.affected} >= {b"past", b"long"}
    before = set(host.store._blobs)
    report = await healed(host)
    assert report.healed_count > 100
    assert report.lost_count == 5  # the file of the past
    assert report.damage
    assert before <= set(host.store._blobs)  # nothing is touched: packs are added
    assert await host.files_at("web", LATEST_US) == files
    again = await verified(host)
    assert again.missing_count == report.lost_count
    assert {each.path.rpartition(b"/")[2] for each in again.affected} == {b"past"}


@pytest.mark.asyncio
async def test_what_is_lost_is_stored_again_when_it_is_met_again(host) -> None:
    await captured(host)
    with host.catalog.reader() as connection:
        known = connection.execute("SELECT count(*) FROM chunk").fetchone()[0]
    past = random.Random(11).randbytes(5000)
    for name in packs(host):
        spoil(host.store, name, "gone")
    for path in host.tree.iterdir():
        path.unlink()
    assert (await healed(host)).lost_count > 10
    with host.catalog.reader() as connection:
        assert connection.execute("SELECT count(*) FROM chunk").fetchone()[0] < known
    at_us = await host.capture("web", {b"past": past})
    assert await host.files_at("web", at_us) == {b"past": past}


@pytest.mark.asyncio
async def test_what_the_local_copy_still_holds_is_healed(host) -> None:
    """The vault of record lost packs and a segment; the copy on this host has them all."""
    files = await captured(host)
    await keep_runs(host.site, host.store)
    local = MemoryBlobStore(host.clock)
    local._blobs = dict(host.store._blobs)
    for path in host.tree.iterdir():
        path.unlink()
    for name in packs(host):
        spoil(host.store, name, "frames")
    segment = next(name for name in host.store._blobs if layout.parse_segment_name(name))
    spoil(host.store, segment, "gone")
    assert (await healed(host, [local])).lost_count == 0
    with host.catalog.reader() as connection:
        again = [row.name for row in objects.pending_uploads(connection, 99, packs=False)]
    assert again == [segment]  # the uploader sends it once more
    await host.store.put(segment, await local.get(segment))
    assert (await healed(host, [local])).lost_count == 0  # and what only that segment needs
    assert (await verified(host)).missing_count == 0
    assert await host.files_at("web", LATEST_US) == files


@pytest.mark.asyncio
async def test_a_file_that_has_changed_or_is_none_heals_nothing(host) -> None:
    await captured(host)
    (host.tree / "small").unlink()
    os.mkfifo(host.tree / "small")
    (host.tree / "large").write_bytes(b"other content")
    (host.tree / "long").unlink()
    (host.tree / "long").symlink_to("large")
    for name in packs(host):
        spoil(host.store, name, "gone")
    report = await verified(host, Level.STRUCTURE)
    await Healer(host.site, host.store).run(report)
    assert report.lost_count > 10
    assert report.lost_count + report.healed_count == report.missing_count


@pytest.mark.asyncio
async def test_collection_keeps_the_healed_and_drops_the_damaged(host) -> None:
    files = await captured(host)
    for name in packs(host):
        spoil(host.store, name, "frames")
    damaged = set(packs(host))
    await healed(host)
    for _ in range(3):
        host.clock.us += 5 * DAY_US
        await host.capture("web", {**files, b"day": b"%d" % host.clock.us})
    files[b"day"] = b"%d" % host.clock.us
    outcome = await expire.run(host.site, {}, default=Rule(continuous_us=DAY_US))
    assert outcome.deleted_objects > 0
    assert await host.files_at("web", LATEST_US) == files
    assert not damaged & set(packs(host))
    assert (await verified(host)).is_sound


@pytest.mark.asyncio
async def test_the_index_shows_what_is_missing_cut_off_or_replaced_by_a_listing_alone(host) -> None:
    await captured(host)
    await keep_runs(host.site, host.store)
    assert (await verified(host, Level.LIST)).is_sound
    victims = {}
    for kind, parse in (
        ("pack", layout.parse_pack_name),
        ("segment", layout.parse_segment_name),
        ("root", layout.parse_checkpoint_name),
    ):
        names = [name for name in host.store._blobs if parse(name)]
        victims[kind] = names[-1]
    original = dict(host.store._blobs)
    for how in ("gone", "replaced"):
        for name in victims.values():
            host.store._blobs = dict(original)
            blob, at_us = host.store._blobs.pop(name)
            if how == "replaced":  # as long as before, and other bytes
                host.store._blobs[name] = (blob[:-50] + os.urandom(50), at_us + 1)
            report = await verified(host, Level.LIST)
            assert [damage.name for damage in report.damage] == [name], how
    host.store._blobs = dict(original)
    for name, (blob, at_us) in original.items():
        host.store._blobs[name] = (blob, at_us + 1)
    report = await verified(host, Level.LIST)
    assert report.is_sound  # the times of all have changed, and every one proves itself
    assert report.read_bytes > 0


@pytest.mark.asyncio
async def test_a_store_that_lists_hashes_shows_a_replaced_object(host) -> None:
    await captured(host)
    import hashlib

    class Hashing(MemoryBlobStore):
        async def scan(self, prefix):
            async for info in super().scan(prefix):
                md5 = hashlib.md5(self._blobs[info.name][0]).digest()
                yield msgspec.structs.replace(info, md5=md5)

    store = Hashing(host.clock)
    store._blobs = host.store._blobs
    await keep_runs(host.site, store)
    assert (await verified(host, Level.LIST, store)).is_sound
    name = packs(host)[0]
    blob, at_us = store._blobs[name]
    store._blobs[name] = (blob[:-1] + bytes((blob[-1] ^ 1,)), at_us)
    report = await verified(host, Level.LIST, store)
    assert [(each.name, "MD5" in each.what) for each in report.damage] == [(name, True)]
    assert report.read_bytes == 0


@pytest.mark.asyncio
async def test_what_retention_deleted_is_not_missed(host) -> None:
    files = await captured(host)
    await keep_runs(host.site, host.store)
    for _ in range(3):
        host.clock.us += 5 * DAY_US
        await host.capture("web", files)
        files = {**files, b"day": b"%d" % host.clock.us}
    outcome = await expire.run(host.site, {}, default=Rule(continuous_us=DAY_US))
    assert outcome.deleted_objects > 0
    report = await verified(host, Level.LIST)
    assert report.is_sound, report.damage
    assert not report.notes
    await expire.run(host.site, {}, default=Rule(continuous_us=1))
    host.clock.us += 5 * DAY_US
    await host.capture("web", {b"one": b"more"})
    await expire.run(host.site, {}, default=Rule(continuous_us=1))
    report = await verified(host, Level.LIST)  # two generations on, the first list is gone
    assert report.is_sound, report.damage


@pytest.mark.asyncio
async def test_an_object_that_nobody_put_is_a_stranger(host) -> None:
    files = await captured(host)
    junk = layout.pack_name(host.vault.keys.domain, os.urandom(32))
    await host.store.put(junk, os.urandom(4096))
    with host.catalog.reader() as connection:
        known = dict(connection.execute("SELECT name, size FROM object"))
    report = await Verifier(host.vault, Level.LIST, clock=host.clock, known=known).run()
    assert report.strangers == [junk]
    assert report.is_sound
    assert await host.files_at("web", LATEST_US) == files


@pytest.mark.asyncio
async def test_a_sample_finds_damage_and_repeats_with_its_seed(host) -> None:
    await captured(host)
    seen = []
    for _ in range(2):
        report = await Verifier(host.vault, Level.SAMPLE, clock=host.clock, seed=5, draws=4).run()
        assert report.is_sound
        assert (report.sampled_count, report.seed) == (4, 5)
        seen.append(report.read_bytes)
    assert seen[0] == seen[1]
    everything = await Verifier(host.vault, Level.SAMPLE, clock=host.clock).run()
    assert everything.sampled_count > 30  # all there are: fewer than the sample
    name = packs(host)[0]
    spoil(host.store, name, "frames")
    report = await Verifier(host.vault, Level.SAMPLE, clock=host.clock).run()
    assert {damage.name for damage in report.damage} == {name}
    assert report.affected_count
