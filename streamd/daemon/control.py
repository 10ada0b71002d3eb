"""The control socket: how a command asks the running daemon, and how the daemon answers.

A UNIX stream socket; one JSON object per line in each direction:

    {"do": "status", "args": {…}}
    {"result": {…}}   or
    {"error": {"code", "message", "remedy", "exit_code", "problems"}}

A connection may ask several times, one request after the other. Who may connect is decided by the
mode of the socket file (owner and group); every request that changes something is logged with the
peer's user. Lines, connections and the time of a request are bounded.
"""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from streamd.errors import (
    AlreadyRunning,
    ConfigInvalid,
    DaemonUnreachable,
    ExitCode,
    StreamdError,
    UsageInvalid,
)
from streamd.observe.logging import get_logger

LINE_BYTES_MAX: Final = 1024 * 1024
CONNECTIONS_MAX: Final = 16
REQUEST_SECONDS_MAX: Final = 30.0
IDLE_SECONDS_MAX: Final = 30.0
# work that may take as long as it takes; the asking side has its own patience
LONG_REQUESTS: Final = frozenset({"capture", "reload", "retention-run", "stop", "verify"})
QUIET_REQUESTS: Final = frozenset({"status", "problems", "explain"})  # they change nothing
_SOCKET_MODE: Final = 0o660
_BACKLOG: Final = 16
_ACCEPT_PAUSE_SECONDS: Final = 0.2
_PEER: Final = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED

Handler = Callable[[dict[str, Any]], Awaitable[msgspec.Struct | dict[str, Any]]]
_log = get_logger("control")


class _Request(msgspec.Struct, frozen=True):
    do: str
    args: dict[str, Any] = {}


