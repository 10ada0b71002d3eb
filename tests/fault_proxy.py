"""An HTTP server between a client and Azurite that misbehaves on command, and keeps a log."""

import asyncio
import ssl
from io import BytesIO
from types import TracebackType
from typing import Literal, NamedTuple, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

Fault = Literal["reset-before", "reset-after", "truncate", "html", "silence"] | web.Response
_BODY_MAX = 256 << 20
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "server"}


class Seen(NamedTuple):
    """One request that arrived."""

    method: str
    path_qs: str
    headers: CIMultiDict[str]
    peer: object


class FaultProxy:
    """Forward to `upstream` (scheme, host and port). `faults` are used up one per request.

    reset-before: the connection breaks before anything happened; reset-after: it did happen, but
    nobody is told; truncate: half of the answer's body; html: a proxy's page with status 200;
    silence: no answer, ever; a response: that one instead.
    """

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.port = 0
        self._upstream = upstream
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=_BODY_MAX)
        application.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._client.close()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.seen.append(Seen(request.method, request.path_qs, CIMultiDict(request.headers), peer))
        body = await request.read()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, web.Response):
            return fault
        if fault == "html":
            return web.Response(text="<html><h1>Please log in", content_type="text/html")
        if fault == "silence":
            await asyncio.Event().wait()
        if fault == "reset-before":
            request.transport.abort()
            return web.Response()
        return await self._forward(request, body, fault)

    async def _forward(
        self, request: web.Request, body: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        assert request.transport is not None
        # As a forward proxy we are asked with the whole URL.
        path = request.raw_path.removeprefix(self._upstream)
        url = URL(self._upstream + path, encoded=True)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        async with self._client.request(
            request.method,
            url,
            headers=headers,
            data=BytesIO(body) if body else None,
            skip_auto_headers=("Content-Type", "Accept", "User-Agent"),  # they would be signed
        ) as reply:
            content = await reply.read()
            passed = [(k, v) for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP]
            answer = web.StreamResponse(status=reply.status, headers=CIMultiDict(passed))
        if fault == "reset-after":
            request.transport.abort()
            return answer
        if request.method != "HEAD":
            answer.content_length = len(content)
        await answer.prepare(request)
        if fault == "truncate":
            await answer.write(content[: len(content) // 2])
            request.transport.abort()
            return answer
        if request.method != "HEAD":
            await answer.write(content)
        await answer.write_eof()
        return answer
