"""How fast objects leave for a container over TLS: streamd's adapter beside a bare aiohttp client.

    python -m bench.sink [MIB] [ROUNDS]

The sink is a process of its own on loopback that reads and forgets. Both clients send the same
16 MiB bodies, four at once, in slices of at most 256 KiB, through one session with one TLS context;
they take turns, so that the ratio is fair on a machine that does other things as well. What is
shown is the best of the rounds: megabytes per second, and processor seconds of the client per GB.
"""

import asyncio
import json
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

BODY_BYTES = 16 << 20
SLICE_BYTES = 256 << 10
AT_ONCE = 4
_CREATED = (
    b'HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: "0x1"\r\n'
    b"Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nx-ms-version: 2024-11-04\r\n\r\n"
)


class Pace(NamedTuple):
    """How one client did."""

    megabytes_per_second: float
    cpu_seconds_per_gb: float
    resident_mib: float


class _Sink(asyncio.BufferedProtocol):
    """Reads requests, forgets bodies, answers 201."""

    def __init__(self) -> None:
        self._buffer = bytearray(SLICE_BYTES)
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, _: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self._left > size:
            self._left -= size
            return
        data = bytes(self._buffer[:size])
        if self._left:
            data = data[self._left :]
            self._left = 0
            self._transport.write(_CREATED)
        self._head += data
        if b"\r\n\r\n" in self._head:
            head, _, rest = self._head.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            self._head = b""
            self._left = length - len(rest)
            if self._left == 0:
                self._transport.write(_CREATED)


async def _serve(certificate: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Sink, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started us goes


async def _bare(url: str, ca_file: str, count: int) -> None:
    import aiohttp

    body = bytes(BODY_BYTES)

    async def slices() -> AsyncIterator[memoryview]:
        view = memoryview(body)
        for start in range(0, len(view), SLICE_BYTES):
            yield view[start : start + SLICE_BYTES]

    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca_file))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(numbers: AsyncIterator[int]) -> None:
            async for number in numbers:
                headers = {"Content-Length": str(BODY_BYTES), "If-None-Match": "*"}
                async with session.put(
                    f"{url}/p/{number}", data=slices(), headers=headers
                ) as answer:
                    assert answer.status == 201
                    await answer.read()

        await _at_once(send, count)


async def _streamd(url: str, ca_file: str, count: int) -> None:
    from streamd.storage.azure import AzureBlobStore
    from streamd.storage.azure_access import AzureAccess
    from streamd.storage.port import BlobName

    body = bytes(BODY_BYTES)
    store = AzureBlobStore(AzureAccess(url=url, auth="shared-key", secret="a2V5", ca_file=ca_file))

    async def send(numbers: AsyncIterator[int]) -> None:
        async for number in numbers:
            await store.put(BlobName(f"p/{number}"), body)

    await _at_once(send, count)
    await store.aclose()


async def _at_once(send, count: int) -> None:
    left = iter(range(count))

    async def numbers() -> AsyncIterator[int]:
        for number in left:
            yield number

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(send(numbers()))


def _client(kind: str, url: str, ca_file: str, mebibytes: int) -> None:
    """Send, in a process of its own, and print how it went."""
    import uvloop

    work = {"bare": _bare, "streamd": _streamd}[kind]
    count = max(1, mebibytes * (1 << 20) // BODY_BYTES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(url, ca_file, AT_ONCE))  # imports, connections, handshakes
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.monotonic()
        runner.run(work(url, ca_file, count))
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = count * BODY_BYTES
    pace = Pace(size / seconds / 1e6, cpu / (size / 1e9), after.ru_maxrss / 1024)
    print(json.dumps(pace))


def compare(mebibytes: int, rounds: int) -> dict[str, Pace]:
    """Return how each client did, the best of `rounds`, taken in turns."""
    import trustme

    module = [sys.executable, "-m", "bench.sink"]
    with TemporaryDirectory(prefix="sink-") as folder:
        authority = trustme.CA()
        certificate, ca_file = str(Path(folder) / "server.pem"), str(Path(folder) / "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(ca_file)
        sink = subprocess.Popen(
            [*module, "serve", certificate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert sink.stdout is not None
            url = f"https://127.0.0.1:{int(sink.stdout.readline())}/account/cont"
            found: dict[str, list[Pace]] = {"bare": [], "streamd": []}
            for _ in range(rounds):
                for kind, paces in found.items():
                    done = subprocess.run(
                        [*module, kind, url, ca_file, str(mebibytes)],
                        capture_output=True,
                        text=True,
                        check=True,
                        timeout=600,
                    )
                    paces.append(Pace(*json.loads(done.stdout)))
        finally:
            sink.communicate("")
    return {
        kind: Pace(
            max(one.megabytes_per_second for one in paces),
            min(one.cpu_seconds_per_gb for one in paces),
            min(one.resident_mib for one in paces),
        )
        for kind, paces in found.items()
    }


def main(arguments: list[str]) -> None:
    """Compare, or be one of the processes of a comparison."""
    if arguments[:1] == ["serve"]:
        asyncio.run(_serve(arguments[1]))
        return
    if arguments[:1] in (["bare"], ["streamd"]):
        _client(arguments[0], arguments[1], arguments[2], int(arguments[3]))
        return
    mebibytes, rounds = (
        (int(one) for one in [*arguments, "1024", "3"][:2])
        if len(arguments) != 1
        else (int(arguments[0]), 3)
    )
    paces = compare(mebibytes, rounds)
    for kind, pace in paces.items():
        print(
            f"{kind:8} {pace.megabytes_per_second:6.0f} MB/s"
            f" {pace.cpu_seconds_per_gb:5.2f} CPU s/GB {pace.resident_mib:5.0f} MiB"
        )
    ratio = paces["streamd"].megabytes_per_second / paces["bare"].megabytes_per_second
    print(f"ratio    {ratio:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
