"""`streamd explain`: why a path is in or out, how safe it is, and what keeps its versions."""

import base64
import os
import sqlite3
from collections.abc import Sequence
from typing import Annotated

import msgspec

from streamd.catalog import dirty
from streamd.catalog.census import PathFinder
from streamd.catalog.dirty import EVER, Problem
from streamd.catalog.objects import ObjectState
from streamd.cli import offline, render
from streamd.cli.context import emit, load_config, note, run_async
from streamd.cli.declare import argument
from streamd.cli.following import Happening, follow
from streamd.cli.left_out import Decider, Verdict, source_at
from streamd.cli.selection import Selection
from streamd.cli.times import format_rfc3339, format_time
from streamd.config.model import DEFAULT_POLICY, Config
from streamd.config.zone import zone_of
from streamd.daemon import control
from streamd.daemon.compose import open_vault_for_reading
from streamd.daemon.rules import rule_of, rules_of
from streamd.daemon.status import WatchFacts, path_texts
from streamd.effects import SystemClock
from streamd.errors import ExitCode, NotFound, StreamdError, UsageInvalid
from streamd.maintenance.points import Point, read_histories, report_on, timezone_name
from streamd.policy import classes
from streamd.vault.journal_reader import SegmentHead
from streamd.vault.state_reader import StateReader

