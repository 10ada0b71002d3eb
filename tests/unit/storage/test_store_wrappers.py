"""Layers, retries, metering and limits do what they promise, in virtual time."""

import asyncio
from dataclasses import dataclass, field

import pytest
from simloop import simulate
from stores import Call, Crash, CrashingBlobStore, FaultyBlobStore, RecordingBlobStore

from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    StorageRefused,
    StorageThrottled,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.policy.backoff import Backoff
from streamd.storage.layered import LayeredBlobStore
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.metered import MeteredBlobStore
from streamd.storage.port import BlobName
from streamd.storage.rate import ByteRate
from streamd.storage.retrying import RetryingBlobStore

A, B, C = BlobName("p/a"), BlobName("p/b"), BlobName("p/c")
MEBIBYTE = 1 << 20


class LoopClock:
    """The virtual time of the loop that runs."""

    def now_us(self) -> int:
        return int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class CountingEntropy:
    """Tokens that spread over the whole range."""

    def __init__(self) -> None:
        self._n = 0

    def token(self, size: int) -> bytes:
        self._n += 1
        return ((self._n * 0x9E3779B97F4A7C15) % (1 << 64)).to_bytes(8, "big")[:size]


CLOCK = LoopClock()


def memory() -> MemoryBlobStore:
    return MemoryBlobStore(CLOCK)


# -- layers ------------------------------------------------------------------------------------


def test_reading_prefers_the_local_layer_and_counts_the_bytes_of_each() -> None:
    async def scenario() -> None:
        remote = RecordingBlobStore(memory())
        local = memory()
        store = LayeredBlobStore(local, remote)
        await store.put(A, b"12345")
        await remote.disk.put(B, b"678")
        assert await store.get(A, offset=1, size=2) == b"23"
        assert remote.calls == []
        assert (store.local_bytes_read, store.remote_bytes_read) == (2, 0)
        assert await store.get(B) == b"678"
        assert (store.local_bytes_read, store.remote_bytes_read) == (2, 3)
        with pytest.raises(BlobNotFound):
            await store.get(C)
        assert remote.names("put") == []

    simulate(scenario())


def test_a_damaged_local_object_is_read_from_the_vault() -> None:
    async def scenario() -> None:
        local, remote = memory(), memory()
        await local.put(A, b"123")  # cut short
        await remote.put(A, b"12345")
        store = LayeredBlobStore(local, remote)
        assert await store.get(A, offset=2, size=3) == b"345"
        await local.put(B, b"123")
        with pytest.raises(VaultDamaged):  # and not "there is no such object"
            await store.get(B, offset=2, size=3)

    simulate(scenario())


def test_a_scan_is_the_union_in_order() -> None:
    async def scenario() -> None:
        local, remote = memory(), memory()
        for name in (A, C):
            await local.put(name, b"1")
        for name in (A, B, BlobName("p/d")):
            await remote.put(name, b"22")
        store = LayeredBlobStore(local, remote)
        found = [(info.name, info.size_bytes) async for info in store.scan("p/")]
        assert found == [("p/a", 1), ("p/b", 2), ("p/c", 1), ("p/d", 2)]
        await store.delete(A)
        assert [info.name async for info in store.scan("")] == ["p/b", "p/c", "p/d"]

    simulate(scenario())


# -- retries -----------------------------------------------------------------------------------


