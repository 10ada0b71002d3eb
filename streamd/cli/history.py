"""`streamd history`: every version of a path, when it changed and when that was captured."""

from typing import Annotated, Any, Final

import msgspec

from streamd.cli import render
from streamd.cli.context import emit, load_config, note, run_async
from streamd.cli.declare import argument
from streamd.cli.entries import flag_names, mode_text, type_name
from streamd.cli.following import Happening, follow
from streamd.cli.selection import in_words, open_reader, select
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.daemon.status import path_texts
from streamd.errors import ExitCode, NotFound, UsageInvalid

_NS_PER_US: Final = 1_000


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to the path.

    `event` is appeared, changed, deleted, moved-in or moved-out (`other` is the other path), kept
    (the state at a point that was kept when the journal around it was thinned), absent (gone at
    such a point), or gap (from `at` to `until` changes may be missing, for the reason in `what`).
    `at` is when it was captured, `changed` the change time of the file system, `delay_seconds`
    the time between the two.
    """

    at: str
    event: str
    what: tuple[str, ...] = ()
    changed: str = ""
    delay_seconds: float | None = None
    type: str = ""
    size: int | None = None
    mode: str = ""
    mtime: str = ""
    flags: tuple[str, ...] = ()
    other: str = ""
    other_b64: str = ""
    until: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints, oldest first."""

    source: str
    path: str
    path_b64: str
    history: tuple[HistoryLine, ...]


def command(
    what: Annotated[str, argument(metavar="SOURCE:PATH", help="The file or directory.")],
) -> ExitCode:
    """List the versions of a file: when each changed, and how long its capture took.

    Deletions, renames and gaps are listed too, oldest first.
    Example: streamd history web:index.html
    """
    return run_async(_history(load_config(), what))


async def _history(config: Config, what: str) -> ExitCode:
    damage: list[str] = []
    async with open_reader(config) as reader:
        chosen = await select(reader, what)
        if not chosen.path:
            raise UsageInvalid(f'"{what}" names no file: write SOURCE:PATH')
        found = [happening async for happening in follow(reader, chosen, damage)]
    if all(happening.event == "gap" for happening in found):
        raise NotFound(f"there never was a {render.name(chosen.path)} in {chosen.name}")
    path, path_b64 = path_texts(chosen.path)
    report = Report(
        source=chosen.name,
        path=path,
        path_b64=path_b64,
        history=tuple(_line(happening) for happening in found),
    )
    for each in damage:
        note(f"damaged: {each}")
    emit(report, lambda _: _text(found, config))
    return ExitCode.INTEGRITY if damage else ExitCode.OK


def _line(happening: Happening) -> HistoryLine:
    other, other_b64 = path_texts(happening.other)
    until = format_rfc3339(happening.until_us) if happening.until_us else ""
    facts: dict[str, Any] = {}
    version = happening.version
    if version is not None:
        facts = {
            "changed": format_rfc3339(version.ctime_ns // _NS_PER_US) if version.ctime_ns else "",
            "type": type_name(version.type),
            "mode": f"{version.mode:04o}",
            "mtime": format_rfc3339(version.mtime_ns // _NS_PER_US),
        }
    return HistoryLine(
        at=format_rfc3339(happening.at_us),
        event=happening.event,
        what=happening.what,
        delay_seconds=happening.delay_seconds,
        size=None if version is None else version.size,
        flags=() if version is None else flag_names(version),
        other=other,
        other_b64=other_b64,
        until=until,
        **facts,
    )


def _text(found: list[Happening], config: Config) -> str:
    rows = []
    for happening in found:
        version, delay = happening.version, happening.delay_seconds
        rows.append(
            (
                in_words(happening.at_us, config),
                _event(happening, config),
                in_words(version.ctime_ns // _NS_PER_US, config)
                if version is not None and version.ctime_ns
                else "",
                "" if delay is None else render.duration(delay),
                "" if version is None else render.count(version.size),
                "" if version is None else mode_text(version),
                "" if version is None else ", ".join(flag_names(version)),
            )
        )
    headers = ("captured", "event", "changed", "delay", "bytes", "mode", "flags")
    return render.table(headers, rows, right="---rr")


def _event(happening: Happening, config: Config) -> str:
    if happening.event == "gap":
        until = in_words(happening.until_us, config)
        return f"gap until {until}: {', '.join(happening.what)}"
    words = {"moved-in": "moved here from ", "moved-out": "moved to "}
    if happening.other:
        return words[happening.event] + render.name(happening.other)
    return happening.event + (f": {', '.join(happening.what)}" if happening.what else "")
