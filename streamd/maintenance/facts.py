"""What a retention run did, in counts: the answer of the control socket and of `--json`."""

import msgspec

from streamd.maintenance.expire import RetentionReport


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One source after a run."""

    source: str
    kept: int
    kept_by_class: dict[str, int]
    expired: int
    overdue: int
    suspect: bool = False  # nothing of it may go until it is released


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    sources: tuple[SourceFacts, ...]
    deleted_objects: int
    cancelled_objects: int
    reclaimed_bytes: int
    moved_bytes: int
    checkpoints_written: int
    postponed: bool  # the vault of record is behind: the next run goes on
    damage: tuple[str, ...]


def run_facts(report: RetentionReport) -> RunFacts:
    """Return the facts of a report."""
    return RunFacts(
        sources=tuple(
            SourceFacts(
                source=one.source,
                kept=sum(point.keep for point in one.points),
                kept_by_class=one.kept_by_class(),
                expired=one.expired_count,
                overdue=one.overdue_count,
                suspect=one.incident is not None,
            )
            for one in report.points
        ),
        deleted_objects=report.deleted_objects,
        cancelled_objects=report.cancelled_objects,
        reclaimed_bytes=report.reclaimed_bytes,
        moved_bytes=report.moved_bytes,
        checkpoints_written=report.checkpoints_written,
        postponed=report.is_postponed,
        damage=tuple(f"{each.name}: {each.what}" for each in report.damage),
    )
