"""T-N8: a list that lacks something is noticed by who builds on it, and nothing is deleted for it.

The journal is dense and a chain: a hole shows by its number, a missing end of an epoch by the hash
that the next segment continues. What goes is what policy and journal say, never what a list lacks.
"""

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from blobserver.faults import Fault, operation
from blobserver.server import BlobServer
from integration.remote_stack import RemoteStack, shared_key
from unit.maintenance.smallhost import DAY_US, SmallHost
from vaultbuilder import VaultBuilder

from streamd.errors import StreamdError, VaultDamaged
from streamd.maintenance import expire
from streamd.maintenance.runs import keep_runs
from streamd.policy.retention import Rule
from streamd.storage import azure_listing
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import JournalReader
from streamd.vault.state_reader import StateReader

KINDS = ("missing-rows", "stale-list", "lost-marker")
RULE = Rule(continuous_us=2 * DAY_US, daily=4)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BlobServer]:
    async with BlobServer() as server:
        yield server


@pytest_asyncio.fixture
async def stack(server: BlobServer) -> AsyncIterator[RemoteStack]:
    async with RemoteStack(shared_key(server)) as stack:
        await stack.plain.ensure_container()
        yield stack


async def two_epochs(store) -> tuple[VaultBuilder, list[str]]:
    """A journal of two epochs; the names of its segments."""
    builder = VaultBuilder(store)
    source = builder.source("web", b"/srv")
    source.directory(b"/srv")
    segments = []
    for epoch in range(2):
        if epoch:
            await builder.new_epoch()
        for number in range(5):
            source.file(b"/srv/%d-%d" % (epoch, number), b"%d" % number * 2000)
            segments.append(await builder.commit(packed=number % 2 == 0))
    await builder.install()
    return builder, segments


def hiding(names: set[str]) -> Fault:
    """Lists lack these objects, which can be got all the same."""
    return Fault("hidden-rows", None, operation("list"), names=frozenset(names))


@pytest.mark.asyncio
@pytest.mark.parametrize("missing", range(1, 9))
async def test_a_segment_that_lists_lack_ends_the_journal_with_its_name(
    server: BlobServer, stack: RemoteStack, missing: int
) -> None:
    """Any but the first, where a cut journal may begin, and the last. Number 4 ends its epoch."""
    builder, segments = await two_epochs(stack.store)
    server.faults.add(hiding({f"pre/{segments[missing]}"}))
    reader = JournalReader(builder.vault, builder.vault.keys.writer)
    believed = []
    with pytest.raises(VaultDamaged) as caught:
        async for segment in reader.journal():
            believed.append(segment.position)
    assert len(believed) == missing
    is_end = missing == 4
    blamed = segments[missing + 1] if is_end else segments[missing]
    assert blamed in str(caught.value)
    assert ("does not continue" if is_end else "missing, although later") in str(caught.value)
    assert await blamed_for_the_state(builder) == [blamed]
    server.faults.clear()
    assert await blamed_for_the_state(builder) == []


@pytest.mark.asyncio
async def test_a_journal_whose_beginning_lists_lack_is_no_state(
    server: BlobServer, stack: RemoteStack
) -> None:
    builder, segments = await two_epochs(stack.store)
    server.faults.add(hiding({f"pre/{segments[0]}"}))
    with pytest.raises(StreamdError):
        await blamed_for_the_state(builder)


async def blamed_for_the_state(builder: VaultBuilder) -> list[str]:
    """Return what stands between the state of now and what can be had."""
    with await StateReader(builder.vault).state_at("web", builder.clock.us) as state:
        assert state.is_exact == (not state.damage)
        return [one.name for one in state.damage]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_upkeep_deletes_nothing_because_a_list_lacks_it(
    server: BlobServer, stack: RemoteStack, tmp_path, monkeypatch, kind: str
) -> None:
    rng, truth = random.Random(kind), {}
    host = SmallHost(tmp_path, store=stack.store)
    try:
        for day in range(10):
            host.clock.us += DAY_US
            files = {b"a": rng.randbytes(300), b"b%d" % (day // 4): rng.randbytes(5000)}
            truth[await host.capture("web", files)] = files
            if day == 5:
                known = {info.name async for info in stack.store.scan("")}
        if kind == "stale-list":
            later = {info.name async for info in stack.store.scan("")} - known
            server.faults.add(hiding({f"pre/{name}" for name in later}))
        else:
            server.faults.add(Fault(kind, None, operation("list")))
            monkeypatch.setattr(azure_listing, "PAGE", 3)
        for work in (
            lambda: expire.run(host.site, {"web": RULE}, default=RULE),
            lambda: keep_runs(host.site, host.store),
            lambda: expire.run(host.site, {"web": RULE}, default=RULE),
        ):
            try:
                await work()
            except StreamdError:
                continue  # it would not work on such a list
        server.faults.clear()
        plan = await expire.plan(host.vault, {"web": RULE}, default=RULE, now_us=host.clock.us)
        kept = [point.at_us for point in plan.points[0].points if point.keep]
        assert len(kept) >= 4
        for at_us in kept:
            assert await host.files_at("web", at_us) == truth[at_us]
    finally:
        host.catalog.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_objects_are_got_by_name_whatever_lists_say(
    server: BlobServer, stack: RemoteStack, kind: str
) -> None:
    server.faults.add(Fault("stale-list", None, operation("list")))  # of the empty vault
    assert [info async for info in stack.store.scan("")] == []
    builder, _ = await two_epochs(stack.store)
    if kind != "stale-list":
        server.faults.clear()
        server.faults.add(Fault(kind, None, operation("list")))
    for name in builder.names:
        assert await stack.store.get(BlobName(name))
