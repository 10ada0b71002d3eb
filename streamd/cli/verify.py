"""`streamd verify`: prove the vault."""

from typing import Annotated, Final

import msgspec
import typer

from streamd.cli import render, unlocked
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.selection import in_words
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.daemon.status import path_texts
from streamd.effects import SystemClock
from streamd.errors import ExitCode
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_report import Level, VerifyReport

_SHOWN: Final = 20


class DamageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged object."""

    name: str
    what: str


class AffectedLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version that cannot be had whole; `path` is lossy text where `path_b64` is there."""

    source: str
    path: str
    at: str
    mtime_ns: int
    path_b64: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Sizes in bytes."""

    level: str
    sound: bool
    objects: int
    bytes: int
    read_bytes: int
    segments: int
    checkpoints: int
    packs: int
    chunks: int
    missing_chunks: int
    damage: tuple[DamageLine, ...]
    affected: tuple[AffectedLine, ...]
    affected_count: int
    strangers: tuple[str, ...]
    seconds: float


def command(
    level: Annotated[
        Level,
        typer.Option(help="list: one listing; structure: every index; full: every byte."),
    ] = Level.STRUCTURE,
) -> ExitCode:
    """Prove that everything kept can be had back; damage is named by path and version.

    Example: streamd verify --level full
    """
    return run_async(_verify(load_config(), level))


async def _verify(config: Config, level: Level) -> ExitCode:
    async with unlocked.open_vault(config) as vault:
        found = await Verifier(vault, level, clock=SystemClock()).run()
    emit(_report(found), lambda _: _text(found, config))
    return ExitCode.OK if found.is_sound else ExitCode.INTEGRITY


def _report(found: VerifyReport) -> Report:
    affected = []
    for each in found.affected:
        path, path_b64 = path_texts(each.path)
        affected.append(
            AffectedLine(
                source=each.source,
                path=path,
                path_b64=path_b64,
                at=format_rfc3339(each.at_us),
                mtime_ns=each.mtime_ns,
            )
        )
    return Report(
        level=found.level,
        sound=found.is_sound,
        objects=found.object_count,
        bytes=found.object_bytes,
        read_bytes=found.read_bytes,
        segments=found.segment_count,
        checkpoints=found.checkpoint_count,
        packs=found.pack_count,
        chunks=found.chunk_count,
        missing_chunks=found.missing_count,
        damage=tuple(DamageLine(name=each.name, what=each.what) for each in found.damage),
        affected=tuple(affected),
        affected_count=found.affected_count,
        strangers=tuple(found.strangers),
        seconds=round(found.seconds, 3),
    )


def _text(found: VerifyReport, config: Config) -> str:
    amount = f"{render.count(found.object_count)} objects, {render.size(found.object_bytes)}"
    lines = [f"level {found.level}: {amount}, in {render.duration(found.seconds)}"]
    if found.level is not Level.LIST:
        lines.append(
            f"  {render.count(found.segment_count)} segments, "
            f"{render.count(found.checkpoint_count)} checkpoints, "
            f"{render.count(found.pack_count)} packs, "
            f"{render.count(found.chunk_count)} chunks needed"
        )
    if found.level is Level.FULL:
        lines.append(f"  {render.size(found.read_bytes)} read and checked")
    lines += [f"damaged: {each.name}: {each.what}" for each in found.damage[:_SHOWN]]
    lines += _more(len(found.damage))
    if found.missing_count:
        lines.append(f"missing: {render.count(found.missing_count)} chunks")
    lines += [
        f"affected: {each.source}:{render.name(each.path)} at {in_words(each.at_us, config)}"
        for each in found.affected[:_SHOWN]
    ]
    lines += _more(found.affected_count)
    if found.strangers:
        lines.append(f"note: {len(found.strangers)} objects with names that mean nothing here")
    lines.append("sound" if found.is_sound else "NOT sound")
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  and {count - _SHOWN} more; --json lists them"] if count > _SHOWN else []