def retrying(store: object, **options: float) -> RetryingBlobStore:
    return RetryingBlobStore(store, Backoff(), CLOCK, CountingEntropy(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_link_loses_and_repeats_nothing(seed: int) -> None:
    async def scenario() -> None:
        faulty = FaultyBlobStore(memory(), seed=seed, rate=0.5, delay_seconds_max=1)
        store = retrying(faulty)
        names = [BlobName(f"p/{n:03}") for n in range(50)]
        for name in names:
            await store.put(name, name.encode())
        assert [info.name async for info in store.scan("")] == names
        for name in names:
            assert await store.get(name) == name.encode()
        assert faulty.faults > 20
        with pytest.raises(BlobConflict):
            await store.put(names[0], b"other")

    simulate(scenario())


def test_an_outage_is_asked_less_and_less_often_but_noticed_to_end() -> None:
    async def scenario() -> None:
        faulty = FaultyBlobStore(memory(), down=True, rate=0)
        store = retrying(faulty)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.put(A, b"x"))
            await asyncio.sleep(72 * 3600)
            assert faulty.faults < 72 * 3600 / 20  # 30 s apart in the mean
            faulty.down = False
        assert CLOCK.monotonic() < 72 * 3600 + 61
        assert await store.get(A) == b"x"

    simulate(scenario())


def test_patience_ends_where_it_is_limited() -> None:
    async def scenario() -> None:
        store = retrying(FaultyBlobStore(memory(), down=True), give_up_after_seconds=30)
        with pytest.raises(VaultUnreachable):
            await store.get(A)
        assert CLOCK.monotonic() <= 30

    simulate(scenario())


def test_the_service_says_how_long_to_wait() -> None:
    async def scenario() -> None:
        asked: list[float] = []

        def throttle(_: Call) -> None:
            asked.append(CLOCK.monotonic())
            if len(asked) == 1:
                raise StorageThrottled("slow down", retry_after_seconds=100)

        await retrying(RecordingBlobStore(memory(), before=throttle)).put(A, b"x")
        assert 100 <= asked[1] <= 100.5

    simulate(scenario())


def test_what_will_not_pass_by_itself_is_not_repeated() -> None:
    async def scenario() -> None:
        def refuse(_: Call) -> None:
            raise StorageRefused("no")

        recording = RecordingBlobStore(memory(), before=refuse)
        with pytest.raises(StorageRefused):
            await retrying(recording).put(A, b"x")
        assert len(recording.calls) == 1

    simulate(scenario())


def test_a_wait_ends_at_once_when_cancelled() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await retrying(FaultyBlobStore(memory(), down=True)).put(A, b"x")
        assert CLOCK.monotonic() == 100

    simulate(scenario())


# -- metering ----------------------------------------------------------------------------------


@dataclass
class Notes:
    rows: list[tuple[str, str, float, int, int]] = field(default_factory=list)

    def observed(
        self, operation: str, code: str, seconds: float, bytes_sent: int, bytes_received: int
    ) -> None:
        self.rows.append((operation, code, round(seconds, 3), bytes_sent, bytes_received))


def test_every_operation_is_observed_once_with_its_end() -> None:
    class Slow(RecordingBlobStore):
        async def put(self, name, data) -> None:
            await asyncio.sleep(2)
            await super().put(name, data)

    async def scenario() -> None:
        notes = Notes()
        store = MeteredBlobStore(Slow(memory()), notes, CLOCK)
        await store.put(A, memoryview(b"12345"))
        await store.get(A, offset=1)
        with pytest.raises(BlobNotFound):
            await store.get(B)
        async for _ in store.scan(""):
            await asyncio.sleep(60)
        await store.delete(A)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await store.put(B, b"x")
        assert notes.rows == [
            ("put", "ok", 2.0, 5, 0),
            ("get", "ok", 0.0, 0, 4),
            ("get", "blob-not-found", 0.0, 0, 0),
            ("scan", "ok", 0.0, 0, 0),
            ("delete", "ok", 0.0, 0, 0),
            ("put", "cancelled", 1.0, 0, 0),
        ]

    simulate(scenario())


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("portion", [1, 1000, 262_144])
def test_a_rate_is_exact_over_ten_seconds_whatever_the_portions(portion: int) -> None:
    async def scenario() -> None:
        rate = ByteRate(CLOCK, portion * 100)
        await asyncio.sleep(1000)  # idle time is not saved up
        began, taken = CLOCK.monotonic(), 0
        while CLOCK.monotonic() < began + 10:
            await rate.take(portion)
            taken += portion
        assert taken == pytest.approx(portion * 1000, rel=0.05)

    simulate(scenario())


def test_several_takers_share_one_rate_in_order() -> None:
    async def scenario() -> None:
        rate, order = ByteRate(CLOCK, 1000), []

        async def taker(number: int) -> None:
            await rate.take(1000)
            order.append((number, round(CLOCK.monotonic())))

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(taker(number))
        assert order == [(n, n) for n in range(5)]

    simulate(scenario())


def test_a_change_of_the_rate_reaches_those_who_wait() -> None:
    async def scenario() -> None:
        rate = ByteRate(CLOCK, 1)
        await rate.take(1_000_000)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(rate.take(1))
            await asyncio.sleep(10)
            rate.limit(0)
            await asyncio.sleep(86_400)
            assert not waiting.done()  # paused
            rate.limit(100_000)
            await asyncio.sleep(9)
            assert not waiting.done()
            await asyncio.sleep(1)
            assert waiting.done()
        rate.limit(None)
        await rate.take(1 << 40)
        await rate.take(1 << 40)

    simulate(scenario())


def test_a_cancelled_taker_does_not_hold_up_the_next() -> None:
    async def scenario() -> None:
        rate = ByteRate(CLOCK, 1000)
        await rate.take(10_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await rate.take(1_000_000)
        await rate.take(1)
        assert CLOCK.monotonic() == pytest.approx(10)

    simulate(scenario())


def test_late_wake_ups_are_made_good() -> None:
    async def scenario() -> None:
        rate, began, taken = ByteRate(CLOCK, 1_000_000), CLOCK.monotonic(), 0
        while CLOCK.monotonic() < began + 10:
            await rate.take(100_000)
            await asyncio.sleep(0.01)  # the machine is busy elsewhere
            taken += 100_000
        assert taken == pytest.approx(10_000_000, rel=0.03)

    simulate(scenario())


# -- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lands", [False, True])
def test_a_crash_happens_at_the_very_write_and_nothing_follows(lands: bool) -> None:
    disk = MemoryBlobStore(LoopClock())

    async def scenario() -> None:
        store = CrashingBlobStore(disk, crash_at=1, lands=lands)
        try:
            for name in (A, B, C):
                await store.put(name, b"x")
        finally:
            await store.delete(A)

    with pytest.raises(Crash):
        simulate(scenario())

    async def look() -> list[str]:
        return [info.name async for info in disk.scan("")]

    assert simulate(look()) == ([A, B] if lands else [A])
