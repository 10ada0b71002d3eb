"""What every command needs: its configuration, and one way to say what it found.

`-c/--config` and `--json` belong to every command; `cli.main` parses them, and a command asks here.
A command gathers a report (a msgspec Struct, whose fields are the JSON contract: only ever added
to), hands it to `emit`, and returns its exit code (None means OK):

    def command(source: Annotated[str, argument(help="…")]) -> ExitCode:
        report = run_async(_gather(load_config(), source))
        emit(report, _text)
        return ExitCode.OK if report.complete else ExitCode.INCOMPLETE

It raises StreamdError for what goes wrong and never prints an error itself.
"""

import os
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

if TYPE_CHECKING:  # the model takes longer to import than `streamd --help` may take
    from streamd.config.model import Config

DEFAULT_CONFIG: Final = "/etc/streamd/streamd.toml"
CONFIG_VARIABLE: Final = "STREAMD_CONFIG"

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")


class Unlock(msgspec.Struct, frozen=True):
    """What a reading command was told to open the vault with, instead of the host's key file."""

    kit: str | None = None
    code_file: str | None = None
    passphrase_file: str | None = None
    slot_key_file: str | None = None
    vault: str | None = None  # where the vault is
    host: str | None = None  # whose history


NO_UNLOCK: Final = Unlock()


class Invocation(msgspec.Struct, frozen=True):
    """What was said on the command line about the command itself."""

    config_path: str | None = None
    json: bool = False
    unlock: Unlock = NO_UNLOCK


_PLAIN: Final = Invocation()
_current: ContextVar[Invocation] = ContextVar("invocation", default=_PLAIN)


def invocation() -> Invocation:
    """Return how this command was called."""
    return _current.get()


def set_invocation(value: Invocation) -> None:
    """Say how the command is called; `cli.main` and tests do."""
    _current.set(value)


def is_json() -> bool:
    """Return whether the caller wants JSON; then nothing else may go to standard output."""
    return _current.get().json


def config_path(path: str | os.PathLike[str] | None = None) -> str:
    """Return the path of the configuration: `path`, -c, $STREAMD_CONFIG, or the default."""
    chosen = path or _current.get().config_path or os.environ.get(CONFIG_VARIABLE)
    return os.path.abspath(chosen or DEFAULT_CONFIG)


def load_config(path: str | os.PathLike[str] | None = None) -> "Config":
    """Return the configuration that this command works with. Raises ConfigInvalid.

    Only the values are checked; a command that needs the protected paths of this host calls
    `config.host.check_host` too.
    """
    from streamd.config.load import load

    unlock = _current.get().unlock
    if path is None and unlock != NO_UNLOCK:
        from streamd.cli.unlocked import config_for

        return config_for(unlock, config_path())
    return load(config_path(path))


def emit(report: R, text: Callable[[R], str]) -> None:
    """Print `report`: as one JSON object with --json, else as `text(report)`."""
    if is_json():
        sys.stdout.write(msgspec.json.encode(report).decode("utf-8") + "\n")
    elif written := text(report):
        sys.stdout.write(written.rstrip("\n") + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something to the person at the terminal that is not part of the result."""
    if not is_json():
        sys.stderr.write(text + "\n")


def has_terminal() -> bool:
    """Return whether a person is there to be shown and asked something."""
    return not is_json() and sys.stdin.isatty() and sys.stderr.isatty()


def host_name() -> str:
    """Return this host's name, for certificates."""
    import socket

    return socket.gethostname()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, run on a new event loop."""
    import asyncio

    import uvloop

    from streamd.daemon.garbage import collect_seldom
    from streamd.daemon.memory import keep_buffers

    keep_buffers()
    collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
