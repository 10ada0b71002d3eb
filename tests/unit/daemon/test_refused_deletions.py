"""What the container does not let go is counted by its reason, whoever wanted to delete it."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from unit.maintenance.smallhost import DAY_US, SmallHost

from streamd.config.model import Config
from streamd.daemon.meters import Meters
from streamd.daemon.upkeep import Upkeep, site_of
from streamd.errors import ObjectLocked, PolicyRefused
from streamd.maintenance.index_writing import write_index
from streamd.storage.azure_errors import Answer, Asked, meaning
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName

CODES = {
    "BlobImmutableDueToPolicy": "immutable",
    "ContainerImmutable": "immutable",
    "BlobImmutableDueToLegalHold": "hold",
    "LeaseIdMissing": "hold",
}


class Locked(MemoryBlobStore):
    """A container that answers every deletion with a refusal, once `code` is set."""

    code = ""

    async def delete(self, name: BlobName) -> None:
        if self.code:
            asked = Asked(doing="delete", name=name, container="c", endpoint="e")
            raise meaning(Answer(409, self.code), asked)
        await super().delete(name)


class Told:
    """An upkeep over a small host; `blocked` is what the metric says."""

    def __init__(self, folder) -> None:
        self.meters = Meters(CollectorRegistry())
        self.small = SmallHost(folder)
        self.store = self.small.store = Locked(self.small.clock)
        self.small.catalog.close()
        self.small.open()

        async def quiesce() -> None:
            pass

        self.keep_days(4)
        self.host = host = SimpleNamespace(
            catalog=self.small.catalog,
            clock=self.small.clock,
            meters=self.meters,
            pipeline=SimpleNamespace(quiesce=quiesce),
            stores=SimpleNamespace(local=self.store, remote=None, uplink=None),
            uploader=None,
            vault=self.small.vault,
            writer=self.small.writer,
        )
        self.upkeep = Upkeep(host, lambda: self.config)

    def keep_days(self, count: int) -> None:
        """Keep the last two days and so many days before."""
        self.config = Config(
            sources={"web": {"paths": ["/srv"], "policy": "short"}},
            policies={"short": {"continuous": "2d", "daily": count}},
        )

    def blocked(self) -> dict[str, float]:
        family = self.meters.metrics.retention_blocked_total
        return {
            sample.labels["reason"]: sample.value
            for metric in family.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }


@pytest.fixture
def told(tmp_path):
    told = Told(tmp_path)
    yield told
    told.small.catalog.close()


async def history(small: SmallHost, days: int) -> None:
    for day in range(days):
        small.clock.us += DAY_US
        await small.capture("web", {b"a": b"%d" % day * 2000})


@pytest.mark.asyncio
@pytest.mark.parametrize(("code", "reason"), CODES.items())
async def test_a_deletion_that_the_container_refuses_has_its_reason(told, code, reason) -> None:
    await history(told.small, 12)
    told.store.code = code
    with pytest.raises(ObjectLocked) as caught:
        await told.upkeep.run_request({})
    assert code in str(caught.value)
    assert "--accept-loss" not in caught.value.advice()
    assert told.blocked() == {reason: 1}
    told.store.code = ""
    facts = await told.upkeep.run_request({})  # the lock ended: what was begun is finished
    assert facts
    assert told.blocked() == {reason: 1}


@pytest.mark.asyncio
async def test_an_index_that_has_to_stay_is_counted_too(told) -> None:
    await history(told.small, 3)
    for day in range(3):
        await told.small.capture("web", {b"a": b"%d" % day})
        await write_index(site_of(told.host), told.store)
    told.store.code = "BlobImmutableDueToPolicy"
    with pytest.raises(ObjectLocked):
        await told.upkeep.keep()
    assert told.blocked() == {"immutable": 1}


@pytest.mark.asyncio
async def test_a_rule_that_would_drop_too_much_is_refused_as_before(told) -> None:
    told.keep_days(9)
    await history(told.small, 12)
    await told.upkeep.run_request({})
    told.keep_days(1)
    with pytest.raises(PolicyRefused, match="would drop"):
        await told.upkeep.run_request({})
    assert told.blocked() == {"refused": 1}