VERSIONS_MAX = 20  # newest first; more are counted


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the newest version is at a destination: yes, no, or unknown."""

    destination: str
    is_there: str
    captured: str  # when; empty if there is no version


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps one version: from `captured` to `replaced` (empty: it is the newest)."""

    captured: str
    replaced: str
    size: int
    window: bool  # some instant of the continuous window shows it
    points: int  # kept points that hold it
    classes: tuple[str, ...]
    until: str  # when the last of them goes; empty: not foreseeable, or it is the newest


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Times are RFC 3339, empty where there is none."""

    path: str
    path_b64: str
    decision: str  # included, excluded, too-large, other-file-system, own, outside
    source: str = ""
    rule: str = ""
    place: str = ""  # file:line
    exists: bool = False
    in_class: str = msgspec.field(name="class", default="")
    watcher: str = ""
    last_event: str = ""
    source_event: str = ""  # the last one anywhere in the source
    waiting_since: str = ""
    why: str = ""  # it waits, or what is wrong
    remedy: str = ""
    destinations: tuple[Destination, ...] = ()
    holders: tuple[Holder, ...] = ()
    holder_count: int = 0
    notes: tuple[str, ...] = ()


def command(
    path: Annotated[str, argument(metavar="PATH", help="A path on this host.")],
) -> ExitCode:
    """Say why PATH is protected or not, by which line of the configuration, and what keeps it.

    Works without the daemon, which alone knows the watcher and the last event. Ends with 9 if no
    source has the path, 3 if it is not protected as it is now. Example: streamd explain /etc/fstab
    """
    if "\0" in path:
        raise UsageInvalid("a path has no zero byte")
    config = load_config()
    raw = os.fsencode(os.path.abspath(path))
    name = source_at(config, raw)
    if name is None:
        known = ", ".join(each for source in config.sources.values() for each in source.paths)
        raise NotFound(f"no source has {render.name(raw)}; protected are: {known or 'none'}")
    report = run_async(_explain(config, name, raw))
    for each in report.notes:
        note(each)
    emit(report, lambda found: _text(found, config))
    is_fine = report.in_class in {classes.PROTECTED, classes.EXCLUDED}
    return ExitCode.OK if is_fine else ExitCode.INCOMPLETE


async def _explain(config: Config, name: str, path: bytes) -> Report:
    verdict = Decider(config, name).decide(path)
    text, path_b64 = path_texts(path)
    notes: list[str] = []
    facts = await _ask_daemon(config, name, path, notes)
    with offline.open_catalog(config) as catalog:
        if catalog is None:
            notes.append("the catalog cannot be read here: what waits is not known")
        known = _unnoticed(_known(catalog, config, name, path), facts, verdict, path)
        past = await _past(config, name, path, catalog, notes)
    destinations, holders = past
    return Report(
        path=text,
        path_b64=path_b64,
        decision=verdict.decision,
        source=name,
        rule=verdict.rule,
        place=verdict.place,
        exists=verdict.stat is not None,
        in_class=_class(verdict, known, is_captured=bool(holders)),
        watcher=facts.mode if facts is not None else "",
        last_event=_time(facts.last_event_us if facts is not None else 0),
        source_event=_time(facts.source_event_us if facts is not None else 0),
        waiting_since=_time(known.waiting_us) if known.waiting_us > EVER else "",
        why=_why(verdict, known, is_captured=bool(holders)),
        remedy=classes.remedy_of(known.problem.reason) if known.problem is not None else "",
        destinations=destinations,
        holders=tuple(holders[:VERSIONS_MAX]),
        holder_count=len(holders),
        notes=tuple(notes),
    )


# -- what this host knows ------------------------------------------------------------------------


class _Known(msgspec.Struct, frozen=True):
    """What the catalog says of a path; `waiting_us` EVER: it was never captured."""

    in_tree: bool = False
    waiting_us: int = 0
    waits_by: bytes = b""  # the place in the dirty set that it waits by: itself, or one above
    problem: Problem | None = None


def _known(catalog: sqlite3.Connection | None, config: Config, name: str, path: bytes) -> _Known:
    number = None if catalog is None else offline.source_number(catalog, name)
    if catalog is None or number is None:
        return _Known()
    roots = config.sources[name].path_bytes
    in_tree = PathFinder(catalog, number, roots).find(path) is not None
    row = catalog.execute(
        "SELECT reason, errno, since_us, detail FROM problem WHERE source = ? AND path = ?",
        (number, path),
    ).fetchone()
    problem = None if row is None else Problem(path, *row)
    since_us, by = _waiting(catalog, number, path, in_tree=in_tree)
    return _Known(in_tree, since_us, by, problem)


def _unnoticed(known: _Known, facts: WatchFacts | None, verdict: Verdict, path: bytes) -> _Known:
    """Add what the catalog cannot know: it changed, and the event of that is not read yet."""
    if facts is None or not facts.events_wait or known.problem is not None or known.waiting_us:
        return known
    since_us = facts.events_wait_since_us
    if verdict.stat is None or verdict.stat.ctime_ns // 1000 < since_us:
        return known
    problem = Problem(path, classes.EVENTS_WAIT, 0, since_us, facts.events_wait)
    return _Known(known.in_tree, since_us, b"", problem)


def _waiting(
    catalog: sqlite3.Connection, number: int, path: bytes, *, in_tree: bool
) -> tuple[int, bytes]:
    """Return since when a path waits, and by which place; a scan of all counts for new ones."""
    at = path
    while at:
        row = catalog.execute(
            "SELECT first_us, deep FROM dirty WHERE source = ? AND path = ?", (number, at)
        ).fetchone()
        if row is not None:
            is_scan = row[1] == dirty.Depth.SCAN
            if (at == path and not is_scan) or (row[1] and not (is_scan and in_tree)):
                return int(row[0]), at
        at = at.rpartition(b"/")[0]
    return 0, b""


async def _ask_daemon(
    config: Config, name: str, path: bytes, notes: list[str]
) -> WatchFacts | None:
    asked = {"source": name, "path": base64.b64encode(path).decode("ascii")}
    try:
        answer = await control.request(config.daemon.socket, "explain", asked)
    except StreamdError as error:
        notes.append(f"the watcher and the last event are not known: {error}")
        return None
    return msgspec.convert(answer, WatchFacts)


def _class(verdict: Verdict, known: _Known, *, is_captured: bool) -> str:
    if verdict.decision == classes.TOO_LARGE:
        return classes.TOO_LARGE
    if verdict.decision != "included":
        return classes.EXCLUDED
    if known.problem is not None:
        return classes.class_of(known.problem.reason)
    is_there = verdict.stat is not None
    if known.waiting_us or (is_there and not known.in_tree):
        return classes.PENDING
    if known.in_tree and is_there:
        return classes.PROTECTED
    return classes.VANISHED if known.in_tree or is_captured else ""


def _why(verdict: Verdict, known: _Known, *, is_captured: bool) -> str:
    if known.problem is not None:
        said = known.problem.detail.splitlines()
        return known.problem.reason + (f": {' | '.join(said)}" if said else "")
    if verdict.decision != "included":
        return ""
    if known.waiting_us:
        by = "" if not known.waits_by else f" ({render.name(known.waits_by)} is to be looked at)"
        return f"a change was noticed and is not captured yet{by}"
    if verdict.stat is None:
        return "it is not there" + (" any more" if is_captured else ", and never was")
    return "" if known.in_tree else "nothing has noticed it yet: no event, and no scan since"


# -- what the vault has --------------------------------------------------------------------------


async def _past(
    config: Config,
    name: str,
    path: bytes,
    catalog: sqlite3.Connection | None,
    notes: list[str],
) -> tuple[tuple[Destination, ...], list[Holder]]:
    """Return where the newest version is, and what keeps each one, newest first."""
    try:
        async with open_vault_for_reading(config) as vault:
            reader = StateReader(vault)
            source = await reader.find_source(name)
            found = [each async for each in follow(reader, Selection(source, path), notes)]
            heads = await reader.heads()
            histories = [one for one in await read_histories(vault, reader) if one.name == name]
    except NotFound:
        return (), []  # nothing of this source is in the vault yet
    except StreamdError as error:
        notes.append(f"the vault cannot be read: {error}")
        return (), []
    spans = _spans(found)
    if not spans:
        return (), []
    now_us = SystemClock().now_us()
    rule = rules_of(config).get(name, rule_of(DEFAULT_POLICY))
    points: Sequence[Point] = ()
    if histories:
        zone = timezone_name(config.timezone)
        decisions = histories[0].decide(rule, now_us=now_us, timezone=zone)
        points = report_on(histories[0], decisions, rule, now_us).points
    window_us = rule.window_start_us(now_us)
    holders = [_holder(span, points, window_us) for span in reversed(spans)]
    return _destinations(config, spans[-1][0].at_us, heads, catalog), holders


def _spans(found: list[Happening]) -> list[tuple[Happening, int]]:
    """Return each version with when it was replaced or deleted; 0: not yet."""
    spans: list[tuple[Happening, int]] = []
    for happening in found:
        if happening.event == "gap":
            continue
        if spans and spans[-1][1] == 0:
            spans[-1] = (spans[-1][0], happening.at_us)
        if happening.version is not None and happening.event not in {"deleted", "moved-out"}:
            spans.append((happening, 0))
    return spans


def _holder(span: tuple[Happening, int], points: Sequence[Point], window_us: int) -> Holder:
    happening, until_us = span
    held = [
        point
        for point in points
        if point.keep
        and point.is_kept_point
        and happening.at_us <= point.at_us
        and (not until_us or point.at_us < until_us)
    ]
    ends = [point.expires_us for point in held]
    known = [end for end in ends if end is not None]
    assert happening.version is not None
    return Holder(
        captured=_time(happening.at_us),
        replaced=_time(until_us),
        size=happening.version.size,
        window=not until_us or until_us > window_us,
        points=len(held),
        classes=tuple(sorted({name for point in held for name in point.classes})),
        until=_time(max(known)) if until_us and known and len(known) == len(ends) else "",
    )


def _destinations(
    config: Config, at_us: int, heads: list[SegmentHead], catalog: sqlite3.Connection | None
) -> tuple[Destination, ...]:
    captured = _time(at_us)
    if config.vault.directory is not None:
        return (Destination(destination="vault", is_there="yes", captured=captured),)
    names = [str(head.name) for head in heads if head.end_us == at_us]
    row = None
    if catalog is not None and names:
        row = catalog.execute(
            "SELECT state, local FROM object WHERE name = ?", (names[-1],)
        ).fetchone()
    local = vault = "unknown"
    if row is not None:
        local = "yes" if row[1] else "no"
        vault = "yes" if row[0] == ObjectState.VAULT else "no"
    return (
        Destination(destination="local", is_there=local, captured=captured),
        Destination(destination="vault", is_there=vault, captured=captured),
    )


# -- text ----------------------------------------------------------------------------------------


def _time(at_us: int) -> str:
    return format_rfc3339(at_us) if at_us else ""


def _text(report: Report, config: Config) -> str:
    from streamd.cli.points import parse_rfc3339

    def when(text: str) -> str:
        return format_time(parse_rfc3339(text), zone=zone_of(config.timezone)) if text else "-"

    raw = base64.b64decode(report.path_b64) if report.path_b64 else os.fsencode(report.path)
    rule = f"{report.rule}  ({report.place})" if report.place else report.rule
    lines = [
        f"path       {render.name(raw)}" + ("" if report.exists else "  (not there now)"),
        f"source     {report.source}",
        f"decision   {report.decision}: {rule}",
        f"class      {report.in_class or '-'}" + (f": {report.why}" if report.why else ""),
    ]
    if report.remedy:
        lines.append(f"remedy     {report.remedy}")
    lines += [
        f"watcher    {report.watcher or 'not known'}",
        f"last event {when(report.last_event)}; in the source {when(report.source_event)}",
    ]
    if report.waiting_since:
        lines.append(f"waiting    since {when(report.waiting_since)}")
    for one in report.destinations:
        lines.append(f"{one.destination:<10} {one.is_there}: captured {when(one.captured)}")
    if not report.destinations:
        lines.append("vault      no version")
    lines += [_holder_text(holder, when) for holder in report.holders]
    if (more := report.holder_count - len(report.holders)) > 0:
        lines.append(f"and {render.count(more)} older versions")
    return "\n".join(lines)


def _holder_text(holder: Holder, when: "object") -> str:
    assert callable(when)
    until = when(holder.replaced) if holder.replaced else "now"
    kept = []
    if holder.window:
        kept.append("the continuous window")
    if holder.points:
        points = "1 point" if holder.points == 1 else f"{holder.points} points"
        kept.append(f"{points} ({' '.join(holder.classes)})")
    ends = "" if not holder.replaced else f", until about {when(holder.until)}"
    why = f"kept by {' and '.join(kept)}{ends}" if kept else "goes with the next retention run"
    return f"version    {when(holder.captured)} to {until}, {render.count(holder.size)} B: {why}"
