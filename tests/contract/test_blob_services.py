"""Azurite and our own Blob server answer the official SDK alike: one suite, both services."""

import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobSasPermissions,
    ContainerSasPermissions,
    ContentSettings,
    ResourceTypes,
    StandardBlobTier,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ContainerClient
from azurite import ACCOUNT, KEY, Azurite, azurite, azurite_tls  # noqa: F401 - fixtures
from blobserver.server import BlobServer
from certificates import Authority, authority  # noqa: F401 - a fixture

pytestmark = pytest.mark.asyncio
OPTIONS: dict[str, Any] = {"retry_total": 0, "api_version": "2025-11-05"}


class Place(NamedTuple):
    """A new container in one of the services."""

    url: str
    container: ContainerClient
    is_ours: bool
    options: dict[str, Any]

    def with_sas(self, token: str) -> ContainerClient:
        return ContainerClient(self.url, self.container.container_name, token, **self.options)


SERVICES = [
    pytest.param("azurite", marks=pytest.mark.azurite),
    pytest.param("azurite-https", marks=pytest.mark.azurite),
    "blobserver",
    "blobserver-https",
]


@pytest_asyncio.fixture(params=SERVICES)
async def place(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Place]:
    kind, _, scheme = request.param.partition("-")
    options = OPTIONS | {"connection_verify": authority.ca_file} if scheme else OPTIONS
    async with BlobServer(tls=authority.server() if scheme else None) as server:
        url = server.account_url
        if kind == "azurite":
            emulator: Azurite = request.getfixturevalue("azurite_tls" if scheme else "azurite")
            url = emulator.account_url
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        async with ContainerClient(url, f"c{uuid4().hex}", credential, **options) as container:
            await container.create_container(metadata={"made": "here"})
            yield Place(url, container, kind == "blobserver", options)


async def refusal(doing: Any) -> tuple[int | None, str]:
    """Return how the service refused."""
    with pytest.raises(HttpResponseError) as caught:
        await doing
    assert caught.value.response is not None
    return caught.value.status_code, caught.value.response.headers.get("x-ms-error-code", "")


async def content(blob: BlobClient, **options: Any) -> bytes:
    found: bytes = await (await blob.download_blob(**options)).readall()
    return found


# -- blobs -------------------------------------------------------------------------------------


async def test_what_is_put_comes_back_with_its_properties(place: Place) -> None:
    blob = place.container.get_blob_client("a/b c%/ü.txt")
    settings = ContentSettings(content_type="text/plain", cache_control="no-store")
    put = await blob.upload_blob(b"hello", metadata={"who": "me"}, content_settings=settings)
    found = await blob.get_blob_properties()
    assert (found.size, found.metadata, found.etag) == (5, {"who": "me"}, put["etag"])
    assert found.content_settings.content_type == "text/plain"
    assert found.content_settings.cache_control == "no-store"
    assert bytes(found.content_settings.content_md5) == hashlib.md5(b"hello").digest()
    assert found.blob_type == "BlockBlob"
    assert abs(found.last_modified - datetime.now(UTC)) < timedelta(minutes=1)
    assert await content(blob) == b"hello"


async def test_an_empty_blob_is_a_blob(place: Place) -> None:
    blob = place.container.get_blob_client("empty")
    await blob.upload_blob(b"")
    assert (await blob.get_blob_properties()).size == 0
    assert await content(blob) == b""


async def test_a_create_only_put_of_a_taken_name_is_409(place: Place) -> None:
    blob = place.container.get_blob_client("once")
    await blob.upload_blob(b"first", overwrite=False)
    assert await refusal(blob.upload_blob(b"second", overwrite=False)) == (409, "BlobAlreadyExists")
    assert await content(blob) == b"first"


