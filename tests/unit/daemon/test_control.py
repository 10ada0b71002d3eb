"""The control socket answers those who may ask, in bounds, and leaves nothing behind."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from streamd.daemon import control
from streamd.daemon.control import ControlServer, RemoteRefusal, request
from streamd.errors import (
    AlreadyRunning,
    ConfigInvalid,
    DaemonUnreachable,
    ExitCode,
    NotFound,
    StreamdError,
    VaultMissing,
)


class Pong(msgspec.Struct):
    said: str


async def ping(args):
    return Pong(args.get("say", "pong"))


async def fail(args):
    match args["how"]:
        case "not-found":
            raise NotFound("no such {thing}")
        case "missing":
            raise VaultMissing("there is none", url="file:///{x}")
        case "config":
            raise ConfigInvalid("two problems", problems=("a: bad", "b: worse"))
        case _:
            raise RuntimeError("boom")


async def forever(args):
    await asyncio.Event().wait()
    return {}


async def large(args):
    return {"text": "x" * args["size"]}


HANDLERS = {"ping": ping, "fail": fail, "forever": forever, "large": large}


@asynccontextmanager
async def serving(path: Path, **options) -> AsyncIterator[str]:
    server = ControlServer(str(path), HANDLERS, **options)
    server.listen()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await asyncio.sleep(0)  # a task that never began cannot clean up
        try:
            yield str(path)
        finally:
            task.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.mark.asyncio
async def test_a_request_gets_its_result(path: Path) -> None:
    async with serving(path) as at:
        assert await request(at, "ping", {"say": "hello"}, 5) == {"said": "hello"}
        assert await request(at, "ping") == {"said": "pong"}


@pytest.mark.asyncio
async def test_only_owner_and_group_may_connect(path: Path) -> None:
    async with serving(path) as at:
        assert stat.S_IMODE(os.stat(at).st_mode) == 0o660


@pytest.mark.asyncio
async def test_a_refusal_keeps_slug_exit_code_and_remedy(path: Path) -> None:
    async with serving(path) as at:
        with pytest.raises(RemoteRefusal, match=r"no such \{thing\}") as caught:
            await request(at, "fail", {"how": "not-found"}, 5)
        assert (caught.value.code, caught.value.exit_code) == ("not-found", ExitCode.NOT_FOUND)
        assert caught.value.advice() == NotFound.remedy
        with pytest.raises(RemoteRefusal) as caught:
            await request(at, "fail", {"how": "missing"}, 5)
        assert "file:///{x}" in caught.value.advice()
    assert StreamdError.code == "internal", "the class itself is as it was"


@pytest.mark.asyncio
async def test_a_rejected_configuration_comes_with_all_its_problems(path: Path) -> None:
    async with serving(path) as at:
        with pytest.raises(ConfigInvalid) as caught:
            await request(at, "fail", {"how": "config"}, 5)
        assert caught.value.problems == ("a: bad", "b: worse")


@pytest.mark.asyncio
async def test_a_mistake_of_ours_does_not_end_the_server(path: Path) -> None:
    async with serving(path) as at:
        with pytest.raises(RemoteRefusal, match="RuntimeError: boom") as caught:
            await request(at, "fail", {"how": "?"}, 5)
        assert caught.value.exit_code == ExitCode.INTERNAL
        with pytest.raises(RemoteRefusal, match='knows no "dance"'):
            await request(at, "dance", {}, 5)
        assert await request(at, "ping", {}, 5)


@pytest.mark.asyncio
async def test_without_a_daemon_the_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        await request(str(tmp_path / "none"), "status", {}, 5)
    assert str(tmp_path / "none") in caught.value.advice()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    with pytest.raises(DaemonUnreachable):
        await request(str(tmp_path / "dead"), "status", {}, 5)


@pytest.mark.asyncio
async def test_an_answer_that_does_not_come_is_not_waited_for(path: Path) -> None:
    async with serving(path) as at:
        with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.05 s"):
            await request(at, "forever", {}, 0.05)


@pytest.mark.asyncio
async def test_the_daemon_gives_up_on_a_request_that_takes_too_long(path: Path) -> None:
    async with serving(path, request_seconds_max=0.02) as at:
        with pytest.raises(RemoteRefusal, match=r"was not done within 0\.02 s") as caught:
            await request(at, "forever", {}, 5)
        assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.asyncio
async def test_a_long_request_has_no_limit(path: Path) -> None:
    async with serving(path, request_seconds_max=0.01, long_requests={"forever"}) as at:
        with pytest.raises(DaemonUnreachable, match="did not answer"):
            await request(at, "forever", {}, 0.1)


@pytest.mark.asyncio
async def test_a_line_longer_than_the_bound_is_refused(path: Path) -> None:
    async with serving(path) as at:
        with pytest.raises(StreamdError, match=r"longer than 1 MiB|no daemon answers"):
            await request(at, "ping", {"say": "x" * 2_000_000}, 5)
        with pytest.raises(RemoteRefusal, match="ask for less"):
            await request(at, "large", {"size": control.LINE_BYTES_MAX}, 5)
        assert await request(at, "large", {"size": control.LINE_BYTES_MAX - 100}, 5)


@pytest.mark.asyncio
async def test_nonsense_is_answered_with_a_usage_error(path: Path) -> None:
    async with serving(path) as at:
        reader, writer = await asyncio.open_unix_connection(at)
        for line in (b"hello\n", b"[]\n", b'{"do": 5}\n'):
            writer.write(line)
            assert json.loads(await reader.readline())["error"]["code"] == "usage-invalid"
        writer.write(b'{"do": "ping"}\n')
        assert json.loads(await reader.readline()) == {"result": {"said": "pong"}}
        writer.close()


@pytest.mark.asyncio
async def test_a_silent_connection_is_closed(path: Path) -> None:
    async with serving(path, idle_seconds_max=0.02) as at:
        reader, writer = await asyncio.open_unix_connection(at)
        assert await reader.read() == b""
        writer.close()


@pytest.mark.asyncio
async def test_more_connections_than_the_bound_are_turned_away_and_later_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 1)
    async with serving(path) as at:
        reader, writer = await asyncio.open_unix_connection(at)
        writer.write(b'{"do": "ping"}\n')
        await reader.readline()
        with pytest.raises(RemoteRefusal, match="already"):
            await request(at, "ping", {}, 5)
        writer.close()
        await writer.wait_closed()
        for _ in range(100):
            try:
                assert await request(at, "ping", {}, 5)
                break
            except RemoteRefusal:
                await asyncio.sleep(0.01)
        else:
            pytest.fail("the place of the closed connection was not given back")


@pytest.mark.asyncio
async def test_the_socket_goes_with_the_server(path: Path) -> None:
    async with serving(path):
        assert path.exists()
    assert not path.exists()


@pytest.mark.asyncio
async def test_a_stale_socket_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    path.parent.mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with serving(path) as at:
        with pytest.raises(AlreadyRunning):
            ControlServer(at, HANDLERS).listen()
        assert await request(at, "ping", {}, 5)


@pytest.mark.asyncio
async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    with pytest.raises(ConfigInvalid, match="no socket"):
        ControlServer(str(precious), HANDLERS).listen()
    assert precious.read_text() == "data"


@pytest.mark.asyncio
async def test_a_path_too_long_for_a_socket_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"daemon\.socket"):
        ControlServer(str(tmp_path / ("x" * 120)), HANDLERS).listen()


@pytest.mark.asyncio
async def test_stopping_does_not_wait_for_open_connections(path: Path) -> None:
    async with asyncio.timeout(5):
        async with serving(path) as at:
            reader, writer = await asyncio.open_unix_connection(at)
            writer.write(b'{"do": "forever"}\n')
            await writer.drain()
            await asyncio.sleep(0.01)
        assert await reader.read() == b""
        writer.close()
