"""What becomes of a bad link, a bad answer and a bad credential, against Azurite."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from azurite import ACCOUNT, KEY, Azurite, azurite, require_azurite  # noqa: F401 - a fixture
from fault_proxy import FaultProxy

from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    ConfigInvalid,
    ContainerMissing,
    CredentialRejected,
    StorageRefused,
    StorageThrottled,
    StreamdError,
    VaultUnreachable,
)
from streamd.policy.backoff import Backoff
from streamd.storage import azure as adapter
from streamd.storage import azure_listing
from streamd.storage.azure import AzureBlobStore
from streamd.storage.azure_access import AzureAccess
from streamd.storage.port import BlobName
from streamd.storage.retrying import RetryingBlobStore

pytestmark = [pytest.mark.azurite, pytest.mark.asyncio]
A, B = BlobName("p/aa/1"), BlobName("p/bb/2")
MEBIBYTE = 1 << 20


@pytest_asyncio.fixture
async def proxy(azurite: Azurite) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(f"http://127.0.0.1:{azurite.port}") as proxy:
        yield proxy


@pytest.fixture
def access(azurite: Azurite, proxy: FaultProxy) -> AzureAccess:
    direct = azurite.access(prefix="some/prefix")
    return replace(direct, url=direct.url.replace(str(azurite.port), str(proxy.port)))


@pytest_asyncio.fixture
async def store(access: AzureAccess, proxy: FaultProxy) -> AsyncIterator[AzureBlobStore]:
    store = AzureBlobStore(access)
    await store.ensure_container()
    proxy.seen.clear()
    yield store
    await store.aclose()


async def _operations(store: AzureBlobStore) -> list[StreamdError]:
    """Return what each operation fails with."""
    errors = []
    for operation in (store.put(A, b"x"), store.get(A), _names(store), store.delete(A)):
        try:
            await operation
        except StreamdError as error:
            errors.append(error)
    return errors


async def _names(store: AzureBlobStore) -> list[str]:
    return [info.name async for info in store.scan("")]


# -- requests ----------------------------------------------------------------------------------


async def test_an_object_of_any_size_is_one_create_only_request(
    store: AzureBlobStore, proxy: FaultProxy
) -> None:
    content = bytes(range(256)) * (80 * MEBIBYTE // 256)
    await store.put(A, content)
    await store.put(B, b"small")
    assert [seen.method for seen in proxy.seen] == ["PUT", "PUT"]
    for seen, size in zip(proxy.seen, (len(content), 5), strict=True):
        assert seen.headers["If-None-Match"] == "*"
        assert seen.headers["Content-Length"] == str(size)
        assert "Transfer-Encoding" not in seen.headers
        assert "comp=" not in seen.path_qs
    assert "/some/prefix/p/aa/1" in proxy.seen[0].path_qs
    proxy.seen.clear()
    assert await store.get(A, offset=5, size=70 * MEBIBYTE) == content[5 : 5 + 70 * MEBIBYTE]
    assert len(proxy.seen) == 1


async def test_a_listing_of_many_pages_is_whole(
    store: AzureBlobStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_listing, "PAGE", 7)
    names = [BlobName(f"p/{n:02}") for n in range(23)]
    for name in names:
        await store.put(name, b"x")
    proxy.seen.clear()
    assert await _names(store) == names
    assert len(proxy.seen) == 4


async def test_everything_goes_through_a_configured_proxy(
    azurite: Azurite, proxy: FaultProxy
) -> None:
    store = AzureBlobStore(replace(azurite.access(), proxy=proxy.url))
    await store.ensure_container()
    await store.put(A, b"x")
    assert await store.get(A) == b"x"
    assert [seen.method for seen in proxy.seen] == ["GET", "PUT", "PUT", "GET"]
    await store.aclose()


# -- a bad link --------------------------------------------------------------------------------


async def test_a_lost_answer_is_recognised_as_our_own_object(
    store: AzureBlobStore, proxy: FaultProxy
) -> None:
    large = bytes(MEBIBYTE)
    proxy.faults = ["reset-after"]
    with pytest.raises(VaultUnreachable) as caught:
        await store.put(A, large)
    assert str(proxy.port) in caught.value.advice()
    await store.put(A, large)
    assert [seen.method for seen in proxy.seen] == ["PUT", "PUT", "HEAD"]
    with pytest.raises(BlobConflict):
        await store.put(A, large[:-1] + b"1")
    assert await store.get(A) == large
    proxy.faults = ["reset-after"]
    await store.put(B, b"small")  # sent again over another connection, and recognised
    assert await store.get(B) == b"small"


async def test_without_a_stored_checksum_the_bytes_are_compared(
    store: AzureBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings:
        content_md5 = None

    class Found:
        size = 7
        content_settings = Settings()

    async def properties(_: BlobName) -> Found:
        return Found()

    await store.put(A, b"content")
    monkeypatch.setattr(store, "_properties", properties)
    await store.put(A, b"content")
    with pytest.raises(BlobConflict):
        await store.put(A, b"Content")


@pytest.mark.parametrize("fault", ["reset-before", "html", 502, 404])
async def test_an_answer_that_is_not_the_services_means_unreachable(
    store: AzureBlobStore, proxy: FaultProxy, fault
) -> None:
    proxy.faults = [
        web.Response(status=fault) if isinstance(fault, int) else fault for _ in range(8)
    ]
    errors = await _operations(store)
    assert [type(error) for error in errors] == [VaultUnreachable] * 4
    # Each was asked once: retries are not the adapter's. A broken connection is tried once more.
    assert len(proxy.seen) == (8 if fault == "reset-before" else 4)


async def test_a_truncated_answer_is_no_content(store: AzureBlobStore, proxy: FaultProxy) -> None:
    content = bytes(range(256)) * 4096
    await store.put(A, content)
    proxy.faults = ["truncate"] * 3  # the SDK insists on trying a body three times
    with pytest.raises(VaultUnreachable):
        await store.get(A)
    assert await store.get(A) == content


async def test_throttling_says_how_long_to_wait(store: AzureBlobStore, proxy: FaultProxy) -> None:
    for status in (429, 503):
        proxy.faults = [web.Response(status=status, headers={"Retry-After": "7"})]
        with pytest.raises(StorageThrottled) as caught:
            await store.put(A, b"x")
        assert caught.value.retry_after_seconds == 7


async def test_silence_ends_at_the_deadline(
    store: AzureBlobStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(adapter, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    proxy.faults = ["silence"] * 4
    began = asyncio.get_running_loop().time()
    assert [type(error) for error in await _operations(store)] == [VaultUnreachable] * 4
    assert asyncio.get_running_loop().time() - began < 3


async def test_a_cancelled_put_ends_at_once_and_may_be_repeated(
    store: AzureBlobStore, proxy: FaultProxy
) -> None:
    proxy.faults = ["silence"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await store.put(A, bytes(4 * MEBIBYTE))
    await store.put(A, bytes(4 * MEBIBYTE))


async def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    require_azurite()
    with Azurite(location=tmp_path) as emulator:
        plain = AzureBlobStore(emulator.access("cont"))
        await plain.ensure_container()
        backoff = Backoff(base_seconds=0.05, cap_seconds=0.2)
        store = RetryingBlobStore(plain, backoff, SystemClock(), SystemEntropy())
        await store.put(A, b"before")
        emulator.stop()
        with pytest.raises(VaultUnreachable):
            await plain.put(B, b"meanwhile")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(store.put(B, b"meanwhile"))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await asyncio.to_thread(emulator.start)
        assert await store.get(A) == b"before"
        assert await store.get(B) == b"meanwhile"
        await store.aclose()


# -- containers and credentials ----------------------------------------------------------------


async def test_a_missing_container_is_said_so_and_never_made_by_the_way(azurite: Azurite) -> None:
    access = replace(azurite.access("gone"), create_container=False)
    store = AzureBlobStore(access)
    assert [type(error) for error in await _operations(store)] == [ContainerMissing] * 4
    with pytest.raises(ContainerMissing):
        await store.ensure_container()
    await store.renew(replace(access, create_container=True))
    await store.ensure_container()
    await store.ensure_container()
    await store.put(A, b"x")
    await store.renew(access)
    await store.ensure_container()
    assert await store.get(A) == b"x"
    await store.aclose()


async def test_a_wrong_key_is_refused_without_telling_it(
    store: AzureBlobStore, access: AzureAccess
) -> None:
    wrong = KEY.replace("Eby8", "AAAA")
    await store.renew(replace(access, secret=wrong))
    errors = await _operations(store)
    assert [type(error) for error in errors] == [CredentialRejected] * 4
    assert not any(wrong in f"{error} {error.facts} {error.advice()}" for error in errors)
    await store.renew(access)
    await store.put(A, b"again")


async def test_a_write_only_sas_can_do_that_and_no_more(
    store: AzureBlobStore, access: AzureAccess
) -> None:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    await store.put(A, b"x")
    token = generate_container_sas(
        ACCOUNT,
        access.url.split("/")[4],
        account_key=KEY,
        permission=ContainerSasPermissions(read=True, create=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    limited = AzureBlobStore(replace(access, auth="sas", secret=f"?{token}\n"))
    await limited.put(B, b"y")
    assert await _names(limited) == [A, B]
    await limited.put(A, b"x")  # our own again
    with pytest.raises(BlobConflict):
        await limited.put(A, b"other")
    with pytest.raises(StorageRefused) as caught:
        await limited.delete(A)
    assert "sig=" not in str(caught.value)
    await limited.aclose()


async def test_a_connection_string_serves_as_a_key(
    store: AzureBlobStore, access: AzureAccess
) -> None:
    text = f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};EndpointSuffix=x"
    await store.renew(replace(access, auth="connection-string", secret=text))
    await store.put(A, b"x")
    with pytest.raises(BlobNotFound):
        await store.get(B)


@pytest.mark.parametrize("auth", ["sas", "shared-key", "connection-string", "service-principal"])
async def test_a_missing_secret_is_a_matter_of_configuration(auth) -> None:
    store = AzureBlobStore(AzureAccess(url="https://acc.blob.core.windows.net/cont", auth=auth))
    with pytest.raises(ConfigInvalid):
        await store.get(A)
    await store.aclose()
