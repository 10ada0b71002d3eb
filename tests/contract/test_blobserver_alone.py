"""What our Blob server can do and Azurite cannot: versions, WORM, archives, tokens, faults."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import trustme
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import (
    ContainerSasPermissions,
    ImmutabilityPolicy,
    RehydratePriority,
    StandardBlobTier,
    generate_container_sas,
)
from azure.storage.blob.aio import BlobServiceClient, ContainerClient
from blobserver.crc64 import crc64
from blobserver.entra import Entra
from blobserver.faults import Fault, Kind, operation
from blobserver.records import EMULATOR_KEY, Container
from blobserver.server import BlobServer
from test_blob_services import OPTIONS, content, refusal

pytestmark = pytest.mark.asyncio
ACCOUNT = "devstoreaccount1"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[BlobServer]:
    async with BlobServer() as server:
        yield server


def client(server: BlobServer, credential: Any = None) -> ContainerClient:
    key = {"account_name": ACCOUNT, "account_key": EMULATOR_KEY}
    return ContainerClient(server.account_url, "cont", credential or key, **OPTIONS)


@pytest_asyncio.fixture
async def container(server: BlobServer) -> AsyncIterator[ContainerClient]:
    async with client(server) as container:
        await container.create_container()
        yield container


def inside(server: BlobServer) -> Container:
    return server.service.account.containers["cont"]


# -- versions, soft delete, locks --------------------------------------------------------------


async def test_every_write_is_a_version_and_none_goes_by_overwriting(
    server: BlobServer, container: ContainerClient
) -> None:
    server.service.account.versioning = True
    blob = container.get_blob_client("v")
    ids = [(await blob.upload_blob(text, overwrite=True))["version_id"] for text in (b"1", b"22")]
    assert len(set(ids)) == 2
    assert server.service.account.overwritten == 1
    assert await content(blob) == b"22"
    assert await content(container.get_blob_client("v", version_id=ids[0])) == b"1"
    await blob.delete_blob()
    assert await refusal(blob.download_blob()) == (404, "BlobNotFound")
    rows = [row async for row in container.list_blobs(include=["versions"])]
    assert [(row.version_id, row.size, row.is_current_version) for row in rows] == [
        (ids[0], 1, None),
        (ids[1], 2, None),
    ]
    source = container.get_blob_client("v", version_id=ids[0])
    await blob.start_copy_from_url(f"{blob.url}?versionid={ids[0]}")
    assert await content(blob) == await content(source) == b"1"


async def test_what_is_soft_deleted_comes_back_until_its_days_are_over(
    server: BlobServer, container: ContainerClient
) -> None:
    server.service.account.soft_delete = timedelta(days=7)
    blob = container.get_blob_client("s")
    await blob.upload_blob(b"precious")
    await blob.delete_blob()
    rows = [row async for row in container.list_blobs(include=["deleted"])]
    assert [(row.name, row.deleted) for row in rows] == [("s", True)]
    assert [row async for row in container.list_blobs()] == []
    await blob.undelete_blob()
    assert await content(blob) == b"precious"
    await blob.delete_blob()
    server.service.clock.advance(days=8)
    await blob.undelete_blob()
    assert await refusal(blob.download_blob()) == (404, "BlobNotFound")


async def test_a_locked_version_can_be_extended_and_never_deleted_before(
    server: BlobServer, container: ContainerClient
) -> None:
    account = server.service.account
    account.versioning = True
    inside(server).has_version_worm = True
    inside(server).default_lock = (timedelta(days=10), "locked")
    blob = container.get_blob_client("w")
    ident = (await blob.upload_blob(b"kept"))["version_id"]
    found = await blob.get_blob_properties()
    assert found.immutability_policy.policy_mode == "locked"
    until = found.immutability_policy.expiry_time
    version = container.get_blob_client("w", version_id=ident)
    shorter = ImmutabilityPolicy(expiry_time=until - timedelta(days=1), policy_mode="Locked")
    assert await refusal(version.set_immutability_policy(shorter)) == (
        409,
        "BlobImmutableDueToPolicy",
    )
    assert (await refusal(version.delete_immutability_policy()))[0] == 409
    longer = ImmutabilityPolicy(expiry_time=until + timedelta(days=5), policy_mode="Locked")
    await version.set_immutability_policy(longer)
    await blob.delete_blob()  # only hides it
    assert (await refusal(version.delete_blob())) == (409, "BlobImmutableDueToPolicy")
    assert await content(version) == b"kept"
    server.service.clock.advance(days=16)
    await version.delete_blob()
    assert (await refusal(version.download_blob()))[0] == 404


async def test_a_legal_hold_outlives_the_period(
    server: BlobServer, container: ContainerClient
) -> None:
    server.service.account.versioning = True
    inside(server).has_version_worm = True
    blob = container.get_blob_client("h")
    ident = (await blob.upload_blob(b"held"))["version_id"]
    await blob.set_legal_hold(True)
    assert (await blob.get_blob_properties()).has_legal_hold
    await blob.delete_blob()
    version = container.get_blob_client("h", version_id=ident)
    server.service.clock.advance(days=3650)
    assert await refusal(version.delete_blob()) == (409, "BlobImmutableDueToLegalHold")
    await version.set_legal_hold(False)
    await version.delete_blob()
    assert inside(server).blobs == {}


async def test_coming_back_from_the_archive_takes_hours(
    server: BlobServer, container: ContainerClient
) -> None:
    for name in ("slow", "fast"):
        await container.upload_blob(name, b"x", standard_blob_tier=StandardBlobTier.ARCHIVE)
    slow, fast = (container.get_blob_client(name) for name in ("slow", "fast"))
    await slow.set_standard_blob_tier(StandardBlobTier.HOT)
    await fast.set_standard_blob_tier(
        StandardBlobTier.COOL, rehydrate_priority=RehydratePriority.high
    )
    assert (await slow.get_blob_properties()).archive_status == "rehydrate-pending-to-hot"
    assert await refusal(slow.download_blob()) == (409, "BlobBeingRehydrated")
    server.service.clock.advance(hours=1, seconds=1)
    assert await content(fast) == b"x"
    assert (await fast.get_blob_properties()).blob_tier == "Cool"
    assert await refusal(slow.download_blob()) == (409, "BlobBeingRehydrated")
    server.service.clock.advance(hours=14)
    assert await content(slow) == b"x"


# -- who is asking -----------------------------------------------------------------------------


class Bearer:
    """A credential that holds one token."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self.token, int(time.time()) + 3600)

    async def close(self) -> None:
        pass


