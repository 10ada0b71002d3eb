"""What a verification found, as the control socket and `--json` tell it."""

import msgspec

from streamd.maintenance.verify_report import VerifyReport


class DamageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged object."""

    name: str
    what: str


class AffectedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One version that cannot be had whole."""

    source: str
    path: bytes
    at_us: int
    mtime_ns: int


class VerifyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One verification. Sizes in bytes."""

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
    affected: tuple[AffectedFacts, ...]
    affected_count: int
    strangers: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


def verify_facts(report: VerifyReport) -> VerifyFacts:
    """Return the facts of a report."""
    return VerifyFacts(
        level=str(report.level),
        sound=report.is_sound,
        objects=report.object_count,
        bytes=report.object_bytes,
        read_bytes=report.read_bytes,
        segments=report.segment_count,
        checkpoints=report.checkpoint_count,
        runs=report.run_count,
        packs=report.pack_count,
        chunks=report.chunk_count,
        missing_chunks=report.missing_count,
        sampled_frames=report.sampled_count,
        seed=report.seed,
        healed_chunks=report.healed_count,
        lost_chunks=report.lost_count,
        damage=tuple(DamageFacts(name=each.name, what=each.what) for each in report.damage),
        affected=tuple(
            AffectedFacts(
                source=each.source, path=each.path, at_us=each.at_us, mtime_ns=each.mtime_ns
            )
            for each in report.affected
        ),
        affected_count=report.affected_count,
        strangers=tuple(report.strangers),
        notes=tuple(report.notes),
        seconds=round(report.seconds, 3),
    )
