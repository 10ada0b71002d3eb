"""Finding and reading chunks, with damaged, missing and doubled objects in the way."""

import random

import pytest
from vaultbuilder import VaultBuilder, version_of

from streamd.errors import VaultDamaged
from streamd.format import layout
from streamd.format.keys import Role
from streamd.model.entry import ContentRun, EntryType
from streamd.vault.chunk_reader import ChunkReader


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def corrupt(builder, name, at=-20_000):
    data = bytearray(await builder.store.get(name))
    at = at if abs(at) < len(data) else len(data) // 2
    data[at] ^= 1
    await builder.store.delete(name)
    await builder.store.put(name, bytes(data))


async def content(reader, version) -> bytes:
    return b"".join([bytes(piece) async for piece in reader.content(version)])


@pytest.mark.asyncio
@pytest.mark.parametrize("packed", [False, True])
async def test_content_comes_back_with_holes_as_zeros(packed):
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    data = noise(300_000)
    runs = builder.store_content(data)
    runs.insert(2, ContentRun(None, 3_000_000))
    web.runs_file(b"/w/f", runs)
    await builder.commit(packed=packed)
    version = version_of(EntryType.REGULAR, content=tuple(runs), size=3_300_000)
    expected = data[:131072] + bytes(3_000_000) + data[131072:]
    assert await content(ChunkReader(builder.vault), version) == expected


@pytest.mark.asyncio
async def test_long_lists_are_trees_and_expand():
    builder = VaultBuilder()
    data = noise(600_000)
    runs = builder.store_content(data, chunk=300)
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    web.runs_file(b"/w/f", runs)
    await builder.commit(packed=True)
    from streamd.vault.state_reader import StateReader

    reader = StateReader(builder.vault)
    with await reader.state_at("web", 1 << 62) as state:
        version = state.resolve(b"/w/f").version
    assert version.levels > 0
    assert await reader.chunks.expand(version) == runs
    assert await content(reader.chunks, version) == data


@pytest.mark.asyncio
async def test_a_damaged_frame_is_read_from_its_other_holder():
    builder = VaultBuilder()
    data = noise(200_000)
    runs = builder.store_content(data)
    chunks = dict(builder.data)
    first = (await builder.pack(Role.DATA, chunks))[0]
    builder.tick()
    second = (await builder.pack(Role.DATA, chunks))[0]
    version = version_of(EntryType.REGULAR, content=tuple(runs), size=len(data))
    await corrupt(builder, second)
    reader = ChunkReader(builder.vault)
    assert await content(reader, version) == data
    assert [damage.name for damage in reader.damage] == [second]
    await corrupt(builder, first)
    with pytest.raises(VaultDamaged, match="nowhere"):
        await content(ChunkReader(builder.vault), version)


@pytest.mark.asyncio
async def test_junk_among_the_packs_harms_nothing():
    builder = VaultBuilder()
    data = noise(10_000)
    runs = builder.store_content(data)
    await builder.pack(Role.DATA, dict(builder.data))
    for number, junk in enumerate(
        (b"", b"junk", bytes(100_000), b"STRMD\r\n\x1aP\x01\x03\x00\xff\xff")
    ):
        name = layout.pack_name(builder.keys.domain, bytes([number]) * 32)
        await builder.put(name, junk)
    await builder.put(f"{layout.pack_prefix(builder.keys.domain)}zz/not-a-pack", b"x")
    reader = ChunkReader(builder.vault)
    version = version_of(EntryType.REGULAR, content=tuple(runs), size=len(data))
    builder.clock.us += 1
    assert await content(reader, version) == data
    assert await reader.locate([bytes(32)], Role.DATA) == {bytes(32)}
    assert len(reader.damage) == 4


@pytest.mark.asyncio
async def test_adjacent_frames_are_read_in_one_go():
    builder = VaultBuilder()
    runs = builder.store_content(noise(2_000_000))
    await builder.pack(Role.DATA, dict(builder.data))
    reader = ChunkReader(builder.vault)
    await reader.locate([run.id for run in runs], Role.DATA)
    assert len(reader.jobs(run.id for run in runs)) == 1
    assert len(reader.jobs([runs[0].id, runs[-1].id])) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "runs",
    [
        [ContentRun(bytes(32), 0)],
        [ContentRun(bytes(32), -5)],
        [ContentRun(bytes(31), 5)],
        [ContentRun(None, 6)],
    ],
)
async def test_impossible_content_lists_are_damage(runs):
    reader = ChunkReader(VaultBuilder().vault)
    with pytest.raises(VaultDamaged):
        await reader.expand(version_of(EntryType.REGULAR, content=tuple(runs), size=5))
