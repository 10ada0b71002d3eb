"""One bit of a vault differs: it is noticed, and not one wrong byte is handed out.

Whatever object and whatever bit: every byte of content that a restore would write is the right one,
and what cannot be had, or may be missing, is said. What a restore does not look at (padding of packs,
objects that it does not need) is noticed by whoever reads the object as a whole.
STREAMD_BIT_FLIPS says how many (default 300; 1,500 in CI; 1,000,000 for acceptance). With as many as
the vault has bits each is flipped once; a restore is tried with up to RESTORES_MAX of them.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from patience import Patience
from vaultbuilder import ManualClock, VaultBuilder

from streamd.errors import StreamdError
from streamd.format import control, layout, pack, segment
from streamd.format.checkpoint import decode_checkpoint
from streamd.format.control import decode_epoch
from streamd.format.vault_config import Certificate, VaultConfig, decode_signed
from streamd.model.entry import ContentRun, EntryType
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.state_reader import StateReader
from streamd.vault.vault import open_vault

FLIPS = int(os.environ.get("STREAMD_BIT_FLIPS", "1500" if os.environ.get("CI") else "300"))
SEED = int(os.environ.get("STREAMD_BIT_FLIPS_SEED", "1"))
RESTORES_MAX = 10_000
LATEST = (1 << 63) - 1


class Truth(NamedTuple):
    """What the whole vault says."""

    builder: VaultBuilder
    objects: dict[str, bytes]
    rows: list[tuple[bytes, bytes]]
    contents: dict[bytes, bytes]


async def made() -> Truth:
    """Return a small vault with one of every object that a restore reads."""
    clock = ManualClock()
    builder = VaultBuilder(MemoryBlobStore(clock), chunk=500)
    await builder.install()
    web = builder.source("web", b"/srv")
    rng = random.Random(3)
    web.directory(b"/srv")
    for number in range(6):
        web.file(b"/srv/%d" % number, rng.randbytes(300 * number), xattrs=((b"user.a", b"b"),))
    web.file(b"/srv/long", rng.randbytes(500 * 70))  # a list of chunks with pages
    await builder.commit(packed=True)
    web.runs_file(b"/srv/sparse", [ContentRun(None, 4096), *builder.store_content(b"island")])
    web.symlink(b"/srv/link", b"5")
    await builder.commit()
    await web.checkpoint()
    await builder.new_epoch()
    web.file(b"/srv/1", b"changed")
    web.delete(b"/srv/3")
    await builder.commit()
    web.file(b"/srv/late", rng.randbytes(1200))
    await builder.commit(packed=True)
    objects = {name: bytes(await builder.store.get(BlobName(name))) for name in builder.names}
    rows, contents, damage, _ = await everything(builder, objects)
    assert not damage
    assert len(contents) == 8
    return Truth(builder, objects, rows, contents)


async def everything(builder: VaultBuilder, objects: dict[str, bytes], truth: Truth | None = None):
    """Return (state, contents, damage, whether the state is all there), as a restore reads it."""
    store = MemoryBlobStore(ManualClock())
    for name, data in objects.items():
        await store.put(BlobName(name), data)
    vault = await open_vault(store, builder.host_key)
    states = StateReader(vault)
    contents: dict[bytes, bytes] = {}
    damage: list[object] = []
    with await states.state_at("web", LATEST) as state:
        rows = list(state.rows())
        damage += state.damage
        for entry in state.walk():
            if entry.version is None or entry.version.type != EntryType.REGULAR:
                continue
            got = b""
            try:
                async for piece in states.chunks.content(entry.version):
                    got += bytes(piece)
                    if truth is not None and (entry.dirent.fid in _fids(truth)):
                        assert _right(truth, entry.path, got), "a wrong byte was handed out"
            except StreamdError as error:
                damage.append(error)
                continue
            contents[entry.path] = got
        return rows, contents, damage + states.chunks.damage, state.is_exact


def _fids(truth: Truth) -> set[int]:
    return set(truth.builder.sources[0].fids.values())


def _right(truth: Truth, path: bytes, got: bytes) -> bool:
    """Say whether these are the first bytes of some version that the file really had."""
    return any(whole.startswith(got) for whole in VERSIONS[path])


VERSIONS: dict[bytes, list[bytes]] = {}


def noticed_as_a_whole(truth: Truth, name: str, data: bytes) -> bool:
    """Say whether a reader of the whole object refuses it."""
    keys, builder = truth.builder.keys, truth.builder
    public = builder.vault.verify_keys[builder.writer_id]
    admin = builder.host_key.public.admin
    try:
        if "/p/" in name:
            pack.verify_pack_name(name, data)
        elif "/j/" in name:
            segment.decode_segment(data, public)
        elif "/c/" in name:
            decode_checkpoint(data, public, keys.secret_for)
        elif "/e/" in name:
            decode_epoch(data, public)
        elif "/g/" in name:
            control.decode_condemned(data, public, keys.secret_for)
        else:
            decode_signed(data, admin, VaultConfig if name.startswith("v/") else Certificate)
    except StreamdError:
        return True
    return False


def flips(truth: Truth, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Yield (object, bit): each bit of the vault once if there are to be so many, others by chance."""
    count = FLIPS
    if count >= sum(len(data) for data in truth.objects.values()) * 8:
        for name, data in truth.objects.items():
            yield from ((name, bit) for bit in range(len(data) * 8))
            count -= len(data) * 8
    names = list(truth.objects)
    for _ in range(count):
        name = rng.choice(names)
        yield name, rng.randrange(len(truth.objects[name]) * 8)