async def test_conditions_that_fail_are_412(place: Place) -> None:
    blob = place.container.get_blob_client("one")
    first = await blob.upload_blob(b"first")
    second = await blob.upload_blob(
        b"second", overwrite=True, etag=first["etag"], match_condition=MatchConditions.IfNotModified
    )
    refused = await refusal(
        blob.upload_blob(
            b"third",
            overwrite=True,
            etag=first["etag"],
            match_condition=MatchConditions.IfNotModified,
        )
    )
    assert refused == (412, "ConditionNotMet")
    refused = await refusal(
        blob.delete_blob(etag=first["etag"], match_condition=MatchConditions.IfNotModified)
    )
    assert refused == (412, "ConditionNotMet")
    status, _ = await refusal(
        blob.get_blob_properties(etag=second["etag"], match_condition=MatchConditions.IfModified)
    )
    assert status == 304


async def test_ranges_are_exact_and_end_with_the_blob(place: Place) -> None:
    blob = place.container.get_blob_client("range")
    await blob.upload_blob(b"0123456789")
    assert await content(blob, offset=2, length=3) == b"234"
    assert await content(blob, offset=7) == b"789"
    assert await content(blob, offset=8, length=10) == b"89"
    if place.is_ours:  # Azurite answers with nothing
        assert await refusal(blob.download_blob(offset=10, length=1)) == (416, "InvalidRange")
    assert await refusal(blob.download_blob(offset=11, length=1)) == (416, "InvalidRange")
    part = await blob.download_blob(offset=1, length=4, validate_content=True)
    assert await part.readall() == b"1234"


async def test_what_is_not_there_is_not_found(place: Place) -> None:
    blob = place.container.get_blob_client("absent")
    assert await refusal(blob.download_blob()) == (404, "BlobNotFound")
    assert await refusal(blob.delete_blob()) == (404, "BlobNotFound")
    assert (await refusal(blob.get_blob_properties()))[0] == 404
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    async with ContainerClient(place.url, "absent", credential, **place.options) as nowhere:
        assert await refusal(nowhere.upload_blob("x", b"x")) == (404, "ContainerNotFound")


async def test_a_body_that_is_not_what_its_checksum_says_is_refused(place: Place) -> None:
    blob = place.container.get_blob_client("checked")
    await blob.upload_blob(b"good", validate_content=True)
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    refused = await refusal(
        blob.upload_blob(b"bad", overwrite=True, headers={"Content-MD5": wrong})
    )
    assert refused == (400, "Md5Mismatch" if place.is_ours else "InvalidOperation")
    assert await content(blob) == b"good"


async def test_blocks_become_a_blob_when_they_are_committed(place: Place) -> None:
    from azure.storage.blob import BlobBlock

    blob = place.container.get_blob_client("blocks")
    for number in (1, 2):
        await blob.stage_block(f"{number:04}", b"block %d." % number)
    await blob.commit_block_list([BlobBlock("0002"), BlobBlock("0001")])
    assert await content(blob) == b"block 2.block 1."


async def test_metadata_can_be_replaced(place: Place) -> None:
    blob = place.container.get_blob_client("meta")
    first = await blob.upload_blob(b"x", metadata={"a": "1"})
    changed = await blob.set_blob_metadata({"b": "2"})
    found = await blob.get_blob_properties()
    assert found.metadata == {"b": "2"}
    assert changed["etag"] != first["etag"]
    assert await content(blob) == b"x"


# -- lists -------------------------------------------------------------------------------------


async def test_lists_are_sorted_filtered_and_paged(place: Place) -> None:
    names = sorted([*(f"p/{number:02}" for number in range(12)), "p-", "q/1", "o"])
    for name in reversed(names):
        await place.container.upload_blob(name, name.encode(), metadata={"n": name[:1]})
    found = [row.name async for row in place.container.list_blobs()]
    assert found == names
    pages = place.container.list_blobs(
        name_starts_with="p/", results_per_page=5, include=["metadata"]
    ).by_page()
    sizes, rows = [], []
    async for page in pages:
        part = [row async for row in page]
        sizes.append(len(part))
        rows += part
    assert sizes == [5, 5, 2]
    assert [row.name for row in rows] == names[names.index("p/00") : names.index("p/11") + 1]
    assert {row.metadata["n"] for row in rows} == {"p"}
    assert {row.size for row in rows} == {4}


