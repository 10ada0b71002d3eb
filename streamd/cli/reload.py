"""`streamd reload`: make the running daemon read its configuration again, and say what changed."""

import os
import tomllib
from typing import Annotated, Final

import msgspec

from streamd.cli.context import config_path, emit, load_config, run_async
from streamd.cli.declare import option
from streamd.daemon import control
from streamd.daemon.status import ReloadReport
from streamd.errors import ConfigInvalid

WAIT_SECONDS: Final = 15 * 60.0  # a source that begins to be watched may be large


def command(
    wait: Annotated[
        bool,
        option("--wait", help="Return only when the changes are in force."),
    ] = False,
) -> None:
    """Make the running daemon read its configuration again.

    A configuration that is not valid is refused with all its problems and exit code 4, and the
    daemon goes on with the one it has. Example: streamd reload --wait
    """
    timeout_seconds = WAIT_SECONDS if wait else control.REQUEST_SECONDS_MAX
    answer = run_async(control.request(_socket(), "reload", {"wait": wait}, timeout_seconds))
    emit(msgspec.convert(answer, ReloadReport), _text)


def _socket() -> str:
    """Return where the daemon listens.

    That stands in the configuration, which may be invalid just now: then it is looked for without
    minding the rest, so that the daemon hears of the refusal too. Raises ConfigInvalid.
    """
    try:
        return load_config().daemon.socket
    except ConfigInvalid:
        try:
            with open(config_path(), "rb") as file:
                socket = tomllib.load(file)["daemon"]["socket"]
        except (OSError, ValueError, KeyError, TypeError):
            socket = None
        if not isinstance(socket, str) or not os.path.exists(socket):
            raise
        return socket


def _text(report: ReloadReport) -> str:
    lines = [
        *(f"new source       {name}" for name in report.added_sources),
        *(f"removed source   {name}" for name in report.removed_sources),
        *(f"changed source   {name}" for name in report.changed_sources),
        *(f"changed          {key}" for key in report.applies),
        *(f"needs a restart  {key}" for key in report.needs_restart),
    ]
    return "\n".join(lines) or "nothing changed"
