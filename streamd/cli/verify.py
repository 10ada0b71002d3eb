"""`streamd verify`: prove the vault."""

from typing import Annotated, Any, Final

import msgspec

from streamd.catalog.db import read_foreign
from streamd.cli import render, unlocked
from streamd.cli.context import emit, load_config, run_async
from streamd.cli.declare import option
from streamd.cli.selection import in_words
from streamd.cli.times import format_rfc3339
from streamd.config.model import Config
from streamd.daemon import control
from streamd.daemon.compose import earlier_of, of_record
from streamd.daemon.host import open_host
from streamd.daemon.meters import Meters
from streamd.daemon.oneshot import sending
from streamd.daemon.status import path_texts
from streamd.daemon.verification import known_sizes, stored_names, verify_host
from streamd.effects import SystemClock, SystemEntropy
from streamd.errors import DaemonUnreachable, ExitCode
from streamd.maintenance.heal import read_bad_frames
from streamd.maintenance.verify import Verifier
from streamd.maintenance.verify_documents import check_documents
from streamd.maintenance.verify_facts import DamageFacts, VerifyFacts, verify_facts
from streamd.maintenance.verify_report import Level
from streamd.maintenance.verify_versions import note_versions

_SHOWN: Final = 20


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
    runs: int
    packs: int
    chunks: int
    missing_chunks: int
    sampled_frames: int
    seed: int | None
    healed_chunks: int
    lost_chunks: int
    damage: tuple[DamageFacts, ...]
    affected: tuple[AffectedLine, ...]
    affected_count: int
    strangers: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def command(
    level: Annotated[
        Level,
        option(help="list: one listing; structure: every index; sample: a random part; full: all."),
    ] = Level.STRUCTURE,
    heal: Annotated[
        bool,
        option("--heal", help="Store damaged content again if this host still has it."),
    ] = False,
    frames: Annotated[
        int | None,
        option(min=1, help="How many frames level sample reads, instead of 4603."),
    ] = None,
    seed: Annotated[
        int | None, option(help="Draw the same sample as the run that printed this seed.")
    ] = None,
) -> ExitCode:
    """Prove that everything kept can be had back; damage is named by path and version.

    With --heal a running daemon does it if there is one.
    Example: streamd verify --level full
    """
    return run_async(_verify(load_config(), level, heal=heal, frames=frames, seed=seed))


async def _verify(
    config: Config, level: Level, *, heal: bool, frames: int | None, seed: int | None
) -> ExitCode:
    if heal:
        facts = await _heal(config, level, frames, seed)
    else:
        facts = await _look(config, level, frames, seed)
    emit(_report(facts), lambda _: _text(facts, config))
    return ExitCode.OK if facts.sound else ExitCode.INTEGRITY


async def _look(config: Config, level: Level, frames: int | None, seed: int | None) -> VerifyFacts:
    known = read_foreign(config.daemon.state, known_sizes)
    stored = read_foreign(config.daemon.state, stored_names)
    bad = read_foreign(config.daemon.state, read_bad_frames)
    drawn = int.from_bytes(SystemEntropy().token(4), "big") if seed is None else seed
    async with unlocked.open_vault(config) as vault:
        record = of_record(vault)
        verifier = Verifier(
            record,
            level,
            clock=SystemClock(),
            known=known or None,
            stored=stored or (),
            bad=bad or (),
            seed=drawn,
            draws=frames,
        )
        report = await verifier.run()
        await check_documents(record, report)
        await note_versions(record, report, earlier_of(record))
        return verify_facts(report)


async def _heal(config: Config, level: Level, frames: int | None, seed: int | None) -> VerifyFacts:
    args: dict[str, Any] = {"level": str(level), "heal": True, "frames": frames, "seed": seed}
    try:
        answer = await control.request(config.daemon.socket, "verify", args, timeout_seconds=None)
    except DaemonUnreachable:
        return await _heal_here(config, level, frames, seed)
    return msgspec.convert(answer, VerifyFacts)


async def _heal_here(
    config: Config, level: Level, frames: int | None, seed: int | None
) -> VerifyFacts:
    """Heal in this process; the lock on the state directory keeps a daemon from starting."""
    clock, entropy = SystemClock(), SystemEntropy()
    async with (
        open_host(config, clock=clock, entropy=entropy, meters=Meters()) as host,
        sending(host),
    ):
        report = await verify_host(host, level, heal=True, seed=seed, draws=frames)
    return verify_facts(report)


def _report(found: VerifyFacts) -> Report:
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
        sound=found.sound,
        objects=found.objects,
        bytes=found.bytes,
        read_bytes=found.read_bytes,
        segments=found.segments,
        checkpoints=found.checkpoints,
        runs=found.runs,
        packs=found.packs,
        chunks=found.chunks,
        missing_chunks=found.missing_chunks,
        sampled_frames=found.sampled_frames,
        seed=found.seed,
        healed_chunks=found.healed_chunks,
        lost_chunks=found.lost_chunks,
        damage=found.damage,
        affected=tuple(affected),
        affected_count=found.affected_count,
        strangers=found.strangers,
        notes=found.notes,
        seconds=found.seconds,
    )


def _text(found: VerifyFacts, config: Config) -> str:
    amount = f"{render.count(found.objects)} objects, {render.size(found.bytes)}"
    lines = [f"level {found.level}: {amount}, in {render.duration(found.seconds)}"]
    if found.level != Level.LIST:
        lines.append(
            f"  {render.count(found.segments)} segments, "
            f"{render.count(found.checkpoints)} checkpoints, "
            f"{render.count(found.packs)} packs, "
            f"{render.count(found.chunks)} chunks needed"
        )
    if found.seed is not None:
        lines.append(f"  {render.count(found.sampled_frames)} frames read, --seed {found.seed}")
    if found.read_bytes:
        lines.append(f"  {render.size(found.read_bytes)} read and checked")
    lines += [f"damaged: {each.name}: {each.what}" for each in found.damage[:_SHOWN]]
    lines += _more(len(found.damage))
    if found.missing_chunks:
        lines.append(f"missing: {render.count(found.missing_chunks)} chunks")
    lines += [
        f"affected: {each.source}:{render.name(each.path)} at {in_words(each.at_us, config)}"
        for each in found.affected[:_SHOWN]
    ]
    lines += _more(found.affected_count)
    if found.healed_chunks or found.lost_chunks:
        healed, lost = render.count(found.healed_chunks), render.count(found.lost_chunks)
        lines.append(f"healed: {healed} chunks are stored anew; lost: {lost}")
    lines += [f"note: {note}" for note in found.notes[:_SHOWN]]
    if found.strangers:
        lines.append(f"note: {len(found.strangers)} objects that nobody here has put")
    lines.append("sound" if found.sound else "NOT sound")
    return "\n".join(lines)


def _more(count: int) -> list[str]:
    return [f"  and {count - _SHOWN} more; --json lists them"] if count > _SHOWN else []
