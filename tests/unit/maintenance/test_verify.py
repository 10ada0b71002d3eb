"""Verification finds every kind of damage at its level, and says whom it costs what."""

import random

import pytest
from vaultbuilder import VaultBuilder

from streamd.format import envelope, layout, pack
from streamd.format.keys import Role
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level
from streamd.model.record import version_key
from streamd.vault.tree_state import decode_version


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def verify(builder, level=Level.FULL):
    return await Verifier(builder.vault, level, clock=builder.clock).run()


class Story:
    """Two checkpoints with commits around them; content in packs and inline."""

    async def tell(self):
        self.builder = builder = VaultBuilder()
        self.web = web = builder.source("web", b"/w")
        web.directory(b"/w")
        web.file(b"/w/packed", noise(200_000))
        await builder.commit(packed=True)
        self.data_pack = next(n for n in builder.names if layout.parse_pack_name(n))
        self.first = await web.checkpoint()
        builder.tick()
        web.file(b"/w/inline", noise(5_000, 2))
        self.segment = await builder.commit()
        self.second = await web.checkpoint()
        builder.tick()
        web.runs_file(b"/w/long", builder.store_content(noise(100_000, 3), chunk=300))
        web.delete(b"/w/inline")
        self.last = await builder.commit(packed=True)
        return self

    async def damage(self, name: str, at: int) -> None:
        store = self.builder.store
        data = bytearray(await store.get(name))
        data[at] ^= 1
        await store.delete(name)
        await store.put(name, bytes(data))

    def list_pages(self) -> set[bytes]:
        """The pages that the long file's content list begins with."""
        value = self.web.rows[version_key(self.web.fids[b"/w/long"])]
        return {run.id for run in decode_version(value).content}

    def packs(self) -> list[str]:
        return [name for name in self.builder.names if layout.parse_pack_name(name)]


@pytest.mark.asyncio
@pytest.mark.parametrize("level", list(Level))
async def test_a_sound_vault_is_sound(level):
    story = await Story().tell()
    report = await verify(story.builder, level)
    assert report.is_sound
    assert report.damage == []
    assert report.object_count == len(story.builder.names)
    if level is not Level.LIST:
        assert (report.segment_count, report.checkpoint_count) == (3, 2)
        assert report.pack_count == len(story.packs())
        assert report.chunk_count > 300


@pytest.mark.asyncio
async def test_a_missing_segment_is_seen_in_the_listing():
    story = await Story().tell()
    await story.builder.store.delete(story.segment)
    report = await verify(story.builder, Level.LIST)
    assert [damage.name for damage in report.damage] == [story.last]


@pytest.mark.asyncio
async def test_an_object_that_was_cut_off_is_seen_in_the_listing():
    story = await Story().tell()
    store = story.builder.store
    for name in (story.data_pack, story.segment, story.first):
        data = await store.get(name)
        await store.delete(name)
        await store.put(name, data[: len(data) * 7 // 9 | 1])
    report = await verify(story.builder, Level.LIST)
    assert {damage.name for damage in report.damage} == {
        story.data_pack,
        story.segment,
        story.first,
    }


@pytest.mark.asyncio
async def test_strangers_are_named_and_do_no_harm():
    story = await Story().tell()
    name = layout.domain_prefix(story.builder.keys.domain) + "p/zz/hello.txt"
    await story.builder.put(name, b"hello")
    report = await verify(story.builder)
    assert report.strangers == [name]
    assert report.is_sound


@pytest.mark.asyncio
async def test_a_missing_pack_is_named_by_the_paths_that_needed_it():
    story = await Story().tell()
    await story.builder.store.delete(story.data_pack)
    assert (await verify(story.builder, Level.LIST)).is_sound  # the price of not reading
    report = await verify(story.builder, Level.STRUCTURE)
    assert not report.is_sound
    assert report.missing_count == 4
    assert {each.path for each in report.affected} == {b"/w/packed"}


@pytest.mark.asyncio
async def test_a_flipped_bit_in_content_is_found_at_level_full_only():
    story = await Story().tell()
    data = await story.builder.store.get(story.data_pack)
    section = envelope.parse(data, envelope.Kind.PACK).section("c")
    await story.damage(story.data_pack, section.offset + 100)
    assert (await verify(story.builder, Level.STRUCTURE)).is_sound
    report = await verify(story.builder, Level.FULL)
    assert story.data_pack in {damage.name for damage in report.damage}
    assert {each.path for each in report.affected} == {b"/w/packed"}
    assert report.affected[0].source == "web"


@pytest.mark.asyncio
async def test_damage_to_padding_costs_nobody_anything():
    story = await Story().tell()
    await story.damage(story.data_pack, -1)
    report = await verify(story.builder, Level.FULL)
    assert {damage.name for damage in report.damage} == {story.data_pack}
    assert (report.missing_count, report.affected) == (0, [])


@pytest.mark.asyncio
async def test_another_copy_of_a_chunk_makes_up_for_a_damaged_one():
    story = await Story().tell()
    pieces = noise(200_000)
    builder = story.builder
    builder.known.clear()
    builder.store_content(pieces)
    await builder.pack(Role.DATA, dict(builder.data))
    await builder.store.delete(story.data_pack)
    report = await verify(builder, Level.STRUCTURE)
    assert report.missing_count == 0


@pytest.mark.asyncio
async def test_a_damaged_checkpoint_is_found():
    story = await Story().tell()
    await story.damage(story.second, -50)
    report = await verify(story.builder, Level.STRUCTURE)
    assert [damage.name for damage in report.damage] == [story.second]


@pytest.mark.asyncio
async def test_a_checkpoint_that_the_journal_does_not_lead_to_is_found():
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    await builder.commit()
    await web.checkpoint()
    builder.tick()
    web.file(b"/w/f", b"1")
    await builder.commit(sums=False)
    web.rows[version_key(7)] = web.rows[version_key(web.fids[b"/w/f"])]  # never journaled
    wrong = await web.checkpoint()
    report = await verify(builder, Level.STRUCTURE)
    assert [damage.name for damage in report.damage] == [wrong]
    assert "not what the journal" in report.damage[0].what


@pytest.mark.asyncio
async def test_a_lost_chunk_list_page_is_named_by_its_file():
    story = await Story().tell()
    for name in story.packs():
        holder = pack.decode_pack_index(
            await story.builder.store.get(name), story.builder.keys.secret_for
        )
        if story.list_pages() & set(holder.table.id_list()):
            await story.builder.store.delete(name)
    report = await verify(story.builder, Level.STRUCTURE)
    assert not report.is_sound
    assert b"/w/long" in {each.path for each in report.affected}
