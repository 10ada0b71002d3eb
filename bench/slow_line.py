"""A slow line in front of a server on loopback: whatever is sent to it shares one rate.

    python -m bench.slow_line SERVER_PORT BYTES_PER_SECOND

Prints the port that it listens on, and ends when its standard input does. Buffers are small, so that
who sends sees the pace of the line and not that of the kernel's memory.
"""

import asyncio
import socket
import sys

PIECE_BYTES = 32 << 10
_BURST_SECONDS = 0.05


class Line:
    """Bytes pass first come, first served, at a rate."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def passes(self, size: int) -> None:
        """Return when `size` more bytes are through."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - _BURST_SECONDS) + size / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


async def serve(server_port: int, bytes_per_second: float) -> None:
    """Forward until standard input ends; what the server answers passes at once."""
    line = Line(bytes_per_second)

    async def forward(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Line | None
    ) -> None:
        try:
            while data := await reader.read(PIECE_BYTES):
                if through is not None:
                    await through.passes(len(data))
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server_port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forward(reader, to_writer, line))
            tasks.create_task(forward(to_reader, writer, None))

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * PIECE_BYTES)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(connected, sock=listening, limit=PIECE_BYTES)
    print(listening.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