@pytest_asyncio.fixture
async def secure(tmp_path: Any) -> AsyncIterator[tuple[BlobServer, str]]:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with BlobServer(tls=tls) as server:
        yield server, str(tmp_path / "ca.pem")


async def test_tokens_have_an_audience_an_end_and_roles(secure: tuple[BlobServer, str]) -> None:
    server, ca_file = secure
    server.service.account.roles = {"reader": "rl"}
    good, late = Entra(), Entra(lifetime_seconds=-5)

    def as_one(entra: Entra, who: str) -> ContainerClient:
        credential = Bearer(entra.token(who))
        return ContainerClient(
            server.account_url, "cont", credential, connection_verify=ca_file, **OPTIONS
        )

    async with as_one(good, "owner") as owner:
        await owner.create_container()
        await owner.upload_blob("x", b"1")
    async with as_one(good, "reader") as reader:
        assert await content(reader.get_blob_client("x")) == b"1"
        assert await refusal(reader.upload_blob("y", b"1")) == (
            403,
            "AuthorizationPermissionMismatch",
        )
    async with as_one(late, "owner") as expired:
        assert (await refusal(expired.upload_blob("y", b"1")))[0] == 401


async def test_a_delegated_signature_works_until_it_is_revoked(
    secure: tuple[BlobServer, str],
) -> None:
    server, ca_file = secure
    credential = Bearer(Entra().token("issuer"))
    options = {"connection_verify": ca_file, **OPTIONS}
    async with BlobServiceClient(server.account_url, credential, **options) as service:
        await service.create_container("cont")
        now = datetime.now(UTC)
        key = await service.get_user_delegation_key(
            now - timedelta(minutes=1), now + timedelta(days=1)
        )
    token = generate_container_sas(
        ACCOUNT,
        "cont",
        user_delegation_key=key,
        permission=ContainerSasPermissions.from_string("rcl"),
        expiry=now + timedelta(hours=1),
    )
    async with ContainerClient(server.account_url, "cont", token, **options) as limited:
        await limited.upload_blob("x", b"1")
        assert (await refusal(limited.delete_blob("x")))[0] == 403
        server.service.account.revoked_before = now
        assert await refusal(limited.upload_blob("y", b"1")) == (403, "AuthenticationFailed")


async def test_a_regenerated_key_and_a_closed_firewall_are_different_refusals(
    server: BlobServer, container: ContainerClient
) -> None:
    server.service.account.firewall = lambda _: False
    assert await refusal(container.upload_blob("x", b"1")) == (403, "AuthorizationFailure")
    server.service.account.firewall = lambda _: True
    new = server.service.account.replace_keys()
    assert await refusal(container.upload_blob("x", b"1")) == (403, "AuthenticationFailed")
    key = {"account_name": ACCOUNT, "account_key": base64.b64encode(new).decode()}
    async with client(server, key) as renewed:
        await renewed.upload_blob("x", b"1")


async def test_a_clock_that_is_off_makes_signatures_void(
    server: BlobServer, container: ContainerClient
) -> None:
    server.service.clock.offset = timedelta(minutes=20)
    assert await refusal(container.upload_blob("x", b"1")) == (403, "AuthenticationFailed")


async def test_a_checksum_of_the_service_is_checked(
    server: BlobServer, container: ContainerClient
) -> None:
    good = base64.b64encode(crc64(b"content")).decode()
    answer = await container.upload_blob("x", b"content", headers={"x-ms-content-crc64": good})
    assert answer is not None
    refused = await refusal(
        container.upload_blob("y", b"contend", headers={"x-ms-content-crc64": good}, overwrite=True)
    )
    assert refused == (400, "Crc64Mismatch")


