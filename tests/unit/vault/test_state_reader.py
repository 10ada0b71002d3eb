"""The state of a source at any instant: checkpoint and replay agree, and what is gone is said."""

import pytest
from vaultbuilder import TICK_US, VaultBuilder, encode

from streamd.errors import NotFound, VaultDamaged
from streamd.format.layout import parse_segment_name
from streamd.model.record import Op, StateSum
from streamd.vault.state_reader import StateReader

LATEST = (1 << 63) - 1


def paths(state) -> list[bytes]:
    return sorted(entry.path for entry in state.walk() if entry.path)


class Story:
    """Five commits with a checkpoint after the second; `expected` is what each left."""

    def __init__(self) -> None:
        self.builder = VaultBuilder()
        self.web = self.builder.source("web", b"/w")
        self.names: list[str] = []
        self.expected: list[tuple[int, list[bytes]]] = []
        self.checkpoints: list[str] = []

    async def commit(self) -> None:
        self.names.append(await self.builder.commit())
        tree = sorted(path for path in self.web.fids if path)
        self.expected.append((self.builder.clock.us, tree))
        self.builder.tick()

    async def tell(self) -> "Story":
        self.web.directory(b"/w")
        for number in range(5):
            self.web.file(b"/w/%d" % number, b"content %d" % number)
            if number == 3:
                self.web.delete(b"/w/0")
            await self.commit()
            if number in {1, 3}:
                self.checkpoints.append(await self.web.checkpoint())
        return self

    def reader(self) -> StateReader:
        return StateReader(self.builder.vault)


@pytest.mark.asyncio
async def test_every_instant_has_the_state_of_its_last_commit():
    story = await Story().tell()
    for at_us, tree in story.expected:
        with await story.reader().state_at("web", at_us) as state:
            assert paths(state) == tree
            assert state.is_exact
            assert not state.damage


@pytest.mark.asyncio
async def test_an_instant_inside_a_segment_has_the_records_up_to_it():
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    first = builder.clock.us
    builder.tick()
    web.file(b"/w/later")
    second = builder.clock.us
    await builder.commit()
    reader = StateReader(builder.vault)
    for at_us, tree in (
        (first, [b"/w"]),
        (second - 1, [b"/w"]),
        (second, [b"/w", b"/w/later"]),
    ):
        with await reader.state_at("web", at_us) as state:
            assert paths(state) == tree
            assert state.at_us == at_us


@pytest.mark.asyncio
async def test_a_replay_without_checkpoints_arrives_at_the_same():
    story = await Story().tell()
    for name in story.checkpoints:
        await story.builder.store.delete(name)
    for at_us, tree in story.expected:
        with await story.reader().state_at("web", at_us) as state:
            assert paths(state) == tree


@pytest.mark.asyncio
async def test_the_latest_state_is_that_of_the_last_record():
    story = await Story().tell()
    with await story.reader().state_at("web", LATEST) as state:
        assert state.at_us == story.expected[-1][0]
        assert state.state == story.web.state_sum()


@pytest.mark.asyncio
async def test_a_thinned_instant_falls_back_to_the_kept_point_and_says_so():
    story = await Story().tell()
    for name in story.names[:4]:
        await story.builder.store.delete(name)
    at_us = story.expected[2][0]
    with await story.reader().state_at("web", at_us) as state:
        assert not state.is_exact
        assert "thinned" in state.note
        assert state.at_us < at_us
        assert paths(state) == story.expected[1][1]
        assert not state.damage
    with await story.reader().state_at("web", LATEST) as state:
        assert state.is_exact
        assert paths(state) == story.expected[4][1]


@pytest.mark.asyncio
async def test_a_hole_behind_the_last_checkpoint_is_damage_and_the_prefix_is_given():
    story = await Story().tell()
    story.web.file(b"/w/last")
    await story.commit()
    await story.builder.store.delete(story.names[4])
    with await story.reader().state_at("web", LATEST) as state:
        assert not state.is_exact
        assert state.damage[0].name == story.names[4]
        assert paths(state) == story.expected[3][1]


@pytest.mark.asyncio
async def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used():
    story = await Story().tell()
    store, name = story.builder.store, story.checkpoints[1]
    data = bytearray(await store.get(name))
    data[-10] ^= 1
    await store.delete(name)
    await store.put(name, bytes(data))
    with await story.reader().state_at("web", LATEST) as state:
        assert paths(state) == story.expected[4][1]
        assert [damage.name for damage in state.damage] == [name]
        assert state.is_exact


@pytest.mark.asyncio
async def test_a_time_before_the_first_names_the_oldest():
    story = await Story().tell()
    with pytest.raises(NotFound, match="the oldest is 2025"):
        await story.reader().state_at("web", 5)


@pytest.mark.asyncio
async def test_an_unknown_source_names_those_that_are_there():
    story = await Story().tell()
    with pytest.raises(NotFound, match="there is: web"):
        await story.reader().state_at("nope", LATEST)


@pytest.mark.asyncio
async def test_a_journal_without_beginning_and_checkpoint_is_damage():
    story = await Story().tell()
    for name in (*story.checkpoints, story.names[0]):
        await story.builder.store.delete(name)
    # STATE records would betray a partial replay, whatever the first segment claims
    with pytest.raises((VaultDamaged, NotFound)):
        await story.reader().state_at("web", LATEST)


@pytest.mark.asyncio
async def test_a_wrong_state_sum_is_reported():
    builder = VaultBuilder()
    web = builder.source("web", b"/w")
    web.directory(b"/w")
    builder.add(web, Op.STATE, b"", encode(StateSum(bytes(32), 7)))
    await builder.commit(sums=False)
    with await StateReader(builder.vault).state_at("web", LATEST) as state:
        assert "not the one that was recorded" in state.damage[0].what


@pytest.mark.asyncio
async def test_sources_gaps_marks_and_changes_are_listed():
    builder = VaultBuilder()
    web, etc = builder.source("web", b"/w"), builder.source("etc", b"/etc")
    web.directory(b"/w")
    web.mark("before-upgrade")
    first = await builder.commit()
    builder.tick()
    etc.directory(b"/etc")
    etc.gap(1, 2)
    await builder.commit()
    reader = StateReader(builder.vault)
    assert parse_segment_name(first) == (1, 0)
    assert [each.info.name for each in await reader.sources()] == ["etc", "web"]
    assert [mark.label for _, mark in await reader.marks("web")] == ["before-upgrade"]
    assert await reader.gaps("web") == []
    assert [gap.end_us for gap in await reader.gaps("etc")] == [2]
    assert len(await reader.commit_times("web")) == 2 - 1
    changes = [record.op async for _, record in reader.changes("web", 0, LATEST)]
    assert changes.count(Op.SET) == 3
    assert [1 async for _ in reader.changes("web", builder.clock.us, LATEST)] == []


@pytest.mark.asyncio
async def test_a_source_checkpointed_only_keeps_its_name():
    story = await Story().tell()
    for name in story.names:
        await story.builder.store.delete(name)
    summary = (await story.reader().sources())[0]
    assert summary.info.name == "web"
    assert summary.last_us - summary.first_us >= 2 * TICK_US
