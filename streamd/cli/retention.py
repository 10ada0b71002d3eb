"""`streamd retention plan|run`: what the policies ask for, and doing it."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
import msgspec.structs

from streamd.cli import render, unlocked
from streamd.cli.context import emit, is_json, load_config, note, run_async
from streamd.cli.declare import argument, option
from streamd.cli.points import SourceLine, incident_text, local_time, source_line
from streamd.config.model import DEFAULT_POLICY, Config
from streamd.daemon import control
from streamd.daemon.compose import open_reading_store
from streamd.daemon.opening import MetaKeys, lend_keys, open_site
from streamd.daemon.rules import rule_of, rules_of
from streamd.daemon.unlocking import unlock_with
from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import DaemonUnreachable, ExitCode
from streamd.maintenance import expire
from streamd.maintenance.expire import RetentionPlan
from streamd.maintenance.facts import RunFacts, run_facts
from streamd.maintenance.points import timezone_name
from streamd.maintenance.site import Site

_SHOWN: Final = 40  # expired points listed one by one

SourceArgument = Annotated[str | None, argument(help="Default: all sources.")]


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `plan --json` prints."""

    sources: tuple[SourceLine, ...]
    segments: int  # of the journal that would go
    segment_bytes: int
    checkpoints: int  # that would go


def plan(source: SourceArgument = None) -> None:
    """Show what would go, and why each point is kept. Changes nothing.

    Example: streamd retention plan web
    """
    config = load_config()
    found = run_async(_plan(config, source))
    report = PlanReport(
        sources=tuple(source_line(one, only_kept=False) for one in found.points),
        segments=found.segment_count,
        segment_bytes=found.segment_bytes,
        checkpoints=found.checkpoint_count,
    )
    emit(report, lambda shown: _plan_text(shown, config))


async def _plan(config: Config, source: str | None) -> RetentionPlan:
    async with unlocked.open_vault(config) as vault:
        return await expire.plan(
            vault,
            rules_of(config),
            default=rule_of(DEFAULT_POLICY),
            now_us=SystemClock().now_us(),
            timezone=timezone_name(config.timezone),
            only=source,
        )


def _plan_text(report: PlanReport, config: Config) -> str:
    blocks = [_source_text(line, config) for line in report.sources]
    blocks.append(
        f"would go: {render.count(report.checkpoints)} checkpoints,"
        f" {render.count(report.segments)} journal segments"
        f" ({render.size(report.segment_bytes)}), and whatever only these refer to"
    )
    return "\n\n".join(blocks)


def _source_text(line: SourceLine, config: Config) -> str:
    inside = sum(point.classes == ("continuous",) for point in line.points)
    frozen = sum(point.classes == ("frozen",) for point in line.points)
    unlisted = {("continuous",), ("frozen",)}
    kept = [point for point in line.points if point.keep and point.classes not in unlisted]
    going = [point for point in line.points if not point.keep]
    rows = [
        (local_time(point.at, config), point.label, ", ".join(point.reasons))
        for point in reversed(kept)
    ]
    lines = [f"{line.source}: {render.count(inside)} points only inside the continuous window"]
    if line.incident is not None:
        lines.append(incident_text(line.source, line.incident, config))
        lines.append(f"  {render.count(frozen)} points would go and stay for that alone")
    if rows:
        lines.append(render.table(("kept", "name", "because"), rows))
    if going:
        lines.append(f"{render.count(len(going))} points go:")
        lines += [f"  {local_time(point.at, config)}" for point in going[:_SHOWN]]
        if len(going) > _SHOWN:
            lines.append(f"  … and {render.count(len(going) - _SHOWN)} more")
    return "\n".join(lines)


def run_(
    source: SourceArgument = None,
    accept_loss: Annotated[
        bool,
        option("--accept-loss", help="Let a changed policy drop over 25% of the points."),
    ] = False,
) -> ExitCode:
    """Thin the points and delete what nothing needs; a running daemon does it if there is one.

    A write-only host needs --kit: the keys to names, not those to content, are lent for this run.
    Example: streamd retention run
    """
    config = load_config()
    facts = run_async(_run(config, source, accept_loss=accept_loss))
    emit(facts, _run_text)
    return ExitCode.INCOMPLETE if facts.postponed or facts.damage else ExitCode.OK


