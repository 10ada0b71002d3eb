"""`streamd pause`, `resume` and `limit`: what the running daemon may send to the container.

Watching and the local copy go on; what was captured meanwhile is sent later, in order.
"""

from typing import Annotated

import msgspec

from streamd.cli import render
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import argument, option
from streamd.cli.times import format_time
from streamd.config.model import Config
from streamd.config.units import format_rate, parse_duration, parse_rate
from streamd.config.zone import zone_of
from streamd.daemon import control
from streamd.daemon.traffic import TrafficReport
from streamd.errors import UsageInvalid

ForOption = Annotated[
    str, option("--for", metavar="DURATION", help="For so long; until `resume` if not given.")
]


def pause(for_: ForOption = "") -> None:
    """Send nothing to the container; an order outlives a restart of the daemon.

    Protection goes on into the local copy. Example: streamd pause --for 2h
    """
    _order("pause", {"seconds": _seconds(for_)})


def resume() -> None:
    """Send again as the configuration says: the end of `pause` and of `limit`.

    Example: streamd resume
    """
    _order("resume", {})


def limit(
    rate: Annotated[str, argument(metavar="RATE", help="For example 5MiB/s.")],
    for_: ForOption = "",
) -> None:
    """Send at most so much to the container, instead of what the bandwidth windows say.

    Example: streamd limit 5MiB/s --for 2h
    """
    if (wanted := rate_of(rate)) < 1:
        raise UsageInvalid("nothing would ever arrive: that is streamd pause")
    _order("limit", {"bytes_per_second": wanted, "seconds": _seconds(for_)})


def rate_of(text: str) -> int:
    """Return the bytes per second of a rate that somebody typed. Raises UsageInvalid."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise UsageInvalid(str(error)) from error


def _seconds(text: str) -> int:
    if not text:
        return 0
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageInvalid(str(error)) from error
    if not seconds:
        raise UsageInvalid("--for 0s is no time at all: leave it out to wait for `resume`")
    return seconds


def _order(order: str, args: dict[str, object]) -> None:
    config = load_config()
    answer = run_async(control.request(config.daemon.socket, order, args))
    emit(msgspec.convert(answer, TrafficReport), lambda report: _text(report, config))


def _text(report: TrafficReport, config: Config) -> str:
    until = f", until {format_time(report.until_us, zone=zone_of(config.timezone))}"
    end = until if report.until_us else ", until `streamd resume`"
    limit = report.bytes_per_second
    if limit is None:
        return "sending as fast as the link takes"
    if report.reason == "window":
        return f"sending at most {format_rate(limit)}, as the configuration says for this hour"
    if limit == 0:
        return f"paused{end}; protection goes on into the local copy"
    return f"sending at most {render.size(limit)}/s{end}"
