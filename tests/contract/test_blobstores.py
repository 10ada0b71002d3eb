"""Every store and every wrapper keeps the BlobStore contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from azurite import Azurite, azurite  # noqa: F401 - a fixture
from contract.blobstore_suite import BlobStoreContract
from stores import FaultyBlobStore, RecordingBlobStore

from streamd.effects import SystemClock, SystemEntropy
from streamd.policy.backoff import Backoff
from streamd.storage.layered import LayeredBlobStore
from streamd.storage.local import LocalBlobStore
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.metered import MeteredBlobStore
from streamd.storage.port import BlobStore
from streamd.storage.retrying import RetryingBlobStore

CLOCK = SystemClock()


def memory() -> BlobStore:
    return MemoryBlobStore(CLOCK)


class TestMemoryBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return memory()


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LocalBlobStore(tmp_path)


class TestLayeredBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LayeredBlobStore(LocalBlobStore(tmp_path), memory())


class TestRetryingBlobStoreOverABadLink(BlobStoreContract):
    @pytest.fixture(params=range(3))
    def store(self, request: pytest.FixtureRequest) -> BlobStore:
        faulty = FaultyBlobStore(memory(), seed=request.param, delay_seconds_max=0.0001)
        backoff = Backoff(base_seconds=0.0001, cap_seconds=0.001)
        return RetryingBlobStore(faulty, backoff, CLOCK, SystemEntropy())


class TestMeteredBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        class Deaf:
            def observed(self, *_: object) -> None:
                pass

        return MeteredBlobStore(memory(), Deaf(), CLOCK)


class TestRecordingBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return RecordingBlobStore(memory())


@pytest.mark.azurite
class TestAzureBlobStore(BlobStoreContract):
    @pytest_asyncio.fixture
    async def store(self, azurite: Azurite) -> AsyncIterator[BlobStore]:
        from streamd.storage.azure import AzureBlobStore

        store = AzureBlobStore(azurite.access(prefix="some/prefix"))
        await store.ensure_container()
        yield store
        await store.aclose()