class _Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: str
    message: str
    remedy: str
    exit_code: int
    problems: tuple[str, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    result: dict[str, Any] | None = None
    error: _Failure | None = None


class RemoteRefusal(StreamdError):
    """What the daemon said instead of a result; slug, exit code and remedy are the daemon's."""

    def __init__(self, what: str, *, code: str, exit_code: int, remedy: str) -> None:
        super().__init__(what)
        escaped = remedy.replace("{", "{{").replace("}", "}}")  # facts are filled in already
        vars(self).update(code=code, exit_code=exit_code, remedy=escaped)


class _Facts(dict[str, object]):
    """Facts of an error; one that was not given is shown by its name."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


# -- the daemon's side ---------------------------------------------------------------------------


class ControlServer:
    """Answers requests at `path` with `handlers`, by the name of what is to be done.

    A handler gets the request's arguments and returns a struct or a dict that JSON can show; it
    refuses with a StreamdError. `long_requests` have no time limit.
    """

    def __init__(
        self,
        path: str,
        handlers: Mapping[str, Handler],
        *,
        long_requests: Collection[str] = LONG_REQUESTS,
        request_seconds_max: float = REQUEST_SECONDS_MAX,
        idle_seconds_max: float = IDLE_SECONDS_MAX,
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._long_requests = long_requests
        self._request_seconds_max = request_seconds_max
        self._idle_seconds_max = idle_seconds_max
        self._listener: socket.socket | None = None
        self._connection_count = 0

    def listen(self) -> None:
        """Take the socket's place; a stale one is replaced. `run` does it if nobody has.

        Raises AlreadyRunning when a daemon answers there, ConfigInvalid when the path cannot be
        used.
        """
        if self._listener is None:
            self._listener = _listen(self._path)

    async def run(self) -> None:
        """Answer until cancelled, then remove the socket. Raises like `listen`."""
        self.listen()
        assert self._listener is not None
        inode = _inode(self._path)
        try:
            async with asyncio.TaskGroup() as group:
                await self._accept(self._listener, group)
        finally:
            self._listener.close()
            self._listener = None
            if inode is not None and _inode(self._path) == inode:
                os.unlink(self._path)

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors: those in use will come back
                _log.warning("connection not accepted", problem=error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            group.create_task(self._serve(connection), name="control:connection")

    async def _serve(self, connection: socket.socket) -> None:
        _, uid, _ = _PEER.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        self._connection_count += 1
        try:
            reader, writer = await asyncio.open_unix_connection(
                sock=connection, limit=LINE_BYTES_MAX
            )
            try:
                await self._converse(reader, writer, uid)
            finally:
                writer.close()
        except (OSError, TimeoutError) as error:
            _log.debug("connection lost", uid=uid, problem=str(error) or type(error).__name__)
        finally:
            self._connection_count -= 1

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int
    ) -> None:
        """Answer the requests of one connection until it ends, errs or falls silent."""
        is_open = True
        while is_open:
            if self._connection_count > CONNECTIONS_MAX:
                answer, is_open = _error(_too_many(self._path)), False
            else:
                try:
                    async with asyncio.timeout(self._idle_seconds_max):
                        line = await reader.readline()
                except ValueError:  # how a StreamReader says that the line is too long
                    answer = _error(UsageInvalid("a request is longer than 1 MiB"))
                    is_open = False
                else:
                    if not line:
                        return
                    answer = await self._answer(line, uid)
            writer.write(answer + b"\n")
            async with asyncio.timeout(self._idle_seconds_max):
                await writer.drain()

    async def _answer(self, line: bytes, uid: int) -> bytes:
        try:
            asked = msgspec.json.decode(line, type=_Request)
            answer = msgspec.json.encode({"result": await self._do(asked, uid)})
        except msgspec.MsgspecError as error:
            return _error(UsageInvalid(f"the request cannot be understood: {error}"))
        except StreamdError as error:
            return _error(error)
        except Exception as error:  # noqa: BLE001 - the daemon outlives a bad request
            _log.exception("request failed")
            return _error(StreamdError(f"{type(error).__name__}: {error}"))
        if len(answer) >= LINE_BYTES_MAX:
            return _error(UsageInvalid("the answer is longer than 1 MiB: ask for less"))
        return answer

    async def _do(self, asked: _Request, uid: int) -> msgspec.Struct | dict[str, Any]:
        handler = self._handlers.get(asked.do)
        if handler is None:
            raise UsageInvalid(f'the daemon knows no "{asked.do[:100]}"')
        if asked.do not in QUIET_REQUESTS:
            _log.info("request", do=asked.do, uid=uid)
        seconds = None if asked.do in self._long_requests else self._request_seconds_max
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await handler(asked.args)
        except TimeoutError as error:
            if not limit.expired():
                raise  # the handler's own
            what = f'"{asked.do}" was not done within {seconds:g} s'
            raise DaemonUnreachable(what, socket=self._path) from error


def _too_many(path: str) -> StreamdError:
    return DaemonUnreachable(f"{CONNECTIONS_MAX} commands talk to the daemon already", socket=path)


def _error(error: StreamdError) -> bytes:
    failure = _Failure(
        code=error.code,
        message=" ".join(str(error).split()),
        remedy=error.remedy.format_map(_Facts(error.facts)),
        exit_code=error.exit_code,
        problems=error.problems if isinstance(error, ConfigInvalid) else (),
    )
    return msgspec.json.encode({"error": failure})


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, _SOCKET_MODE)  # nobody can connect before `listen`
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        raise ConfigInvalid(f"daemon.socket: cannot listen at {path}: {why}") from error
    except StreamdError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket at which nobody listens any more."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigInvalid(f"daemon.socket: {path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise AlreadyRunning(f"a daemon answers at {path}", path=os.path.dirname(path))


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# -- the command's side --------------------------------------------------------------------------


async def request(
    socket_path: str,
    do: str,
    args: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = REQUEST_SECONDS_MAX,
) -> dict[str, Any]:
    """Ask the daemon at `socket_path` and return its result.

    Raises DaemonUnreachable when none answers (in time, if there is a limit), ConfigInvalid with
    its problems, and RemoteRefusal for anything else the daemon refuses with.
    """
    line = msgspec.json.encode(_Request(do, dict(args or {}))) + b"\n"
    try:
        async with asyncio.timeout(timeout_seconds):
            answer = await _exchange(socket_path, line)
    except TimeoutError as error:
        what = f"the daemon did not answer within {timeout_seconds:g} s"
        raise DaemonUnreachable(what, socket=socket_path) from error
    except PermissionError as error:
        raise RemoteRefusal(
            f"{socket_path}: permission denied",
            code=DaemonUnreachable.code,
            exit_code=ExitCode.UNREACHABLE,
            remedy="run the command as root, or as a member of the socket's group",
        ) from error
    except (OSError, ValueError) as error:
        what = f"no daemon answers at {socket_path}"
        raise DaemonUnreachable(what, socket=socket_path) from error
    return _result(answer, socket_path)


async def _exchange(socket_path: str, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=LINE_BYTES_MAX + 1)
    try:
        writer.write(line)
        await writer.drain()
        return await reader.readline()
    finally:
        writer.close()


def _result(line: bytes, socket_path: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise DaemonUnreachable("the daemon went away before it answered", socket=socket_path)
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except msgspec.MsgspecError as error:
        what = f"what answers at {socket_path} is no daemon of this version"
        raise DaemonUnreachable(what, socket=socket_path) from error
    failure = answer.error
    if failure is None:
        return answer.result or {}
    if failure.code == ConfigInvalid.code:
        raise ConfigInvalid(failure.message, problems=failure.problems)
    known = {code.value for code in ExitCode}
    raise RemoteRefusal(
        failure.message,
        code=failure.code,
        exit_code=failure.exit_code if failure.exit_code in known else ExitCode.INTERNAL,
        remedy=failure.remedy,
    )
