"""HTTP and HTTPS around the service, and the faults in between."""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from multidict import CIMultiDict
from ports import free_port

from blobserver.faults import Fault, FaultScript, changed_list, flipped, operation_of
from blobserver.service import BlobService
from blobserver.wire import Answer, Request

_PIECE = 64 * 1024
Pace = Callable[[int], Awaitable[None]]
_LIST_FAULTS = {"duplicate-rows", "missing-rows", "hidden-rows", "lost-marker"}
_FOR_EVER = 86_400.0


class Seen(NamedTuple):
    """One request that arrived."""

    operation: str
    method: str
    path: str
    query: dict[str, str]
    headers: CIMultiDict[str]
    peer: object
    status: int


class _Cut(Exception):
    """The connection is to be broken now."""


class BlobServer:
    """Serves `service` on loopback. Stopping and starting keeps state and port: an outage."""

    def __init__(
        self,
        service: BlobService | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.service = service or BlobService()
        self.faults = FaultScript()
        self.seen: list[Seen] = []
        self.requests: Counter[str] = Counter()
        self.in_flight = 0
        self.in_flight_max = 0
        self.port = port or free_port()
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        server = web.Server(
            self._handle, handler_cancellation=True, auto_decompress=False, access_log=None
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and break all connections."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def url(self) -> str:
        """Return scheme, host and port."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def account_url(self) -> str:
        """Return the URL of the first account; its name stands in the path, as in emulators."""
        return f"{self.url}/{self.service.account.name}"

    # -- one request -----------------------------------------------------------------------------

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        assert incoming.transport is not None
        head = self._parsed(incoming)
        faults = list(self.faults.of(head))
        self.requests[operation_of(head)] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        status = 0
        try:
            response = await self._serve(incoming, head, faults)
            status = response.status
        except _Cut:
            incoming.transport.abort()
            response = web.Response()
        finally:
            self.in_flight -= 1
            self._note(incoming, head, status)
        return response

    async def _serve(
        self, incoming: web.BaseRequest, head: Request, faults: list[Fault]
    ) -> web.StreamResponse:
        by_kind = {fault.kind: fault for fault in faults}
        if "latency" in by_kind:
            await asyncio.sleep(by_kind["latency"].seconds)
        if "blackhole" in by_kind:
            await asyncio.sleep(_FOR_EVER)
        pace = _pace_of(by_kind)
        body = await _body(incoming, pace, cut="reset-during" in by_kind)
        request = self._parsed(incoming, body)
        if "reset-before" in by_kind:
            raise _Cut
        if "html" in by_kind:
            return web.Response(text="<html><h1>Please log in", content_type="text/html")
        answer = await self._answer(request, by_kind)
        if "reset-after" in by_kind:
            raise _Cut
        return await _send(incoming, answer, pace, cut="truncate" in by_kind)

    async def _answer(self, request: Request, faults: dict[str, Fault]) -> Answer:
        if "late-commit" in faults:
            asyncio.get_running_loop().call_later(
                faults["late-commit"].seconds, self.service.answer, request
            )
            return _status(Fault("status", status=500, code="InternalError"))
        told = faults.get("status")
        if told is not None:
            if told.commits:
                self.service.answer(request)
            return _status(told)
        if "twice" in faults:
            self.service.answer(request)
        answer = self.service.answer(request)
        if operation_of(request) == "list":
            return _list(request, answer, faults)
        if request.method == "GET" and answer.status in {200, 206}:
            return self._content(request, answer, faults)
        return answer

    def _content(self, request: Request, answer: Answer, faults: dict[str, Fault]) -> Answer:
        if "corrupt" in faults:
            answer.body = flipped(answer.body)
        if "short" in faults:
            answer.body = answer.body[: len(answer.body) // 2]
        if "swap" in faults:
            container = self.service.accounts[request.account].containers[request.container]
            others = [
                blob.current.content
                for name, blob in container.blobs.items()
                if name != request.blob and blob.current is not None
            ]
            answer.body = next(filter(None, others), b"?")[: len(answer.body)]
            answer.headers.pop("Content-Range", None)
        return answer

    def _parsed(self, incoming: web.BaseRequest, body: bytes = b"") -> Request:
        raw_path, _, raw_query = incoming.raw_path.partition("?")
        if raw_path.startswith(("http://", "https://")):  # as one asks a forward proxy
            raw_path = "/" + raw_path.split("/", 3)[3]
        host = incoming.headers.get("Host", "").partition(":")[0]
        account, _, rest = host.partition(".")
        parts = [unquote(part) for part in raw_path.lstrip("/").split("/")]
        if not rest or account not in self.service.accounts:
            account, *parts = parts
        assert incoming.transport is not None
        peer = incoming.transport.get_extra_info("peername") or ("127.0.0.1", 0)
        return Request(
            method=incoming.method,
            account=account,
            container=parts[0] if parts else "",
            blob="/".join(parts[1:]),
            raw_path=raw_path,
            query=dict(parse_qsl(raw_query, keep_blank_values=True)),
            headers=incoming.headers,
            body=body,
            is_secure=self._tls is not None,
            peer=str(peer[0]),
        )

    def _note(self, incoming: web.BaseRequest, head: Request, status: int) -> None:
        transport = incoming.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        self.seen.append(
            Seen(
                operation_of(head), head.method, head.raw_path, dict(head.query),
                CIMultiDict(incoming.headers), peer, status,
            )
        )  # fmt: skip


def _pace_of(faults: dict[str, Fault]) -> Pace | None:
    """Return what waits for as long as so many bytes take; None: nothing slows them down."""
    if "line" in faults:
        line = faults["line"]

        async def wait_for_the_line(size: int) -> None:
            now = asyncio.get_running_loop().time()
            line.line_began_at = line.line_began_at or now
            line.line_free_at = max(now, line.line_free_at) + size / line.rate
            await asyncio.sleep(line.line_free_at - now)

        return wait_for_the_line
    if "bandwidth" in faults:
        rate = faults["bandwidth"].rate
        return lambda size: asyncio.sleep(size / rate)
    return None


async def _body(incoming: web.BaseRequest, pace: Pace | None, *, cut: bool) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in incoming.content.iter_chunked(_PIECE):
        parts.append(part)
        size += len(part)
        if pace is not None:
            await pace(len(part))
        if cut and size >= (incoming.content_length or 0) // 2:
            raise _Cut
    if cut:
        raise _Cut
    return b"".join(parts)


async def _send(
    incoming: web.BaseRequest, answer: Answer, pace: Pace | None, *, cut: bool
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=CIMultiDict(answer.headers))
    body = answer.body
    if incoming.method != "HEAD" and answer.status not in {204, 304}:
        response.content_length = len(body)
    await response.prepare(incoming)
    if incoming.method == "HEAD":
        await response.write_eof()
        return response
    if cut:
        await response.write(body[: len(body) // 2])
        raise _Cut
    step = 1 << 20 if pace is None else _PIECE
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        if pace is not None:
            await pace(len(piece))
        await response.write(piece)
    await response.write_eof()
    return response


def _status(fault: Fault) -> Answer:
    from blobserver.wire import Refused

    answer = Refused(fault.status, fault.code, "by script").answer()
    if not fault.code:
        del answer.headers["x-ms-error-code"]
        answer.body = b""
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = fault.retry_after
    return answer


def _list(request: Request, answer: Answer, faults: dict[str, Fault]) -> Answer:
    stale = faults.get("stale-list")
    if stale is not None:
        answer = stale.kept.setdefault(str(sorted(request.query.items())), answer)
    for kind in _LIST_FAULTS & set(faults):
        answer = changed_list(answer, faults[kind])
    return answer


@contextmanager
def in_thread(server: BlobServer) -> Iterator[BlobServer]:
    """Run `server` on a loop of its own in a thread: for tests that are not asynchronous."""
    with OwnLoop() as own:
        own.run(server.start())
        try:
            yield server
        finally:
            own.run(server.stop())


class OwnLoop:
    """An event loop in a thread. `run` waits for a coroutine there."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="own-loop")
        self._thread.start()
        return self

    def run(self, coroutine: object) -> None:
        """Have `coroutine` run there, and wait for its end."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)  # type: ignore[arg-type]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
