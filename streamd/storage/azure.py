"""BlobStore in a container of Azure Blob Storage, through the official SDK.

One object is one Put Blob with `If-None-Match: *`, and every call has a deadline of ours: the SDK's
`timeout` is none. Nothing is retried here (see `RetryingBlobStore`), except that aiohttp repeats
once what met a kept connection that the other side had closed.

Importing this module imports the SDK; only the composition root does so, and only for such a vault.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.storage.blob.aio import ContainerClient

from streamd.effects import MICROSECONDS
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    ContainerMissing,
    StorageRefused,
    StreamdError,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.storage.azure_access import AzureAccess, is_path_style, parse_url
from streamd.storage.azure_credentials import credential_for
from streamd.storage.azure_errors import Answer, Asked, may_exist, meaning, without_secrets
from streamd.storage.azure_transport import DEADLINE, SlicingTransport, new_session, tls_context
from streamd.storage.names import check_name, check_prefix
from streamd.storage.port import BlobInfo, BlobName, Bytes
from streamd.storage.rate import ByteRate

_T = TypeVar("_T")
_API_VERSION: Final = "2024-11-04"  # the newest that both the oldest SDK and emulators know
_SINGLE_REQUEST_BYTES: Final = 256 << 20  # far above any object: everything is one request
_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 30.0  # between the end of a request and the next byte of the answer
_DEADLINE_SECONDS: Final = 15.0
_SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
_ASSUMED_BYTES: Final = 32 << 20  # of an object whose size we do not know
_PAGE: Final = 5000  # names in one answer, the service's maximum
_PAGE_BYTES: Final = 4 << 20  # about the size of such an answer


class AzureBlobStore:
    """Objects below the prefix of `access.url`.

    What is sent and received keeps to the rates, if any; whoever steers the traffic changes them
    at run time. Nothing is connected before the first call, and the container is never created by
    one: one that was deleted can be undeleted only while no other took its name. See
    `ensure_container`.
    """

    def __init__(
        self,
        access: AzureAccess,
        *,
        sending: ByteRate | None = None,
        receiving: ByteRate | None = None,
    ) -> None:
        self._access = access
        self._rates = (sending, receiving)
        self._address = parse_url(access.url)
        self._connecting = asyncio.Lock()
        self._connection: _Connection | None = None
        self._retired: list[_Connection] = []

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create `name` by one request; see the port."""
        check_name(name)
        content = data if isinstance(data, bytes) else bytes(data)  # the SDK takes nothing else

        async def upload(container: ContainerClient) -> HttpResponseError | None:
            try:
                await container.upload_blob(
                    self._full(name), content, length=len(content), overwrite=False
                )
            except HttpResponseError as error:
                if not may_exist(_answer(error)):
                    raise
                return error
            return None

        refusal = await self._call("put", name, len(content), upload)
        if refusal is not None and not await self._is_ours(name, content, refusal):
            raise BlobConflict(f"{name} exists with other bytes", name=name)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        check_name(name)
        if size == 0:
            await self._check_length(name, offset)
            return b""

        async def download(container: ContainerClient) -> bytes:
            reader = await container.download_blob(
                self._full(name), offset=offset, length=size, max_concurrency=1
            )
            content: bytes = await reader.readall()
            # The SDK ends quietly when the object is shorter than the range.
            if reader.size != len(content):
                raise VaultUnreachable(
                    f"get {name}: the answer was cut short", endpoint=self._address.host
                )
            return content

        expected = _ASSUMED_BYTES if size is None else size
        try:
            content = await self._call("get", name, expected, download)
        except VaultDamaged:
            if size is not None:
                raise
            await self._check_length(name, offset)  # "all from the end" is an empty range
            return b""
        if size is not None and len(content) != size:
            raise VaultDamaged(
                f"{name} ends after {len(content)} of the {size} bytes at {offset}", name=name
            )
        return content

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`, in name order; see the port.

        Raises VaultDamaged if the service lists out of order: accounts with a hierarchical
        namespace do, and nothing above could rely on such a listing.
        """
        check_prefix(prefix)
        begin = len(self._address.prefix)
        last = ""
        async with aclosing(self._pages(self._full(prefix))) as pages:
            async for page in pages:
                for row in page:
                    name = row.name[begin:]
                    if name == last:
                        continue  # repeated at the border of two pages
                    if name < last:
                        raise VaultDamaged(f"{name} is listed after {last}", name=name)
                    last = name
                    modified_us = int(row.last_modified.timestamp()) * MICROSECONDS
                    md5 = bytes(row.content_settings.content_md5 or b"")
                    yield BlobInfo(BlobName(name), row.size, modified_us, md5)

    async def delete(self, name: BlobName) -> None:
        """Delete `name`; see the port."""
        check_name(name)
        try:
            await self._call("delete", name, 0, lambda c: c.delete_blob(self._full(name)))
        except BlobNotFound:
            return

    async def ensure_container(self) -> None:
        """Create the container if it is missing and `access.create_container` allows it.

        For whoever creates a vault. Raises ContainerMissing if it is missing and not allowed.
        """
        try:
            await self._call("look at", "", 0, lambda c: c.get_container_properties())
        except ContainerMissing:
            if not self._access.create_container:
                raise
            try:
                await self._call("create", "", 0, lambda c: c.create_container())
            except StorageRefused as refused:
                if refused.facts.get("code") != "ContainerAlreadyExists":
                    raise

    async def renew(self, access: AzureAccess) -> None:
        """Use other credentials from the next call on; calls under way end with the old ones."""
        async with self._connecting:
            self._access = access
            if self._connection is not None:
                self._retired.append(self._connection)
                self._connection = None

    async def aclose(self) -> None:
        """Close all connections."""
        async with self._connecting:
            connections = [*self._retired, *filter(None, [self._connection])]
            self._connection, self._retired = None, []
            for connection in connections:
                await connection.aclose()

    async def ask(self, doing: str, request: Callable[[Any, Any], Awaitable[_T]]) -> _T:
        """Make a request that is not in the port, with the SDK's clients of container and account.

        It has the deadline and the errors of all others. For looking at what the service is like.
        """
        return await self._call(
            doing,
            "",
            0,
            lambda c: request(c, c._get_blob_service_client()),  # noqa: SLF001 - the SDK's only way
        )

    async def token(self, scope: str) -> str | None:
        """Return a token for another service; None if we prove who we are by a key or a SAS."""

        async def get(_: Any) -> str | None:
            assert self._connection is not None
            get_token = getattr(self._connection.credential, "get_token", None)
            return None if get_token is None else str((await get_token(scope)).token)

        return await self._call("get a token", "", 0, get)

    @property
    def prefix(self) -> str:
        """What every name begins with in the container: empty, or ending with a slash."""
        return self._address.prefix

    def _full(self, name: str) -> str:
        return self._address.prefix + name

    async def _call(
        self,
        doing: str,
        name: str,
        size_bytes: int,
        request: Callable[[ContainerClient], Awaitable[_T]],
    ) -> _T:
        """Make one request within its deadline, and translate what goes wrong."""
        deadline = _DEADLINE_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND
        endpoint = self._address.host
        try:
            async with asyncio.timeout(deadline) as scope:
                DEADLINE.set(scope)
                return await request(await self._container())
        except TimeoutError as error:
            what = f"{doing} {name}: no answer within {deadline:.0f} s"
            raise VaultUnreachable(what, endpoint=endpoint) from error
        except HttpResponseError as error:
            raise self._meaning(error, doing, name) from error
        except (AzureError, aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: what answered does not speak the protocol, such as a proxy's web page.
            what = f"{doing} {name}: {without_secrets(str(error)) or type(error).__name__}"
            raise VaultUnreachable(what, endpoint=endpoint) from error

    async def _is_ours(self, name: BlobName, content: bytes, refusal: HttpResponseError) -> bool:
        """Return whether the object that is there is what we put, as after a lost answer.

        The service computes the MD5 of what it stored by itself, which costs us nothing until here.
        Raises what `refusal` means if there is no such object, or we may not look.
        """
        try:
            found = await self._properties(name)
        except (BlobNotFound, StorageRefused) as error:
            raise self._meaning(refusal, "put", name) from error
        if found.size != len(content):
            return False
        md5 = found.content_settings.content_md5
        if md5 is None:
            return await self.get(name) == content
        return bytes(md5) == await asyncio.to_thread(_md5, content)

    async def _check_length(self, name: BlobName, offset: int) -> None:
        length = (await self._properties(name)).size
        if length < offset:
            raise VaultDamaged(f"{name} has {length} bytes, not even {offset}", name=name)

    def _meaning(self, error: HttpResponseError, doing: str, name: str) -> StreamdError:
        answer = _answer(error)
        if isinstance(error, ClientAuthenticationError) and not answer.code:
            # Not the Blob service, but Entra ID or this machine's identity.
            what = f"{doing} {name}: no credential: {without_secrets(answer.text)}"
            return StorageRefused(what, status=answer.status, code=None)
        asked = Asked(doing, name, self._address.container, self._address.host)
        return meaning(answer, asked)

    async def _properties(self, name: BlobName) -> Any:
        return await self._call(
            "look at", name, 0, lambda c: c.get_blob_client(self._full(name)).get_blob_properties()
        )

    async def _pages(self, prefix: str) -> AsyncGenerator[list[Any], None]:
        pages: AsyncIterator[AsyncIterator[Any]] | None = None

        async def next_page(container: ContainerClient) -> list[Any] | None:
            nonlocal pages
            if pages is None:
                listing = container.list_blobs(name_starts_with=prefix, results_per_page=_PAGE)
                pages = listing.by_page()
            page = await anext(pages, None)
            return None if page is None else [row async for row in page]

        while (rows := await self._call("list", prefix, _PAGE_BYTES, next_page)) is not None:
            yield rows

    async def _container(self) -> ContainerClient:
        async with self._connecting:
            if self._connection is None:
                context = await asyncio.to_thread(tls_context, self._access.ca_file)
                self._connection = await _connect(self._access, context, *self._rates)
            return self._connection.container


class _Connection(NamedTuple):
    """What one set of credentials needs, to be closed together."""

    session: aiohttp.ClientSession
    credential: Any
    container: ContainerClient

    async def aclose(self) -> None:
        close = getattr(self.credential, "close", None)  # those that ask Entra ID
        if close is not None:
            await close()
        await self.session.close()


async def _connect(
    access: AzureAccess,
    context: ssl.SSLContext,
    sending: ByteRate | None,
    receiving: ByteRate | None,
) -> _Connection:
    address = parse_url(access.url)
    local = is_path_style(address.host.partition(":")[0])
    session = new_session(context, trust_environment=access.proxy is None and not local)
    try:
        transport = SlicingTransport(
            session=session,
            proxy=access.proxy,
            connect_seconds=_CONNECT_SECONDS,
            silence_seconds=_SILENCE_SECONDS,
            sending=sending,
            receiving=receiving,
        )
        credential = credential_for(access, address, transport)
        container = ContainerClient(
            address.account_url,
            address.container,
            credential=credential,
            transport=transport,
            api_version=_API_VERSION,
            retry_total=0,
            max_single_put_size=_SINGLE_REQUEST_BYTES,
            max_single_get_size=_SINGLE_REQUEST_BYTES,
            max_chunk_get_size=_SINGLE_REQUEST_BYTES,
        )
    except BaseException:
        await session.close()
        raise
    return _Connection(session, credential, container)


def _answer(error: HttpResponseError) -> Answer:
    response = error.response
    headers = getattr(response, "headers", None) or {}
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code")
    return Answer(
        status=getattr(response, "status_code", None),
        code=None if code is None else str(getattr(code, "value", code)),
        text=str(error.message or ""),
        retry_after=headers.get("Retry-After"),
        date=headers.get("Date"),
    )


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
