"""The governor: who may ask, when, and how many at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest
from contract.blobstore_suite import BlobStoreContract
from stores import _Forwarding

from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import (
    BlobNotFound,
    ClockSkewed,
    ContainerMissing,
    CredentialExpired,
    IdentityUnavailable,
    ProxyRefused,
    RightMissing,
    StorageThrottled,
    StreamdError,
    TlsUntrusted,
    VaultUnreachable,
)
from streamd.policy.circuit import FAILURES_BEFORE_OPEN, Circuit
from streamd.storage.governed import GovernedBlobStore
from streamd.storage.governor import Governor, cause_of
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobInfo, BlobName, Bytes

pytestmark = pytest.mark.asyncio
PACK, SEGMENT = BlobName("d/x/p/aa/aa"), BlobName("d/x/j/1")
DOWN = VaultUnreachable("down", endpoint="e")


class MovedClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_us(self) -> int:
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


class Noted:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str | None]] = []
        self.waited = 0.0

    def circuit_changed(self, circuit: Circuit, error: StreamdError | None) -> None:
        self.states.append((circuit.state, circuit.cause))

    def window_changed(self, size: int) -> None:
        pass

    def slowed_down(self, seconds: float) -> None:
        self.waited += seconds


class Scripted(_Forwarding):
    """Fails with what is in `errors`, then works. Holds puts while `held`."""

    def __init__(self) -> None:
        self.disk = MemoryBlobStore(SystemClock())
        self.errors: deque[StreamdError] = deque()
        self.asked: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    async def put(self, name: BlobName, data: Bytes) -> None:
        self.asked.append(name)
        await self.free.wait()
        self._fail()
        await super().put(name, data)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        self.asked.append(name)
        self._fail()
        return await super().get(name, offset=offset, size=size)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        self.asked.append(prefix)
        self._fail()
        async for info in super().scan(prefix):
            yield info

    async def delete(self, name: BlobName) -> None:
        self.asked.append(name)
        self._fail()
        await super().delete(name)

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.popleft()


class Rig:
    def __init__(self, limit: int = 32) -> None:
        self.clock, self.noted, self.below = MovedClock(), Noted(), Scripted()
        self.governor = Governor(self.clock, SystemEntropy(), self.noted, limit_max=limit)
        self.store = GovernedBlobStore(self.below, self.governor, lambda name: "/p/" in name)

    async def fails(self, name: BlobName = PACK) -> StreamdError:
        with pytest.raises(StreamdError) as caught:
            await self.store.put(name, b"x")
        return caught.value


class TestGovernedBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> GovernedBlobStore:
        return Rig().store


async def test_when_the_service_asks_to_slow_down_all_do() -> None:
    rig = Rig()
    rig.below.errors.append(StorageThrottled("slow", retry_after_seconds=30))
    await rig.fails()
    refused = await rig.fails(SEGMENT)
    assert isinstance(refused, StorageThrottled)
    assert refused.retry_after_seconds == pytest.approx(30, abs=3)
    assert len(rig.below.asked) == 1
    assert rig.noted.waited >= 30
    rig.clock.seconds = 33
    await rig.store.put(SEGMENT, b"x")
    await rig.store.put(PACK, b"x")
    assert rig.noted.states == [
        ("open", "throttled"),
        ("probing", "throttled"),
        ("closed", None),
    ]


async def test_of_many_that_wait_one_probes() -> None:
    rig = Rig()
    rig.below.errors.extend([DOWN] * FAILURES_BEFORE_OPEN)
    for _ in range(FAILURES_BEFORE_OPEN):
        await rig.fails()
    rig.clock.seconds = 100
    rig.below.asked.clear()
    rig.below.free.clear()
    async with asyncio.TaskGroup() as tasks:
        probe = tasks.create_task(rig.store.put(PACK, b"x"))
        await asyncio.sleep(0)
        for _ in range(10):
            assert isinstance(await rig.fails(SEGMENT), VaultUnreachable)
        assert rig.below.asked == [PACK]
        rig.below.free.set()
    assert probe.done()
    assert rig.governor.circuit.state == "closed"


async def test_a_probe_that_is_cancelled_gives_its_turn_back() -> None:
    rig = Rig()
    rig.below.errors.append(CredentialExpired("old", place="p"))
    await rig.fails()
    rig.clock.seconds = 1000
    rig.below.free.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await rig.store.put(PACK, b"x")
    assert rig.governor.may_ask()
    rig.below.free.set()
    await rig.store.put(PACK, b"x")


async def test_a_new_credential_is_tried_at_once() -> None:
    rig = Rig()
    rig.below.errors.append(CredentialExpired("old", place="p"))
    await rig.fails()
    assert not rig.governor.may_ask()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(rig.governor.opened())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        rig.governor.hurry()
    await rig.store.put(PACK, b"x")
    assert rig.governor.circuit == Circuit()


async def test_a_right_that_is_missing_stops_only_what_is_put() -> None:
    rig = Rig()
    missing = RightMissing("no", doing="delete", endpoint="e", place="p")
    rig.below.errors.append(missing)
    with pytest.raises(RightMissing):
        await rig.store.delete(PACK)
    await rig.store.put(PACK, b"x")
    rig.below.errors.append(missing)
    await rig.fails(SEGMENT)
    assert not rig.governor.may_ask()
    assert rig.governor.may_ask("get")
    assert await rig.store.get(PACK) == b"x"
    assert [info.name async for info in rig.store.scan("")] == [PACK]
    assert not rig.governor.may_ask()


async def test_what_speaks_about_objects_says_that_the_service_works() -> None:
    rig = Rig()
    rig.below.errors.extend([DOWN] * (FAILURES_BEFORE_OPEN - 1))
    for _ in range(FAILURES_BEFORE_OPEN - 1):
        await rig.fails()
    with pytest.raises(BlobNotFound):
        await rig.store.get(PACK)
    rig.below.errors.append(DOWN)
    await rig.fails()
    assert rig.governor.circuit.state == "closed"


async def test_bulk_waits_for_its_place_and_urgent_requests_do_not() -> None:
    rig = Rig(limit=2)
    rig.below.free.clear()
    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(rig.store.put(BlobName(f"d/x/p/{number}"), b"x"))
        await asyncio.sleep(0.01)
        assert len(rig.below.asked) == 2
        tasks.create_task(rig.store.put(SEGMENT, b"x"))
        await asyncio.sleep(0.01)
        assert rig.below.asked[2:] == [SEGMENT]
        rig.below.free.set()
    assert len(rig.below.asked) == 6


async def test_failures_of_what_began_before_it_opened_say_nothing_new() -> None:
    rig = Rig()
    rig.below.free.clear()
    rig.below.errors.extend([StorageThrottled("slow", retry_after_seconds=10)] * 4)
    async with asyncio.TaskGroup() as tasks:
        puts = [tasks.create_task(rig.fails()) for _ in range(4)]
        await asyncio.sleep(0.01)
        rig.below.free.set()
    assert all(put.done() for put in puts)
    assert rig.governor.circuit.waits == 1
    assert rig.governor.window == 2  # halved once


async def test_a_scan_may_do_other_things_between_two_names() -> None:
    rig = Rig()
    for number in range(4):
        await rig.store.put(BlobName(f"d/x/p/{number}"), b"x")
    rig.below.errors.append(CredentialExpired("old", place="p"))
    await rig.fails(SEGMENT)
    rig.clock.seconds = 1000
    seen = 0
    async for info in rig.store.scan(""):  # the probe
        assert await rig.store.get(info.name) == b"x"
        seen += 1
    assert seen == 4


@pytest.mark.parametrize(
    ("error", "put", "get"),
    [
        (StorageThrottled("x"), "throttled", "throttled"),
        (IdentityUnavailable("x", endpoint="e"), "credential", "credential"),
        (ClockSkewed("x", place="p"), "credential", "credential"),
        (TlsUntrusted("x", endpoint="e"), "tls", "tls"),
        (ProxyRefused("x", proxy="p"), "proxy", "proxy"),
        (ContainerMissing("x", name="c"), "container", "container"),
        (DOWN, "unreachable", "unreachable"),
        (RightMissing("x", doing="put"), "right", None),
        (BlobNotFound("x", name="n"), None, None),
    ],
)
async def test_each_error_has_its_cause(error: StreamdError, put: str, get: str) -> None:
    assert (cause_of(error, "put"), cause_of(error, "get")) == (put, get)