async def restored(truth: Truth, name: str, data: bytes) -> str:
    """Restore with another object, and say how it was noticed: as damage or by refusing."""
    try:
        found = await everything(truth.builder, truth.objects | {name: data}, truth)
    except StreamdError:
        return "refused"
    rows, contents, damage, is_exact = found
    if (rows, contents) == (truth.rows, truth.contents):
        return "damage" if damage else "not needed"
    assert damage or not is_exact, f"another {name} changed the tree and nobody said so"
    return "damage"


@pytest.mark.asyncio
@pytest.mark.timeout(0)  # by progress
async def test_every_flipped_bit_is_noticed_and_no_wrong_byte_is_handed_out() -> None:
    truth = await made()
    for path, content in truth.contents.items():
        VERSIONS.setdefault(path, []).append(content)
    VERSIONS[b"/srv/1"].append(random_version(truth, b"/srv/1"))
    VERSIONS[b"/srv/3"] = [random_version(truth, b"/srv/3")]
    rng = random.Random(SEED)
    ways: Counter[str] = Counter()
    share = min(1.0, RESTORES_MAX / FLIPS)
    with Patience(60) as patience:
        for name, bit in flips(truth, rng):
            data = bytearray(truth.objects[name])
            data[bit // 8] ^= 1 << bit % 8
            assert noticed_as_a_whole(truth, name, bytes(data)), f"bit {bit} of {name} was accepted"
            if rng.random() < share:
                ways[await restored(truth, name, bytes(data))] += 1
            patience.progress()
    assert patience.done == FLIPS
    print(f"{FLIPS} flipped bits noticed, of which restored with: {dict(ways)}")
    assert ways.keys() >= {"refused", "damage"}


def random_version(truth: Truth, path: bytes) -> bytes:
    """Return what a file was in the beginning: the same generator again."""
    rng = random.Random(3)
    for number in range(6):
        content = rng.randbytes(300 * number)
        if path == b"/srv/%d" % number:
            return content
    raise AssertionError(path)


@pytest.mark.asyncio
async def test_the_judge_sees_a_byte_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a reader that does not check what it opens is caught by it."""
    truth = await made()
    VERSIONS.update({path: [content] for path, content in truth.contents.items()})

    async def careless(self, version):
        yield b"\x00" * max(version.size, 1)

    monkeypatch.setattr(ChunkReader, "content", careless)
    with pytest.raises(AssertionError, match="a wrong byte"):
        await everything(truth.builder, truth.objects, truth)


def test_the_objects_cover_what_a_restore_reads() -> None:
    kinds = {name.split("/")[2] for name in asyncio.run(made()).objects if name.startswith("d/")}
    assert kinds == {"p", "j", "c", "e"}
    assert layout.CONFIG_PREFIX.startswith("v/")