async def test_a_list_with_a_delimiter_shows_folders(place: Place) -> None:
    for name in ("a/1", "a/2", "b", "c/x/1"):
        await place.container.upload_blob(name, b"x")
    found = [row.name async for row in place.container.walk_blobs(delimiter="/")]
    assert sorted(found) == ["a/", "b", "c/"]
    below = [row.name async for row in place.container.walk_blobs("c/", delimiter="/")]
    assert below == ["c/x/"]


async def test_deleted_blobs_are_not_listed_and_their_names_are_free(place: Place) -> None:
    await place.container.upload_blob("x", b"1")
    await place.container.delete_blob("x")
    assert [row.name async for row in place.container.list_blobs()] == []
    await place.container.upload_blob("x", b"2", overwrite=False)


# -- leases ------------------------------------------------------------------------------------


async def test_a_lease_keeps_others_from_writing(place: Place) -> None:
    blob = place.container.get_blob_client("leased")
    await blob.upload_blob(b"1")
    lease = await blob.acquire_lease(15)
    refused = await refusal(blob.upload_blob(b"2", overwrite=True))
    assert refused == (412, "LeaseIdMissing")
    assert (await refusal(blob.delete_blob()))[0] == 412
    assert await refusal(blob.acquire_lease(15)) == (409, "LeaseAlreadyPresent")
    await blob.upload_blob(b"3", overwrite=True, lease=lease)
    assert await content(blob) == b"3"
    await lease.renew()
    await lease.release()
    await blob.upload_blob(b"4", overwrite=True)


async def test_a_broken_lease_can_be_taken_again(place: Place) -> None:
    blob = place.container.get_blob_client("leased")
    await blob.upload_blob(b"1")
    lease = await blob.acquire_lease(60)
    assert await lease.break_lease(0) == 0
    other = await blob.acquire_lease(15)
    assert other.id != lease.id
    refused = await refusal(blob.upload_blob(b"2", overwrite=True, lease=lease))
    assert refused == (412, "LeaseIdMismatchWithBlobOperation")


# -- tiers -------------------------------------------------------------------------------------


async def test_an_archived_blob_cannot_be_read(place: Place) -> None:
    blob = place.container.get_blob_client("cold")
    await blob.upload_blob(b"x", standard_blob_tier=StandardBlobTier.COOL)
    assert (await blob.get_blob_properties()).blob_tier == "Cool"
    await blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    assert await refusal(blob.download_blob()) == (409, "BlobArchived")
    assert (await blob.get_blob_properties()).blob_tier == "Archive"


# -- who may do what ---------------------------------------------------------------------------


def soon(**delay: float) -> datetime:
    return datetime.now(UTC) + timedelta(**delay)


def container_sas(place: Place, permissions: str, **options: Any) -> str:
    options.setdefault("expiry", soon(hours=1))
    key = options.pop("account_key", KEY)
    return generate_container_sas(
        ACCOUNT,
        place.container.container_name,
        account_key=key,
        permission=ContainerSasPermissions.from_string(permissions),
        **options,
    )


async def test_create_allows_new_names_and_write_allows_all(place: Place) -> None:
    async with place.with_sas(container_sas(place, "c")) as creator:
        await creator.upload_blob("new", b"1", overwrite=False)
        status, _ = await refusal(creator.upload_blob("new", b"2", overwrite=True))
        assert status == 403
        assert (await refusal(creator.upload_blob("new", b"2", overwrite=False)))[0] in {403, 409}
        assert (await refusal(creator.delete_blob("new")))[0] == 403
        assert (await refusal(creator.get_blob_client("new").download_blob()))[0] == 403
    async with place.with_sas(container_sas(place, "w")) as writer:
        await writer.upload_blob("new", b"3", overwrite=True)
        assert (await refusal(writer.delete_blob("new")))[0] == 403
    assert await content(place.container.get_blob_client("new")) == b"3"


