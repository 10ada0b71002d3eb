"""Connections to a vault: as many as are needed at once, and no more than that for long."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from streamd.storage import azure_transport

pytestmark = pytest.mark.asyncio
AT_ONCE = 16
KEPT_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """Answers every request with two bytes, once `held` lets it; counts who is connected."""

    def __init__(self) -> None:
        self.connected = self.waiting = 0
        self.held = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.waiting += 1
                await self.held.wait()
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.connected -= 1
            writer.close()


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield service


async def test_connections_of_a_busy_minute_are_closed_although_requests_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_transport, "_KEEPALIVE_SECONDS", KEPT_SECONDS)
    context = ssl.create_default_context()
    async with azure_transport.new_session(context, trust_environment=False) as session:
        asked = [asyncio.create_task(_ask(session, service)) for _ in range(AT_ONCE)]
        while service.waiting < AT_ONCE:
            await asyncio.sleep(0.01)
        service.held.set()
        await asyncio.gather(*asked)
        assert service.connected == AT_ONCE

        until = time.monotonic() + PATIENCE_SECONDS
        while service.connected > 1 and time.monotonic() < until:
            await _ask(session, service)
            await asyncio.sleep(0.01)
        assert service.connected == 1


async def _ask(session: aiohttp.ClientSession, service: Service) -> None:
    async with session.get(service.url) as answer:
        assert await answer.read() == b"ok"
