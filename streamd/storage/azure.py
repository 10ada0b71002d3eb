"""BlobStore in a container of Azure Blob Storage, through the official SDK.

One object is one Put Blob with `If-None-Match: *`, and every call has a deadline of ours: the SDK's
`timeout` is none. Nothing is retried here (see `RetryingBlobStore`), except that aiohttp repeats
once what met a kept connection that the other side had closed.

Importing this module imports the SDK; only the composition root does so, and only for such a vault.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import aiohttp
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob.aio import ContainerClient

from streamd.effects import MICROSECONDS, Clock, SystemClock
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    ContainerMissing,
    CredentialRejected,
    NamespaceHierarchical,
    StorageRefused,
    StreamdError,
    VaultDamaged,
    VaultUnreachable,
)
from streamd.storage.azure_access import AzureAccess, parse_url
from streamd.storage.azure_connection import API_VERSION, Connection, connect
from streamd.storage.azure_errors import Answer, Asked, may_exist, meaning
from streamd.storage.azure_failures import failure, kind_of
from streamd.storage.azure_listing import Page, Row, ask_page, parse_page
from streamd.storage.azure_observer import Deaf, RequestObserver
from streamd.storage.azure_transport import DEADLINE
from streamd.storage.names import check_name, check_prefix
from streamd.storage.port import BlobInfo, BlobName, Bytes
from streamd.storage.rate import ByteRate

_T = TypeVar("_T")
SKEW_MIN_US: Final = 3 * MICROSECONDS  # less cannot be told from the way of the answer
_DEADLINE_SECONDS: Final = 15.0
_SLOWEST_BYTES_PER_SECOND: Final = 4 * 1024  # 64 kbit/s, and half of it for whoever shares it
_FIRST_BYTES: Final = 256 << 10  # of a body; each slice that leaves moves the deadline on
_ASSUMED_BYTES: Final = 32 << 20  # of an object whose size we do not know
_PAGE_BYTES: Final = 4 << 20  # about the size of a full page of a listing
# what is asked for → the operation in metrics
_TOLD_APART: Final = {401, 403, 404, 407, 409, 412, 416, 429, 503}
_OPERATIONS: Final = {
    "put": "put",
    "get": "get",
    "look at": "head",
    "list": "list",
    "delete": "delete",
    "create": "container",
}


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
        observer: RequestObserver | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._access = access
        self._rates = (sending, receiving)
        self._observer = observer or Deaf()
        self._clock = clock or SystemClock()
        self._address = parse_url(access.url)
        self._connecting = asyncio.Lock()
        self._connection: Connection | None = None
        self._retired: list[Connection] = []
        self.skew_us: int | None = None  # this host's clock minus the service's, at its last answer

    def _note_date(self, date: str) -> None:
        """Compare the clocks; an answer's date is in whole seconds, and took time to arrive."""
        with suppress(ValueError, TypeError):
            theirs_us = int(parsedate_to_datetime(date).timestamp()) * MICROSECONDS
            skew_us = self._clock.now_us() - theirs_us
            self.skew_us = 0 if abs(skew_us) < SKEW_MIN_US else skew_us

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

        refusal = await self._call("put", name, min(len(content), _FIRST_BYTES), upload)
        if refusal is not None and not await self._is_ours(name, content, refusal):
            raise BlobConflict(f"{name} exists with other bytes", name=name)

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return exactly the requested range; see the port."""
        return await self._get(name, offset, size, None)

    async def get_version(
        self, name: BlobName, version: str, *, offset: int = 0, size: int | None = None
    ) -> bytes:
        """Return exactly the requested range of a version; see `versions.KeepsVersions`."""
        return await self._get(name, offset, size, version)

    async def _get(
        self, name: BlobName, offset: int, size: int | None, version: str | None
    ) -> bytes:
        check_name(name)
        if size == 0:
            await self._check_length(name, offset, version)
            return b""

        async def download(container: ContainerClient) -> bytes:
            blob = container.get_blob_client(self._full(name), version_id=version)
            reader = await blob.download_blob(offset=offset, length=size, max_concurrency=1)
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
            await self._check_length(name, offset, version)  # "all from the end" is an empty range
            return b""
        if size is not None and len(content) != size:
            raise VaultDamaged(
                f"{name} ends after {len(content)} of the {size} bytes at {offset}", name=name
            )
        return content

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Yield what begins with `prefix`, in name order; see the port.

        Raises NamespaceHierarchical if the service lists out of order: accounts with such a
        namespace do, and nothing above could rely on it.
        """
        check_prefix(prefix)
        begin = len(self._address.prefix)
        last = ""
        async with aclosing(self._pages(self._full(prefix))) as pages:
            async for rows in pages:
                for row in rows:
                    name = row.name[begin:]
                    if name == last:
                        continue  # repeated at the border of two pages
                    if name < last:
                        raise NamespaceHierarchical(
                            f"{name} is listed after {last}", endpoint=self._address.host
                        )
                    last = name
                    yield BlobInfo(BlobName(name), row.size_bytes, row.modified_us, row.md5)

    async def earlier(self, prefix: str) -> AsyncIterator[tuple[BlobInfo, str]]:
        """Yield versions that are not current; see `versions.KeepsVersions`."""
        check_prefix(prefix)
        begin = len(self._address.prefix)
        async with aclosing(self._pages(self._full(prefix), versions=True)) as pages:
            async for rows in pages:
                for row in rows:
                    if not row.is_current:
                        name = BlobName(row.name[begin:])
                        info = BlobInfo(name, row.size_bytes, row.modified_us, row.md5)
                        yield info, row.version

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
            retired, self._connection = self._connection, None
            if retired is not None:
                await retired.retire()
                self._retired = [one for one in [*self._retired, retired] if not one.is_closed]

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
        connection = await self._connected()
        began = self._clock.monotonic()
        try:
            with self._observed(doing):
                async with asyncio.timeout(deadline) as scope, connection.lent() as container:
                    DEADLINE.set(scope)
                    return await request(container)
        except TimeoutError as error:
            waited = self._clock.monotonic() - began
            what = f"{doing} {name}: no answer, given up after {waited:.0f} s"
            raise VaultUnreachable(what, endpoint=endpoint) from error
        except HttpResponseError as error:
            refused = self._meaning(error, doing, name)
            if isinstance(refused, CredentialRejected):
                await self._distrust(connection)
            raise refused from error
        except (AzureError, aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: what answered does not speak the protocol, such as a proxy's web page.
            raise failure(error, f"{doing} {name}", endpoint) from error

    @contextmanager
    def _observed(self, doing: str) -> Iterator[None]:
        code, began = "cancelled", self._clock.monotonic()
        try:
            yield
            code = "2xx"
        except HttpResponseError as error:
            code = _code(_answer(error).status)
            raise
        except (AzureError, aiohttp.ClientError, OSError, ValueError) as error:
            code = kind_of(error)
            raise
        except StreamdError:
            code = "credential"  # there was none to send anything with
            raise
        finally:
            operation = _OPERATIONS.get(doing, "other")
            self._observer.requested(operation, code, self._clock.monotonic() - began)

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

    async def _check_length(self, name: BlobName, offset: int, version: str | None) -> None:
        length = (await self._properties(name, version)).size
        if length < offset:
            raise VaultDamaged(f"{name} has {length} bytes, not even {offset}", name=name)

    def _meaning(self, error: HttpResponseError, doing: str, name: str) -> StreamdError:
        access = self._access
        asked = Asked(
            doing=doing,
            name=name,
            container=self._address.container,
            endpoint=self._address.host,
            place=access.place,
            now_us=self._clock.now_us(),
            begins_us=access.begins_us,
            expires_us=access.expires_us,
        )
        return meaning(_answer(error), asked)

    async def _properties(self, name: BlobName, version: str | None = None) -> Any:
        def blob(container: ContainerClient) -> Any:
            return container.get_blob_client(self._full(name), version_id=version)

        return await self._call("look at", name, 0, lambda c: blob(c).get_blob_properties())

    async def _pages(
        self, prefix: str, *, versions: bool = False
    ) -> AsyncGenerator[list[Row], None]:
        marker = ""

        async def next_page(container: ContainerClient) -> Page:
            body = await ask_page(container, prefix, marker, version=API_VERSION, versions=versions)
            return await asyncio.to_thread(parse_page, body)

        while True:  # each page on the connection of its time: credentials may be renewed
            rows, marker = await self._call("list", prefix, _PAGE_BYTES, next_page)
            yield rows
            if not marker:
                return

    async def _distrust(self, connection: Connection) -> None:
        """Get a new token for the next request, if tokens are what we use: this one is no good."""
        async with self._connecting:
            if connection.uses_tokens and self._connection is connection:
                self._connection = None
                self._retired.append(connection)
                await connection.retire()

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                sending, receiving = self._rates
                self._connection = await connect(
                    self._access,
                    self._clock,
                    sending=sending,
                    receiving=receiving,
                    on_token=self._observer.token_renewed,
                    on_date=self._note_date,
                )
            return self._connection


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


def _code(status: int | None) -> str:
    """Return a status as the metric's `code` has it: by itself where it tells something."""
    if status is None:
        return "connect"
    known = status in _TOLD_APART
    return str(status) if known else f"{status // 100}xx"


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