async def test_each_right_of_a_signature_stands_alone(place: Place) -> None:
    await place.container.upload_blob("x", b"1")
    async with place.with_sas(container_sas(place, "r")) as reader:
        assert await content(reader.get_blob_client("x")) == b"1"
        with pytest.raises(HttpResponseError) as caught:
            [row async for row in reader.list_blobs()]
        assert caught.value.status_code == 403
    async with place.with_sas(container_sas(place, "l")) as lister:
        assert [row.name async for row in lister.list_blobs()] == ["x"]
        assert (await refusal(lister.get_blob_client("x").download_blob()))[0] == 403
    async with place.with_sas(container_sas(place, "d")) as deleter:
        assert (await refusal(deleter.upload_blob("y", b"1")))[0] == 403
        await deleter.delete_blob("x")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"expiry": timedelta(hours=-1)}, 403),
        ({"start": timedelta(hours=1)}, 403),
        ({"account_key": base64.b64encode(b"wrong" * 8).decode()}, 403),
        ({"ip": "10.1.2.3"}, 403),
        ({"ip": "127.0.0.0-127.0.0.9"}, 0),
        ({"protocol": "https"}, 403),
        ({"start": timedelta(hours=-1)}, 0),
    ],
)
async def test_the_circumstances_of_a_signature_count(
    place: Place, options: dict[str, Any], status: int
) -> None:
    moments = {
        name: datetime.now(UTC) + value if isinstance(value, timedelta) else value
        for name, value in options.items()
    }
    async with place.with_sas(container_sas(place, "rcl", **moments)) as client:
        secure = place.url.startswith("https:") and "protocol" in options
        if (
            status and not secure and ("ip" not in options or place.is_ours)
        ):  # Azurite does not look at it
            assert (await refusal(client.upload_blob("x", b"1")))[0] == status
        else:
            await client.upload_blob("x", b"1")


async def test_the_signature_of_one_blob_is_for_that_blob(place: Place) -> None:
    name = place.container.container_name
    token = generate_blob_sas(
        ACCOUNT, name, "mine", account_key=KEY, permission=BlobSasPermissions(create=True, read=True),
        expiry=soon(hours=1),
    )  # fmt: skip
    async with place.with_sas(token) as client:
        await client.upload_blob("mine", b"1")
        assert await content(client.get_blob_client("mine")) == b"1"
        assert (await refusal(client.upload_blob("other", b"1")))[0] == 403


async def test_the_signature_of_an_account_is_for_its_kinds_of_resources(place: Place) -> None:
    def token(kinds: ResourceTypes) -> str:
        return generate_account_sas(
            ACCOUNT, KEY, kinds, AccountSasPermissions(read=True, list=True, create=True),
            soon(hours=1),
        )  # fmt: skip

    async with place.with_sas(token(ResourceTypes(object=True, container=True))) as client:
        await client.upload_blob("x", b"1")
        assert [row.name async for row in client.list_blobs()] == ["x"]
    async with place.with_sas(token(ResourceTypes(service=True))) as client:
        assert (await refusal(client.upload_blob("y", b"1")))[0] == 403


async def test_a_wrong_key_is_refused(place: Place) -> None:
    wrong = {"account_name": ACCOUNT, "account_key": KEY.replace("Eby8", "AAAA")}
    async with ContainerClient(
        place.url, place.container.container_name, wrong, **place.options
    ) as client:
        status, code = await refusal(client.upload_blob("x", b"1"))
        assert status in ({403} if place.is_ours else {400, 403})  # Azurite has codes of its own
        assert code == "AuthenticationFailed" or not place.is_ours


# -- containers --------------------------------------------------------------------------------


async def test_a_container_is_made_once_and_goes_with_its_blobs(place: Place) -> None:
    assert (await refusal(place.container.create_container())) == (409, "ContainerAlreadyExists")
    properties = await place.container.get_container_properties()
    assert properties.metadata == {"made": "here"}
    await place.container.upload_blob("x", b"1")
    await place.container.delete_container()
    assert (await refusal(place.container.get_container_properties()))[0] == 404


async def test_containers_are_listed(place: Place) -> None:
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    async with BlobServiceClient(place.url, credential, **place.options) as service:
        wanted = place.container.container_name
        found = [row.name async for row in service.list_containers(name_starts_with=wanted)]
        assert found == [wanted]
