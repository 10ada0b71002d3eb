"""Commands that are imported when they are called: `streamd --help` imports none of them.

`TABLE` is the whole command line: name, where it is, and what it does in one line. A group of
commands is a table in the table.
"""

import inspect
import os
import select
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Annotated, Any, Final

import msgspec
import typer
from typer.core import TyperGroup
from typer.main import get_command

from streamd.cli.context import Invocation, Unlock, invocation, set_invocation
from streamd.errors import ExitCode, StreamdError

_STDOUT: Final = 1  # the descriptor

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        help="The configuration; default $STREAMD_CONFIG or /etc/streamd/streamd.toml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as one JSON object.")]


class Command(msgspec.Struct, frozen=True):
    """One command: the function `function` of `module`, and its line in the list."""

    module: str
    help: str
    function: str = "command"
    reads: bool = False  # the vault: it can be opened with a kit instead of the key file


class Group(msgspec.Struct, frozen=True):
    """Commands under a common first word."""

    help: str
    commands: Mapping[str, Command]


TABLE: Final[Mapping[str, Command | Group]] = {
    "init": Command("init", "Create the vault, its keys and the recovery kit."),
    "run": Command("run", "Run the daemon in the foreground; what systemd starts."),
    "capture": Command("capture", "Make every difference durable once, without the daemon."),
    "status": Command("status", "Show what is protected and what is not, worst first."),
    "problems": Command("problems", "List what is not protected, and why."),
    "explain": Command("explain", "Say why a path is protected or not, and what keeps it."),
    "points": Command("points", "List what instants can be restored.", reads=True),
    "ls": Command("ls", "List a directory as it was.", reads=True),
    "history": Command("history", "List the versions of a file.", reads=True),
    "find": Command("find", "Find paths by pattern, in all of time.", reads=True),
    "diff": Command("diff", "Show what changed between two instants.", reads=True),
    "cat": Command("cat", "Write a file as it was to standard output.", reads=True),
    "restore": Command("restore", "Bring back files as they were.", reads=True),
    "retention": Group(
        "Show or do what the policies ask for.",
        {
            "plan": Command(
                "retention", "Show what would go, and why each point is kept.", "plan", reads=True
            ),
            "run": Command(
                "retention", "Thin the points and delete what nothing needs.", "run_", reads=True
            ),
        },
    ),
    "verify": Command("verify", "Prove the vault.", reads=True),
    "key": Group(
        "Look at and change what opens the vault.",
        {
            "list": Command("key_facts", "Show this host's role and the key slots.", "list_"),
            "add": Command("key", "Add a passphrase, a key file or a recovery kit.", "add"),
            "revoke": Command("key", "Take slots away, or trust in a signing key.", "revoke"),
            "rotate": Command("key_facts", "Replace a slot, key pairs or signing key.", "rotate"),
            "test": Command("key_facts", "Prove that a kit opens the vault.", "test", reads=True),
            "host-role": Command("key_facts", "Make this host full or write-only.", "host_role"),
        },
    ),
    "config": Group(
        "Look at the configuration.",
        {
            "check": Command("config_commands", "Validate the configuration.", "check"),
            "show": Command("config_commands", "Print the effective configuration.", "show"),
            "diff": Command("config_commands", "Say what a reload would change.", "diff"),
        },
    ),
    "reload": Command("reload", "Make the running daemon read its configuration again."),
    "doctor": Command("doctor", "Check host and vault, one by one, each with its remedy."),
    "pause": Command("traffic", "Send nothing to the container for a while.", "pause"),
    "resume": Command("traffic", "Send again as the configuration says.", "resume"),
    "limit": Command("traffic", "Send at most so much to the container.", "limit"),
    "errors": Command("errors_command", "List every error, its exit code and remedy."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports one when it is asked for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands from the table alone."""
        del ctx
        assert isinstance(self.commands, _Commands)
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.commands.table.items()])


class _Commands(MutableMapping[str, Any]):
    """Commands by name; reading one imports it."""

    def __init__(self, table: Mapping[str, Command | Group]) -> None:
        self.table = table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Any:
        entry = self.table[name]
        if isinstance(entry, Group):
            return build_group(name, entry.commands, help=entry.help)
        module = import_module(f"streamd.cli.{entry.module}")
        return _built(name, getattr(module, entry.function), reads=entry.reads)

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError(f"commands are added to the table: {name}")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"commands are removed from the table: {name}")


def build_group(
    name: str,
    table: Mapping[str, Command | Group] | Mapping[str, Command],
    *,
    help: str,  # noqa: A002 - typer's word
    callback: Callable[..., None] | None = None,
) -> TyperGroup:
    """Return the group `name` of the commands in `table`."""
    app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, add_completion=False)
    app.callback(help=help)(callback or _common_options)
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    group.name = name
    group.commands = _Commands(dict(table))
    return group


def _common_options(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Take the options that every command has where they stand before its name."""
    before = invocation()
    set_invocation(Invocation(config or before.config_path, json or before.json, before.unlock))


def _built(name: str, function: Callable[..., Any], *, reads: bool) -> Any:
    """Return `function` as a command called `name`, with the options that every command has."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name)(_with_common_options(function, reads=reads))
    return get_command(app)


def _option(kind: Any, name: str, metavar: str, text: str) -> Any:
    return Annotated[kind, typer.Option(name, metavar=metavar, help=text)]


_COMMON: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("config", None, ConfigOption),
    ("json", False, JsonOption),
)
UNLOCK_OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = tuple(
    (name, None, _option(str | None, option, metavar, text))
    for name, option, metavar, text in (
        ("kit", "--kit", "FILE", "Read with this recovery kit instead of the key file."),
        ("code_file", "--code-file", "FILE", "Holds the kit's recovery code; else it is asked."),
        ("passphrase_file", "--passphrase-file", "FILE", "Read with the passphrase in this file."),
        ("slot_key_file", "--slot-key-file", "FILE", "Read with this key file of a slot."),
        ("vault", "--vault", "URL", "Where the vault is, if not where configuration or kit say."),
        ("host", "--host", "NAME", "Whose history, where the vault has several hosts."),
    )
)


def _with_common_options(function: Callable[..., Any], *, reads: bool) -> Callable[..., Any]:
    """Return `function` with -c/--config and --json, which go to the invocation.

    One that reads the vault gets the options to unlock it, too. A function that has parameters of
    these names itself gets their values too.
    """
    signature = inspect.signature(function, eval_str=True)
    own = signature.parameters
    offered = UNLOCK_OPTIONS if reads else ()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (*offered, *_COMMON)
        if name not in own
    ]

    def command(**values: Any) -> Any:
        config, json = values.get("config"), values.get("json", False)
        _common_options(str(config) if config else None, bool(json))
        if reads:
            unlock = Unlock(**{name: values.get(name) for name, _, _ in UNLOCK_OPTIONS})
            now = invocation()
            set_invocation(Invocation(now.config_path, now.json, unlock))
        _prepare_logging()
        try:
            return function(**{name: values[name] for name in own})
        except BrokenPipeError as error:
            if not _reader_has_left():
                # typer would take any broken pipe for that of standard output
                raise StreamdError("a connection broke off") from error
            # whoever read our output has seen enough; let the interpreter flush into nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
            return ExitCode.OK

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
    command.__signature__ = signature.replace(parameters=[*parameters, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*parameters, *added)}
    command.__doc__ = function.__doc__
    return command


def _reader_has_left() -> bool:
    """Return whether nobody reads our standard output any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _prepare_logging() -> None:
    """Keep standard output for the result; `streamd run` raises the level itself."""
    from streamd.observe import logging

    logging.configure(level="warning")
