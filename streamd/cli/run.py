"""`streamd run`: the daemon in the foreground, and on a terminal a line about how it stands."""

import asyncio
import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

from streamd.cli import context, render
from streamd.cli.declare import option
from streamd.errors import ExitCode, StreamdError

if TYPE_CHECKING:
    from streamd.daemon.main import Announce, Daemon

_LOOK_SECONDS = 0.5  # on a terminal
_LOG_LOOK_SECONDS = 2.0
_LINE_SECONDS = 15.0  # without a terminal: how often the line is printed when nothing changes


def command(
    quiet: Annotated[
        bool, option("--quiet", help="No lines on standard output, only the log.")
    ] = False,
) -> ExitCode:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    Example: streamd run -c /etc/streamd/streamd.toml
    """
    from streamd.config.host import check_host
    from streamd.daemon.main import Daemon
    from streamd.daemon.memory import keep_buffers
    from streamd.daemon.notify import Notifier
    from streamd.effects import SystemClock, SystemEntropy
    from streamd.observe.logging import configure, get_logger

    keep_buffers()  # before the first thread, see there
    configure(level="info")
    path = os.path.abspath(context.config_path())
    config = context.load_config()
    check_host(config)
    daemon = Daemon(path, config, clock=SystemClock(), entropy=SystemEntropy(), notifier=Notifier())
    is_service = "INVOCATION_ID" in os.environ and not sys.stdout.isatty()
    try:
        context.run_async(_to_the_end(daemon, None if quiet or is_service else _announce))
    except* StreamdError as group:
        raise first_of(group) from group  # one line, with its remedy
    except* Exception as group:
        get_logger("daemon").critical("crashed", error=repr(group), exc_info=group)
        raise
    return ExitCode.OK


async def _to_the_end(daemon: "Daemon", announce: "Announce | None") -> None:
    """Run the daemon, and end when it has, although a call into a dead file system hangs."""
    from streamd.daemon.lost_threads import end_soon

    await daemon.run(announce)
    end_soon(ExitCode.OK)


def first_of(group: BaseExceptionGroup[StreamdError]) -> StreamdError:
    """Return the first error of a group of groups."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


async def _announce(daemon: "Daemon") -> None:
    """Print what is protected and how to restore; then a line whenever that changes."""
    await daemon.started.wait()
    print(_banner(daemon), flush=True)
    last, printed = "", 0.0
    loop = asyncio.get_running_loop()
    on_terminal = sys.stdout.isatty()
    while True:
        line = _line(daemon)
        if on_terminal:
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif _shape(line) != _shape(last) or loop.time() - printed > _LINE_SECONDS:
            print(line, flush=True)
            last, printed = line, loop.time()
        await asyncio.sleep(_LOOK_SECONDS if on_terminal else _LOG_LOOK_SECONDS)


def _banner(daemon: "Daemon") -> str:
    config = daemon.config
    program = _program()
    restore = f"{program} restore -c {daemon.path} {next(iter(config.sources), 'SOURCE')}"
    lines = [f"streamd protects, continuously, to {config.vault.url} (encrypted)"]
    for name, source in config.sources.items():
        paths = ", ".join(source.paths)
        lines.append(f"  {name}: {paths}  (at most {source.rpo_seconds} s of change may be lost)")
    if config.metrics.address is not None:
        host, _ = config.metrics.address
        lines.append(f"  metrics   http://{host}:{daemon.http_port}/metrics")
    lines += [
        f"  status    {program} status -c {daemon.path}",
        f"  restore   {restore} --to /tmp/restored",
        f"  an hour ago       {restore} --at -1h --to /tmp/before",
        "  stop with Ctrl-C",
    ]
    return "\n".join(lines)


def _program() -> str:
    """Return what to type to run streamd again: it is not on everybody's PATH."""
    if shutil.which("streamd") is not None:
        return "streamd"
    beside = os.path.join(os.path.dirname(sys.executable), "streamd")
    return beside if os.path.exists(beside) else f"{sys.executable} -m streamd"


def _line(daemon: "Daemon") -> str:
    parts = []
    for name, running in daemon.running.items():
        protection = running.protection
        if protection is None:
            parts.append(f"{name}: {running.failure or 'starting'}")
            continue
        progress = protection.progress
        lag = max(protection.watermarks.lag_seconds(each) for each in daemon.destinations())
        state = progress.state
        if state == "protected" and lag > running.config.rpo_seconds:
            state = "lagging"
        text = f"{name}: {state}, lag {render.duration(lag)}, {progress.entry_count:,} entries"
        if protection.watermarks.waiting():
            text += ", events wait"
        if progress.dirty_count:
            text += f", {progress.dirty_count:,} changes waiting"
        if progress.problem_count:
            text += f", {progress.problem_count:,} problems"
        parts.append(text)
    return " | ".join(parts)


def _shape(line: str) -> str:
    return "".join(letter for letter in line if not letter.isdigit())
