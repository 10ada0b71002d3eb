"""`streamd retention release`: what happened to a suspect source was meant, or is mended."""

from typing import Annotated

import msgspec

from streamd.cli import context
from streamd.cli.declare import argument, option
from streamd.cli.times import format_time, hold_seconds
from streamd.config.model import Config
from streamd.config.zone import zone_of
from streamd.daemon import control
from streamd.daemon.host import open_host
from streamd.daemon.meters import Meters
from streamd.daemon.oneshot import sending
from streamd.daemon.releasing import ReleaseFacts, release_args, release_here
from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import DaemonUnreachable

_PATIENCE_SECONDS = 120.0  # for the daemon to have it durable


def command(
    source: Annotated[str, argument(help="A source that is suspect.")],
    hold: Annotated[
        str,
        option("--hold", help="Keep the point before the incident that long; 0s: no longer."),
    ] = "7d",
) -> None:
    """Say that the mass damage to a source was meant, or is mended: it is thinned again.

    Retention goes by the policy from then on. The point before the incident stays for --hold, and
    with it the journal since then.
    Example: streamd retention release web --hold 90d
    """
    config = context.load_config()
    args = release_args(source, hold_seconds(hold))
    context.emit(context.run_async(_release(config, args)), lambda facts: _text(facts, config))


async def _release(config: Config, args: dict[str, object]) -> ReleaseFacts:
    try:
        answer = await control.request(
            config.daemon.socket, "retention-release", args, timeout_seconds=_PATIENCE_SECONDS
        )
    except DaemonUnreachable:
        clock, entropy = SystemClock(), SystemEntropy()
        async with (
            open_host(config, clock=clock, entropy=entropy, meters=Meters()) as host,
            sending(host),
        ):
            return await release_here(host, args)
    return msgspec.convert(answer, ReleaseFacts)


def _text(facts: ReleaseFacts, config: Config) -> str:
    zone = zone_of(config.timezone)
    before = format_time(facts.before_us, zone=zone)
    held = f"held until {format_time(facts.hold_until_us, zone=zone)}"
    return (
        f"{facts.source} is released: retention goes by its policy again\n"
        f"the point before, {before} (before-incident), is "
        + (held if facts.hold_until_us else "not held any more")
    )
