"""An HTTP proxy on loopback: CONNECT, and a password if there is one. Keeps a log."""

import asyncio
import base64
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024


class ConnectProxy:
    """`asked` holds the targets. Only CONNECT: what is not encrypted does not pass."""

    def __init__(self, *, user: str = "", password: str = "", status: int = 200) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.refused = 0
        self._wanted = ""
        self._status = status
        if user:
            self._wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
                if self._wanted and headers.get("Proxy-Authorization") != self._wanted:
                    self.refused += 1
                    await self._answer(writer, "407 Proxy Authentication Required")
                elif method != "CONNECT" or self._status != 200:
                    self.refused += 1
                    await self._answer(writer, f"{self._status if method == 'CONNECT' else 405} No")
                else:
                    self.asked.append(target)
                    await self._pass_on(target, reader, writer)
        finally:
            writer.close()

    @staticmethod
    async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    @staticmethod
    async def _pass_on(
        target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while piece := await source.read(_PIECE):
                    sink.write(piece)
                    await sink.drain()
            sink.close()

        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(pump(reader, far_writer))
            pumps.create_task(pump(far_reader, writer))
