"""The whole command line: the name of each command, where it is, what it does in one line.

A group of commands is a table in the table. What is here is loaded by every command.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from streamd.cli.declare import option

ConfigOption = Annotated[
    str | None,
    option(
        "-c",
        "--config",
        metavar="FILE",
        help="The configuration; default $STREAMD_CONFIG or /etc/streamd/streamd.toml.",
    ),
]
JsonOption = Annotated[bool, option("--json", help="Print facts as one JSON object.")]


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
            "release": Command("release", "Let a suspect source be thinned again."),
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

COMMON_OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("config", None, ConfigOption),
    ("json", False, JsonOption),
)
UNLOCK_OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = tuple(
    (name, None, Annotated[str | None, option(long, metavar=metavar, help=text)])
    for name, long, metavar, text in (
        ("kit", "--kit", "FILE", "Read with this recovery kit instead of the key file."),
        ("code_file", "--code-file", "FILE", "Holds the kit's recovery code; else it is asked."),
        ("passphrase_file", "--passphrase-file", "FILE", "Read with the passphrase in this file."),
        ("slot_key_file", "--slot-key-file", "FILE", "Read with this key file of a slot."),
        ("vault", "--vault", "URL", "Where the vault is, if not where configuration or kit say."),
        ("host", "--host", "NAME", "Whose history, where the vault has several hosts."),
    )
)
