"""The recovery points of a source: what can be restored, what is kept, and why.

A candidate is an instant at which the source changed: the end of each segment that touched it, and
of each checkpoint, which may outlive its segments. The policy decides which of them are kept.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import field

from streamd.config.zone import zone_of
from streamd.errors import NotFound
from streamd.format.checkpoint import CheckpointRoot
from streamd.format.layout import JournalPosition
from streamd.format.segment import FIRST_PREVIOUS, Segment
from streamd.model.ids import SourceId, to_text
from streamd.model.record import RELEASED, SUSPECT, Gap, Incident
from streamd.policy import retention
from streamd.policy.retention import Candidate, Decision, Rule
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import (
    Damage,
    JournalReader,
    SegmentHead,
    SegmentRow,
    follows,
)
from streamd.vault.parallel import OBJECT_FAULTS, in_waves
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import TreeState
from streamd.vault.vault import Vault

_WIDTH: Final = 16
_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
# how long one slot of each class is; months and years on average, for an estimate
_SLOT_US: Final = {
    "hourly": _HOUR_US,
    "daily": _DAY_US,
    "weekly": 7 * _DAY_US,
    "monthly": 730 * _HOUR_US + _HOUR_US // 2,
    "yearly": 8766 * _HOUR_US,
}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate, and what the policy makes of it. Times in µs."""

    at_us: int
    label: str
    keep: bool
    classes: tuple[str, ...]
    reasons: tuple[str, ...]
    has_checkpoint: bool
    expires_us: int | None  # earliest, if every slot to come gets a point; None: not foreseeable
    is_suspect: bool = False  # recorded since the source was damaged in mass

    @property
    def is_kept_point(self) -> bool:
        """Whether it stays for another reason than that nothing near it, or of all, may go."""
        return not {retention.CONTINUOUS, retention.FROZEN}.issuperset(self.classes)


class PointReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be said of a source's recovery points."""

    source: str
    window_start_us: int
    window_end_us: int
    gaps: tuple[Gap, ...]  # those that touch the window
    points: tuple[Point, ...]  # ascending in time, kept and not
    damage: tuple[Damage, ...] = ()
    overdue_count: int  # points that the policy has expired and that wait for a run
    expired_count: int = 0  # points that this run dropped
    incident: Incident | None = None  # why nothing of it may go now

    def kept_by_class(self) -> dict[str, int]:
        """Return how many points each class keeps."""
        counts: dict[str, int] = {}
        for point in self.points:
            for name in set(point.classes):
                counts[name] = counts.get(name, 0) + 1
        return counts


class SourceHistory(msgspec.Struct):
    """What the vault has of one source."""

    id: SourceId
    name: str  # empty if nothing readable says it
    candidates: tuple[Candidate, ...] = ()
    heads: list[SegmentHead] = field(default_factory=list)  # segments that touch it, in order
    roots: dict[BlobName, CheckpointRoot] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)  # checkpoints that cannot be read
    replay_from_us: int = 0  # from here on every candidate can be replayed
    incident: Incident | None = None  # the source is suspect, and nothing of it may go

    def decide(self, rule: Rule, *, now_us: int, timezone: str = "UTC") -> tuple[Decision, ...]:
        """Return what the policy makes of each candidate, and that the source may be frozen."""
        decisions = retention.decide(self.candidates, rule, now_us=now_us, timezone=timezone)
        return decisions if self.incident is None else retention.frozen(decisions)

    def roots_at(self, at_us: int) -> list[BlobName]:
        """Return the checkpoints of exactly this instant."""
        return [name for name, root in self.roots.items() if root.at_us == at_us]


async def read_histories(vault: Vault, reader: StateReader) -> list[SourceHistory]:
    """Return the history of every source of the domain, also of those without a readable name."""
    found: dict[SourceId, SourceHistory] = {}
    names = {summary.id: summary.info.name for summary in await reader.sources()}

    def history(source: SourceId) -> SourceHistory:
        return found.setdefault(source, SourceHistory(source, names.get(source, "")))

    for head in await reader.heads():
        for source in head.sources:
            history(source).heads.append(head)
    rows = await reader.checkpoints()
    by_name = {row.name: row.source for row in rows}
    async for name, root in in_waves(list(by_name), reader.read_checkpoint, width=_WIDTH):
        if isinstance(root, Exception):
            history(by_name[name]).damage.append(Damage(name, str(root)))
        else:
            history(by_name[name]).roots[name] = root
    for each in found.values():
        each.gaps = await reader.gaps(each.id)
        each.replay_from_us = await _replay_from(vault, reader, each)
        marks = await reader.marks(each.id)
        each.incident = open_incident(mark for _, mark in marks)
        each.candidates = _candidates(each, marks)
    return sorted(found.values(), key=lambda each: (each.name, each.id))


async def _replay_from(vault: Vault, reader: StateReader, history: SourceHistory) -> int:
    """Return the instant from which on the journal that is left tells everything.

    Segments may be left over from before that: another source needed them, or their removal was
    interrupted. Nothing can be replayed from them any more.
    """
    first = next(iter(await reader.heads()), None)
    if first is None or await _is_whole(vault, first, history):
        return 0
    good = [
        root.at_us
        for root in history.roots.values()
        for mark in root.marks
        if (position := JournalPosition(mark.epoch, mark.seq)) >= first.position
        or follows(first.position, position)
    ]
    return min(good, default=retention.FOREVER_US)


