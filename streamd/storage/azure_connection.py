"""What one set of credentials needs to talk to a container, to be closed together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from azure.storage.blob.aio import ContainerClient

from streamd.effects import Clock
from streamd.storage.azure_access import AzureAccess, is_path_style, parse_url
from streamd.storage.azure_credentials import credential_for
from streamd.storage.azure_tokens import EarlyToken
from streamd.storage.azure_transport import SlicingTransport, new_session, tls_context
from streamd.storage.rate import ByteRate

API_VERSION: Final = "2024-11-04"  # the newest that both the oldest SDK and emulators know
_SINGLE_REQUEST_BYTES: Final = 256 << 20  # far above any object: everything is one request
_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 30.0  # between the end of a request and the next byte of the answer


class Connection:
    """A session, a credential and a client; counts who uses it."""

    def __init__(
        self, session: aiohttp.ClientSession, credential: Any, container: ContainerClient
    ) -> None:
        self.container = container
        self._session = session
        self.credential = credential
        self._users = 0
        self._retired = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing of it is open any more."""
        return bool(self._session.closed)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[ContainerClient]:
        """Lend the client; what was retired meanwhile is closed by its last user."""
        self._users += 1
        try:
            yield self.container
        finally:
            self._users -= 1
            if self._retired and not self._users:
                await self.aclose()

    @property
    def uses_tokens(self) -> bool:
        """Whether Entra ID vouches for us."""
        return isinstance(self.credential, EarlyToken)

    async def retire(self) -> None:
        """Close it as soon as nobody uses it."""
        self._retired = True
        if not self._users:
            await self.aclose()

    async def aclose(self) -> None:
        """Close it, whoever uses it."""
        await self._session.close()


async def connect(
    access: AzureAccess,
    clock: Clock,
    *,
    sending: ByteRate | None = None,
    receiving: ByteRate | None = None,
    on_token: Callable[[int], None] = lambda _: None,
    on_date: Callable[[str], None] = lambda _: None,
) -> Connection:
    """Return a connection; nothing is sent. Raises ConfigInvalid."""
    context = await asyncio.to_thread(tls_context, access.ca_file)
    address = parse_url(access.url)
    local = is_path_style(address.host.partition(":")[0])
    session = new_session(context, trust_environment=access.proxy is None and not local)

    def transport() -> SlicingTransport:
        return SlicingTransport(
            session=session,
            proxy=access.proxy,
            connect_seconds=_CONNECT_SECONDS,
            silence_seconds=_SILENCE_SECONDS,
            sending=sending,
            receiving=receiving,
            on_date=on_date,
        )

    try:
        credential = credential_for(access, address, transport, clock, on_token)
        container = ContainerClient(
            address.account_url,
            address.container,
            credential=credential,
            transport=transport(),
            api_version=API_VERSION,
            retry_total=0,
            permit_redirects=False,  # a redirect could lead to where nothing is encrypted
            max_single_put_size=_SINGLE_REQUEST_BYTES,
            max_single_get_size=_SINGLE_REQUEST_BYTES,
            max_chunk_get_size=_SINGLE_REQUEST_BYTES,
        )
    except BaseException:
        await session.close()
        raise
    return Connection(session, credential, container)
