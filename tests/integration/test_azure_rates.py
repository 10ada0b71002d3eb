"""A limit holds within 5 % over a few seconds, over the real SDK, in both directions."""

import asyncio
import time

import pytest
from azurite import azurite  # noqa: F401 - a fixture

from streamd.effects import SystemClock
from streamd.storage.azure import AzureBlobStore
from streamd.storage.port import BlobName
from streamd.storage.rate import ByteRate

pytestmark = pytest.mark.azurite
RATE = 1 << 20
SIZE = 5 << 20


def _seconds(azurite, work, **rates) -> float:
    """Return how long `work` takes with a store that is connected already."""

    async def timed() -> float:
        store = AzureBlobStore(azurite.access(), **rates)
        try:
            await store.ensure_container()
            began = time.monotonic()
            await work(store)
            return time.monotonic() - began
        finally:
            await store.aclose()

    return asyncio.run(timed())


def test_uploads_keep_to_the_rate_however_many_there_are(azurite) -> None:
    async def upload(store) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(store.put(BlobName(f"p/{number}"), bytes(SIZE)))

    taken = _seconds(azurite, upload, sending=ByteRate(SystemClock(), RATE))
    assert taken == pytest.approx(2 * SIZE / RATE, rel=0.05)


def test_a_slow_rate_does_not_run_into_the_deadline_of_the_request(azurite, monkeypatch) -> None:
    monkeypatch.setattr("streamd.storage.azure._DEADLINE_SECONDS", 2.0)
    monkeypatch.setattr("streamd.storage.azure._SLOWEST_BYTES_PER_SECOND", 1 << 30)

    async def there_and_back(store) -> None:
        await store.put(BlobName("p/x"), bytes(SIZE))
        assert await store.get(BlobName("p/x")) == bytes(SIZE)

    rate = ByteRate(SystemClock(), SIZE // 4)
    taken = _seconds(azurite, there_and_back, sending=rate, receiving=rate)
    assert taken == pytest.approx(8, rel=0.06)


def test_a_limit_changed_in_the_middle_of_a_body_counts_at_once(azurite) -> None:
    rate = ByteRate(SystemClock(), 64 << 10)

    async def upload(store) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(store.put(BlobName("p/x"), bytes(SIZE)))
            await asyncio.sleep(1)
            rate.limit(None)

    assert _seconds(azurite, upload, sending=rate) < 5