async def _is_whole(vault: Vault, first: SegmentHead, history: SourceHistory) -> bool:
    """Say whether the journal has the source's beginning.

    It has if it has its own beginning. Otherwise the state sums tell: a replay from nothing agrees
    with the first of them only if nothing came before.
    """
    try:
        if (await _read(vault, first)).previous == FIRST_PREVIOUS:
            return True
        return await _agrees_from_nothing(vault, history)
    except OBJECT_FAULTS:
        return False


async def _agrees_from_nothing(vault: Vault, history: SourceHistory) -> bool:
    with TreeState(history.id) as state:
        for head in history.heads:
            segment = await _read(vault, head)
            number = segment.sources.index(history.id)
            records = segment.records(vault.keys.secret_for)
            state.apply(record for record in records if record.source_ix == number)
            if state.sums_checked:
                return True
    return False


async def _read(vault: Vault, head: SegmentHead) -> Segment:
    row = SegmentRow(head.position, head.name, head.size_bytes)
    return await JournalReader(vault, head.writer).read_segment(row)


def open_incident(marks: Iterable[Incident]) -> Incident | None:
    """Return the incident that nobody has released yet, if there is one among marks in order."""
    last = None
    for mark in marks:
        if mark.kind in {SUSPECT, RELEASED}:
            last = mark
    return last if last is not None and last.kind == SUSPECT else None


def _candidates(
    history: SourceHistory, marks: Sequence[tuple[int, Incident]]
) -> tuple[Candidate, ...]:
    checkpoints = {root.at_us for root in history.roots.values()}
    replayed = {head.end_us for head in history.heads if head.end_us >= history.replay_from_us}
    instants = sorted(replayed | checkpoints)
    labels: dict[int, str] = {}
    holds: dict[int, int] = {}
    incidents: dict[int, int] = {}  # instant -> until when it is held; the last word counts
    for marked_us, mark in marks:
        if mark.kind:
            index = bisect_right(instants, mark.point_us) - 1
            if index >= 0:
                labels.setdefault(instants[index], mark.label)
                incidents[instants[index]] = mark.hold_until_us
            continue
        index = bisect_left(instants, marked_us)  # the end of the segment that names the point
        if index < len(instants):
            at_us = instants[index]
            labels[at_us] = mark.label
            holds[at_us] = max(holds.get(at_us, 0), mark.hold_until_us)
    for at_us, until_us in incidents.items():
        holds[at_us] = max(holds.get(at_us, 0), until_us)
    return tuple(
        Candidate(at_us, labels.get(at_us, ""), holds.get(at_us, 0), at_us in checkpoints)
        for at_us in instants
    )


def report_on(
    history: SourceHistory,
    decisions: Sequence[Decision],
    rule: Rule,
    now_us: int,
) -> PointReport:
    """Return what the decisions about a source mean to people."""
    start_us = rule.window_start_us(now_us)
    if history.candidates:
        start_us = max(start_us, history.candidates[0].at_us)
    return PointReport(
        source=history.name or to_text(history.id),
        window_start_us=min(start_us, now_us),
        window_end_us=now_us,
        gaps=tuple(gap for gap in history.gaps if gap.end_us > start_us),
        points=tuple(_point(decision, rule, now_us, history.incident) for decision in decisions),
        damage=tuple(history.damage),
        overdue_count=sum(not decision.keep for decision in decisions),
        incident=history.incident,
    )


def timezone_name(configured: str) -> str:
    """Return the IANA name of the zone of slots: as configured, or the system's."""
    return str(getattr(zone_of(configured), "key", None) or "UTC")


def _point(decision: Decision, rule: Rule, now_us: int, incident: Incident | None) -> Point:
    candidate, classes = decision.candidate, retention.classes_of(decision)
    return Point(
        at_us=candidate.at_us,
        label=candidate.label,
        keep=decision.keep,
        classes=classes,
        reasons=decision.reasons,
        has_checkpoint=candidate.has_checkpoint,
        expires_us=_expiry(candidate, classes, rule, now_us),
        is_suspect=incident is not None and candidate.at_us > incident.point_us,
    )


def _expiry(candidate: Candidate, classes: Sequence[str], rule: Rule, now_us: int) -> int | None:
    """Return when the last reason to keep a point ends, if new points come in every slot."""
    if not classes:
        return now_us
    counts = dict(rule.counts())
    ends = [candidate.at_us + counts[name] * _SLOT_US[name] for name in classes if name in _SLOT_US]
    if retention.CONTINUOUS in classes:
        ends.append(candidate.at_us + rule.continuous_us)
    if retention.HOLD in classes:
        ends.append(candidate.hold_until_us)
    return max(ends) if ends and max(ends) < retention.FOREVER_US else None


async def recovery_points(
    vault: Vault, source: str, rule: Rule, *, now_us: int, timezone: str = "UTC"
) -> PointReport:
    """Return the recovery points of the source called `source`. Raises NotFound."""
    histories = await read_histories(vault, StateReader(vault))
    for history in histories:
        if history.name == source:
            decisions = history.decide(rule, now_us=now_us, timezone=timezone)
            return report_on(history, decisions, rule, now_us)
    known = ", ".join(each.name for each in histories if each.name) or "none"
    raise NotFound(f'there is no source "{source}" in the vault; there is: {known}')
