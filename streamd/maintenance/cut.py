"""Where the journal may be cut off, and which checkpoints go: decisions, and nothing done yet.

Only a prefix of the journal may go, and nothing that a source is still replayed from: the segments
behind the newest point at or before its continuous window. The last segment always stays: it says
where the journal goes on.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

import msgspec

from streamd.format.checkpoint import CheckpointRoot, JournalMark
from streamd.format.layout import JournalPosition
from streamd.maintenance.points import SourceHistory
from streamd.policy.retention import Decision, Rule
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import SegmentHead


class Verdict(msgspec.Struct, frozen=True):
    """A source and what the policy says about it. Without a rule everything of it stays.

    So it is with a source that is suspect: what the policy says is only shown, not done. Its points
    need no checkpoints then, for the journal that they are replayed from stays.
    """

    history: SourceHistory
    rule: Rule | None = None
    decisions: tuple[Decision, ...] = ()
    now_us: int = 0
    frozen_rule: Rule | None = None

    @property
    def base_us(self) -> int | None:
        """The newest candidate at or before the window: the window is replayed from it."""
        if self.rule is None:
            return None
        start_us = self.rule.window_start_us(self.now_us)
        times = [candidate.at_us for candidate in self.history.candidates]
        index = bisect_right(times, start_us)
        return times[index - 1] if index else None

    def points_without_root(self) -> list[int]:
        """Return the kept points outside the window that have no checkpoint, ascending."""
        base_us = self.base_us
        rooted = {root.at_us for root in self.history.roots.values()}
        return [
            decision.candidate.at_us
            for decision in self.decisions
            if base_us is not None
            and decision.keep
            and decision.candidate.at_us <= base_us
            and decision.candidate.at_us not in rooted
        ]


def choose_cut(
    heads: Sequence[SegmentHead],
    verdicts: Sequence[Verdict],
    is_settled: Callable[[SegmentHead], bool] = lambda _: True,
) -> list[SegmentHead]:
    """Return the segments at the beginning of the journal `heads` that may go.

    One that is not settled (on its way to the vault of record) stays, and all behind it.
    """
    bound = len(heads) - 1
    for verdict in verdicts:
        bound = min(bound, _bound(heads, verdict))
    for index, head in enumerate(heads[: max(bound, 0)]):
        if not is_settled(head):
            return list(heads[:index])
    return list(heads[: max(bound, 0)])


def _bound(heads: Sequence[SegmentHead], verdict: Verdict) -> int:
    """Return how many leading segments this source can do without."""
    history, base_us = verdict.history, verdict.base_us
    bound = _first_touching(heads, history, -1 if base_us is None else base_us)
    if verdict.rule is None:  # every replay that is possible stays possible
        for root in history.roots.values():
            if root.at_us >= history.replay_from_us:
                bound = min(bound, bisect_right(heads, _position(root), key=_head_position))
    for candidate in history.candidates:
        # A hold is written down nowhere but in its segment.
        if candidate.hold_until_us > verdict.now_us:
            bound = min(bound, _first_touching(heads, history, candidate.at_us - 1))
    return bound


def _first_touching(heads: Sequence[SegmentHead], history: SourceHistory, after_us: int) -> int:
    """Return the index of the first segment of a source that ends after an instant."""
    for index, head in enumerate(heads):
        if head.end_us > after_us and history.id in head.sources:
            return index
    return len(heads)


def _head_position(head: SegmentHead) -> JournalPosition:
    return head.position


def _position(root: CheckpointRoot) -> JournalPosition:
    return max(
        (JournalPosition(mark.epoch, mark.seq) for mark in root.marks),
        default=JournalPosition(0, 0),
    )


def _best_root(verdict: Verdict, at_us: int) -> BlobName | None:
    """Return the checkpoint at an instant that reaches furthest into the journal."""
    roots = verdict.history.roots
    names = sorted(verdict.history.roots_at(at_us))
    return max(names, key=lambda name: _position(roots[name]), default=None)


def roots_to_move_on(
    heads: Sequence[SegmentHead], cut: Sequence[SegmentHead], verdicts: Sequence[Verdict]
) -> Iterator[tuple[CheckpointRoot, SegmentHead]]:
    """Yield base checkpoints whose mark would be cut off, and the segment they may reach to.

    A source that is quiet does not change behind its base: the same state holds further on.
    """
    if not cut:
        return
    for verdict in verdicts:
        base_us = verdict.base_us
        if base_us is None:
            continue
        name = _best_root(verdict, base_us)
        assert name is not None, "every base has a checkpoint by now"
        root = verdict.history.roots[name]
        if _position(root) < cut[-1].position:
            end = _first_touching(heads, verdict.history, base_us)
            yield root, heads[end - 1]


def roots_to_drop(verdicts: Sequence[Verdict]) -> list[BlobName]:
    """Return the checkpoints of points that are not kept, and those that others reach beyond."""
    found: list[BlobName] = []
    for verdict in verdicts:
        if verdict.rule is None:
            continue
        kept = {each.candidate.at_us for each in verdict.decisions if each.keep}
        for name, root in verdict.history.roots.items():
            if root.at_us not in kept or _best_root(verdict, root.at_us) != name:
                found.append(name)
    return found


def moved_on(root: CheckpointRoot, mark: JournalMark) -> CheckpointRoot:
    """Return the same state, said to hold as far as `mark`."""
    return CheckpointRoot(root.source, root.at_us, (mark,), root.state, root.merkle, root.pages)
