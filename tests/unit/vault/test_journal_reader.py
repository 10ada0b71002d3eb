"""Reading a journal: dense, chained, signed; what stands behind a fault is not believed."""

import pytest
from vaultbuilder import VaultBuilder

from streamd.errors import VaultDamaged
from streamd.format.layout import JournalPosition, segment_name
from streamd.vault.journal_reader import JournalReader


async def built(count: int = 4):
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    names = []
    for number in range(count):
        web.file(b"/w/%d" % number, b"x%d" % number)
        names.append(await builder.commit())
        if number == 1:
            await builder.new_epoch()
    return builder, names


async def positions(builder, after=None, **options):
    reader = JournalReader(builder.vault, builder.writer_id)
    return [tuple(s.position) async for s in reader.journal(after, **options)]


@pytest.mark.asyncio
async def test_segments_come_in_order_over_epochs():
    builder, _ = await built()
    assert await positions(builder) == [(1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.asyncio
async def test_reading_goes_on_behind_a_mark():
    builder, _ = await built(2)
    mark = builder.last
    builder.sources[0].file(b"/w/more")
    await builder.commit()
    assert await positions(builder, mark) == [(2, 0)]


@pytest.mark.asyncio
async def test_a_mark_with_another_hash_breaks_the_chain():
    builder, _ = await built(2)
    mark = type(builder.last)(builder.writer_id, 1, 0, bytes(32))
    with pytest.raises(VaultDamaged, match="does not continue"):
        await positions(builder, mark)


@pytest.mark.asyncio
async def test_a_hole_ends_the_journal_and_is_named():
    builder, names = await built()
    await builder.store.delete(names[1])
    found = []
    assert await positions(builder, on_damage=found.append) == [(1, 0), (2, 0)][:1]
    assert found[0].name == names[2]
    with pytest.raises(VaultDamaged, match=names[2]):
        await positions(builder)


@pytest.mark.asyncio
async def test_a_hole_inside_an_epoch_is_named_by_what_is_missing():
    builder, names = await built(2)
    builder.sources[0].file(b"/w/more")
    await builder.new_epoch()
    names = []
    for number in range(3):
        builder.sources[0].file(b"/w/more%d" % number)
        names.append(await builder.commit())
    await builder.store.delete(names[1])
    found = []
    assert (3, 0) in await positions(builder, on_damage=found.append)
    assert found[0].name == names[1]
    assert "missing" in found[0].what


@pytest.mark.asyncio
async def test_names_that_do_not_parse_are_not_part_of_the_journal():
    builder, names = await built()
    await builder.put(names[0] + "-copy", b"junk")
    await builder.put(names[0][:-3] + "zzz", b"junk")
    assert len(await positions(builder)) == 4


@pytest.mark.asyncio
async def test_junk_under_the_next_name_is_reported_and_the_rest_is_read():
    builder, _ = await built()
    name = segment_name(builder.keys.domain, builder.writer_id, JournalPosition(2, 2))
    await builder.put(name, b"junk")
    found = []
    assert len(await positions(builder, on_damage=found.append)) == 4
    assert found[0].name == name


@pytest.mark.asyncio
async def test_a_segment_under_another_segments_name_is_not_believed():
    builder, names = await built()
    data = await builder.store.get(names[3])
    name = segment_name(builder.keys.domain, builder.writer_id, JournalPosition(2, 2))
    await builder.put(name, data)
    found = []
    assert len(await positions(builder, on_damage=found.append)) == 4
    assert "another segment's name" in found[0].what


@pytest.mark.asyncio
async def test_one_flipped_bit_is_found():
    builder, names = await built()
    data = bytearray(await builder.store.get(names[2]))
    data[len(data) // 2] ^= 1
    await builder.store.delete(names[2])
    await builder.put(names[2], bytes(data))
    found = []
    assert await positions(builder, on_damage=found.append) == [(1, 0), (1, 1)]
    assert found[0].name == names[2]


@pytest.mark.asyncio
async def test_a_collected_beginning_is_no_damage():
    builder, names = await built()
    await builder.store.delete(names[0])
    assert await positions(builder) == [(1, 1), (2, 0), (2, 1)]


@pytest.mark.asyncio
@pytest.mark.parametrize("back", [0, 1, 2, 3])
async def test_since_finds_the_segment_that_contains_the_instant(back):
    builder, _names = await built()
    reader = JournalReader(builder.vault, builder.writer_id)
    heads = [head async for head in reader.segment_heads()]
    found = await positions(builder, since_us=heads[back].start_us)
    assert found == [tuple(head.position) for head in heads[back:]]


@pytest.mark.asyncio
async def test_until_stops_in_front_of_the_first_later_segment():
    builder, _names = await built()
    reader = JournalReader(builder.vault, builder.writer_id)
    heads = [head async for head in reader.segment_heads()]
    found = await positions(builder, until_us=heads[2].start_us - 1)
    assert found == [(1, 0), (1, 1)]


@pytest.mark.asyncio
async def test_records_are_read_without_inline_content():
    builder, _names = await built()
    reader = JournalReader(builder.vault, builder.writer_id)
    whole = [len(s.records(builder.keys.secret_for)) async for s in reader.journal()]
    assert [len(records) async for _, records in reader.records()] == whole