async def _run(config: Config, source: str | None, *, accept_loss: bool) -> RunFacts:
    meta_keys = await _lent_keys(config)
    args: dict[str, Any] = {"accept_loss": accept_loss}
    if meta_keys:
        args["meta_keys"] = meta_keys
    if source is not None:
        args["source"] = source
    try:
        answer = await control.request(
            config.daemon.socket, "retention-run", args, timeout_seconds=None
        )
    except DaemonUnreachable:
        return await _run_here(config, source, meta_keys, accept_loss=accept_loss)
    return msgspec.convert(answer, RunFacts)


async def _lent_keys(config: Config) -> MetaKeys:
    """Return the META keys that the command line offers, for a host that has none itself."""
    given = unlocked.offer()
    if not given.is_made:
        return {}
    store = open_reading_store(config)
    try:
        opened = await unlock_with(store, given, config.vault.url)
    finally:
        await store.aclose()
    return opened.content.private.meta


async def _run_here(
    config: Config, source: str | None, meta_keys: MetaKeys, *, accept_loss: bool
) -> RunFacts:
    """Run in this process; the lock on the state directory keeps a daemon from starting."""
    clock, entropy = SystemClock(), SystemEntropy()
    if config.vault.directory is None:
        return await _run_in_front(config, source, meta_keys, accept_loss=accept_loss)
    async with open_site(config, clock=clock, entropy=entropy) as site:
        lent = msgspec.structs.replace(site, vault=lend_keys(site.vault, meta_keys))
        return await _enforce(lent, config, source, clock.now_us(), accept_loss=accept_loss)


async def _run_in_front(
    config: Config, source: str | None, meta_keys: MetaKeys, *, accept_loss: bool
) -> RunFacts:
    """Run in front of a container: what is written has to be uploaded before anything goes."""
    from streamd.daemon.host import open_host
    from streamd.daemon.meters import Meters
    from streamd.daemon.upkeep import site_of, storage_now_us

    async with (
        open_host(config, clock=SystemClock(), entropy=SystemEntropy(), meters=Meters()) as host,
        asyncio.TaskGroup() as group,
    ):
        assert host.uploader is not None, "what is in front of a container is uploaded"
        uploading = group.create_task(host.uploader.run(), name="upload")
        now_us = await storage_now_us(host)
        site = site_of(host, meta_keys)
        facts = await _enforce(site, config, source, now_us, accept_loss=accept_loss)
        uploading.cancel()
    return facts


async def _enforce(
    site: Site, config: Config, source: str | None, now_us: int, *, accept_loss: bool
) -> RunFacts:
    report = await expire.run(
        site,
        rules_of(config),
        default=rule_of(DEFAULT_POLICY),
        timezone=timezone_name(config.timezone),
        only=source,
        accept_loss=accept_loss,
        progress=_show,
        now_us=now_us,
    )
    return run_facts(report)


def _show(step: str, done: int, of: int) -> None:
    import sys

    if not is_json() and sys.stderr.isatty() and done == 0:
        note(f"{step} …" if not of else f"{step}: {of}")


def _run_text(facts: RunFacts) -> str:
    lines = [
        f"{one.source}: {render.count(one.kept)} points kept, {render.count(one.expired)} expired"
        + (" (suspect: nothing may go)" if one.suspect else "")
        for one in facts.sources
    ]
    lines.append(
        f"deleted {render.count(facts.deleted_objects)} objects,"
        f" reclaimed {render.size(facts.reclaimed_bytes)}"
        f" ({render.size(facts.moved_bytes)} written anew),"
        f" {render.count(facts.checkpoints_written)} checkpoints written"
    )
    if facts.postponed:
        lines.append("the container is behind: the next run goes on from here")
    lines += [f"damaged: {each}" for each in facts.damage]
    return "\n".join(lines)