async def test_the_checksum_is_crc64_nvme_by_its_published_check_value() -> None:
    assert int.from_bytes(crc64(b"123456789"), "little") == 0xAE8B14860A799888


# -- faults ------------------------------------------------------------------------------------

LOST: tuple[Kind, ...] = ("reset-before", "reset-during", "reset-after")


@pytest.mark.parametrize("kind", LOST)
async def test_a_broken_connection_breaks(
    server: BlobServer, container: ContainerClient, kind: Kind
) -> None:
    blob = container.get_blob_client("x")
    server.faults.add(Fault(kind, 2))  # aiohttp repeats once what met a kept connection
    with pytest.raises((AzureError, aiohttp.ClientError)):
        await blob.upload_blob(bytes(1 << 20), overwrite=True)
    assert ("x" in inside(server).blobs) is (kind == "reset-after")


async def test_answers_by_script_come_as_often_as_said(
    server: BlobServer, container: ContainerClient
) -> None:
    fault = Fault("status", 2, operation("put"), status=503, retry_after="7")
    server.faults.add(fault)
    for _ in range(2):
        with pytest.raises(HttpResponseError) as caught:
            await container.upload_blob("x", b"1")
        assert caught.value.response is not None
        assert caught.value.response.headers["Retry-After"] == "7"
    await container.upload_blob("x", b"1")
    assert server.requests["put"] == 3


async def test_a_late_commit_happens_after_the_error(
    server: BlobServer, container: ContainerClient
) -> None:
    server.faults.add(Fault("late-commit", seconds=0.2))
    assert (await refusal(container.upload_blob("x", b"1")))[0] == 500
    assert "x" not in inside(server).blobs
    await asyncio.sleep(0.4)
    assert inside(server).blobs["x"].current.content == b"1"


async def test_bad_bytes_and_bad_lists_are_made_as_told(
    server: BlobServer, container: ContainerClient
) -> None:
    for name in ("a", "b", "c", "d"):
        await container.upload_blob(name, name.encode() * 8)
    blob = container.get_blob_client("a")
    token = generate_container_sas(
        ACCOUNT,
        "cont",
        account_key=EMULATOR_KEY,
        permission=ContainerSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    async with aiohttp.ClientSession() as session:
        for kind, expected in (("corrupt", b"aaaa`aaa"), ("swap", b"bbbbbbbb"), ("short", b"aaaa")):
            server.faults.add(Fault(kind, 1, operation("get")))
            async with session.get(f"{blob.url}?{token}") as answer:
                assert await answer.read() == expected
        server.faults.add(Fault("truncate", 1, operation("get")))
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get(f"{blob.url}?{token}") as answer:
                await answer.read()

    async def names(kind: Kind) -> list[str]:
        server.faults.add(Fault(kind, 1, operation("list")))
        pages = container.list_blobs(results_per_page=2).by_page()
        found: list[str] = []
        async for page in pages:
            found += [row.name async for row in page]
        return found

    assert await names("duplicate-rows") == ["a", "a", "b", "b", "c", "d"]
    assert await names("missing-rows") == ["a", "c", "d"]
    assert await names("lost-marker") == ["a", "b"]


async def test_an_old_list_does_not_know_what_came_later(
    server: BlobServer, container: ContainerClient
) -> None:
    await container.upload_blob("a", b"1")
    server.faults.add(Fault("stale-list", None, operation("list")))
    for _ in range(2):
        assert [row.name async for row in container.list_blobs()] == ["a"]
        await container.upload_blob(f"later{_}", b"1")
    server.faults.clear()
    assert len([row async for row in container.list_blobs()]) == 3


async def test_a_bad_link_has_latency_and_bandwidth_and_may_be_silent(
    server: BlobServer, container: ContainerClient
) -> None:
    server.faults.add(Fault("latency", 1, seconds=0.3))
    began = time.monotonic()
    await container.upload_blob("a", b"1")
    assert time.monotonic() - began >= 0.3
    server.faults.add(Fault("bandwidth", 1, rate=1 << 20))
    began = time.monotonic()
    await container.upload_blob("b", bytes(512 << 10))
    assert time.monotonic() - began >= 0.4
    server.faults.add(Fault("blackhole", 1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await container.upload_blob("c", b"1")


async def test_all_requests_together_get_one_line(
    server: BlobServer, container: ContainerClient
) -> None:
    server.faults.add(Fault("line", None, rate=1 << 20))
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for name in "ab":
            tasks.create_task(_upload(container, name, bytes(512 << 10)))
    assert time.monotonic() - began >= 0.9


async def _upload(container: ContainerClient, name: str, data: bytes) -> None:
    await container.upload_blob(name, data)


async def test_an_outage_keeps_what_was_there(
    server: BlobServer, container: ContainerClient
) -> None:
    await container.upload_blob("a", b"1")
    await server.stop()
    with pytest.raises(AzureError):
        await container.upload_blob("b", b"1")
    await server.start()
    assert [row.name async for row in container.list_blobs()] == ["a"]
