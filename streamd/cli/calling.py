"""Calling the function of a command, with what every command has done around it."""

import os
import select
from collections.abc import Callable, Mapping
from typing import Any, Final

from streamd.cli.context import Invocation, Unlock, invocation, set_invocation
from streamd.cli.table import UNLOCK_OPTIONS
from streamd.errors import ExitCode, StreamdError

_STDOUT: Final = 1  # the descriptor


def take_common(config: str | None, json: bool) -> None:
    """Take the options that every command has, where they stand on the command line."""
    before = invocation()
    set_invocation(Invocation(config or before.config_path, json or before.json, before.unlock))


def call(
    function: Callable[..., Any], own: Mapping[str, Any], values: Mapping[str, Any], *, reads: bool
) -> Any:
    """Return what a command returns. `own` are its parameters; `values` has the common ones too."""
    config, json = values.get("config"), values.get("json", False)
    take_common(str(config) if config else None, bool(json))
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


def _reader_has_left() -> bool:
    """Return whether nobody reads our standard output any more."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _prepare_logging() -> None:
    """Keep standard output for the result; `streamd run` raises the level itself."""
    from streamd.observe import logging

    logging.configure(level="warning")
