"""How bytes reach Azure: one session, one TLS context, bodies in bounded pieces.

Left alone, the SDK builds a TLS context per request when it is given a CA file, so that no
connection is ever reused, and hands a whole body to the TLS layer at once. Measured on 8 MiB
bodies over TLS that costs three times the CPU and nine times the memory of what happens here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from azure.core.pipeline.transport import AioHttpTransport

from streamd.errors import ConfigInvalid
from streamd.storage.rate import ByteRate

_SLICE_BYTES: Final = 256 * 1024
_SLICE_BYTES_MIN: Final = 4 * 1024
_SLICES_PER_SECOND: Final = 8  # at a limit, so that it holds over a few seconds, too
_SLICE_SECONDS: Final = 75.0  # for the next slice, or the answer to the last one
_CONNECTIONS_MAX: Final = 64
_KEEPALIVE_SECONDS: Final = 60.0

# The deadline of the request that a task works on. Waiting because of a limit does not count.
DEADLINE: ContextVar[asyncio.Timeout | None] = ContextVar("deadline", default=None)


class SlicingTransport(AioHttpTransport):  # type: ignore[misc]
    """Sends a long body as slices of it, so that the loop and the TLS layer can breathe.

    `session` stays the caller's. Everything goes through `proxy` if there is one.
    `silence_seconds` may pass between the end of a request and each part of its answer. Bodies are
    sent and received at no more than the rates `sending` and `receiving`, slice by slice. The
    service's clock, as each answer has it, goes to `on_date`.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        proxy: str | None,
        connect_seconds: float,
        silence_seconds: float,
        sending: ByteRate | None = None,
        receiving: ByteRate | None = None,
        on_date: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            session=session,
            session_owner=False,
            connection_timeout=connect_seconds,
            read_timeout=silence_seconds,
            connection_data_block_size=_SLICE_BYTES,  # of an answer's body; 4 KiB left alone
        )
        self._proxy = proxy
        self._sending = sending
        self._receiving = receiving
        self._on_date = on_date

    async def send(self, request: Any, **config: Any) -> Any:
        """Send one request; called by the SDK."""
        if self._proxy is not None:
            config["proxy"] = self._proxy
        response = await super().send(request, **config)
        if date := response.headers.get("Date"):
            self._on_date(date)
        if self._receiving is not None:
            _pace(response, self._receiving)
        return response

    def _get_request_data(self, request: Any) -> Any:
        """Return what aiohttp is to send; called for every attempt."""
        body = super()._get_request_data(request)
        if isinstance(body, bytes) and len(body) > _slice_bytes(self._sending):
            return _slices(body, self._sending)
        return body


def _slice_bytes(rate: ByteRate | None) -> int:
    limit = None if rate is None else rate.bytes_per_second
    if limit is None:
        return _SLICE_BYTES
    return min(max(limit // _SLICES_PER_SECOND, _SLICE_BYTES_MIN), _SLICE_BYTES)


async def _slices(body: bytes, rate: ByteRate | None) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    start = 0
    while start < len(view):
        piece = view[start : start + _slice_bytes(rate)]  # the limit may change on the way
        if rate is not None:
            await _take(rate, len(piece))
        yield piece
        start += len(piece)
        _progress()


def _progress() -> None:
    """Move the deadline on: a slice has left, so that the line is slow, but not dead."""
    deadline = DEADLINE.get()
    if deadline is not None and (when := deadline.when()) is not None:
        patience = asyncio.get_running_loop().time() + _SLICE_SECONDS
        deadline.reschedule(max(when, patience))


def _pace(response: Any, rate: ByteRate) -> None:
    """Have the body of an answer that is streamed pass at no more than `rate`."""
    unpaced = response.stream_download
    response.stream_download = lambda *args, **kwargs: _Paced(unpaced(*args, **kwargs), rate)


class _Paced:
    """The SDK's iterator over a body, at no more than a rate; everything else is the SDK's."""

    def __init__(self, pieces: Any, rate: ByteRate) -> None:
        self._pieces = pieces
        self._rate = rate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)

    def __aiter__(self) -> "_Paced":
        return self

    async def __anext__(self) -> bytes:
        piece: bytes = await self._pieces.__anext__()
        await _take(self._rate, len(piece))
        return piece


async def _take(rate: ByteRate, size_bytes: int) -> None:
    """Wait for the rate; the deadline of the request moves by as much."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await rate.take(size_bytes)
    deadline = DEADLINE.get()
    if deadline is not None and (when := deadline.when()) is not None:
        deadline.reschedule(when + loop.time() - began)


class _NewestFirst(aiohttp.TCPConnector):
    """Uses the connection again that rested the shortest, so that those of a busy minute grow old.

    Left alone, aiohttp takes the one that rested the longest. A request every few seconds is then
    enough to keep as many connections as a verification or a backlog ever opened, each with 0.3 to
    0.6 MiB of buffers of the TLS layer (measured with 17: 11 MiB), for as long as the daemon runs.
    """

    async def _get(
        self, key: ConnectionKey, traces: list[aiohttp.tracing.Trace]
    ) -> Connection | None:
        idle = self._conns.get(key)  # the oldest is on the left, and taken from there
        if idle:
            idle.rotate(1)
        return await super()._get(key, traces)


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return the one context for all connections; reads files, so not on the event loop.

    Raises ConfigInvalid if `ca_file` cannot be used: there is no falling back to the system's.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigInvalid(f"vault.ca_file {ca_file}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def new_session(context: ssl.SSLContext, *, trust_environment: bool) -> aiohttp.ClientSession:
    """Return the session for everything sent to one vault; the caller closes it.

    `trust_environment` lets HTTPS_PROXY and NO_PROXY decide about a proxy.
    """
    return aiohttp.ClientSession(
        connector=_NewestFirst(
            ssl=context, limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEPALIVE_SECONDS
        ),
        trust_env=trust_environment,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
