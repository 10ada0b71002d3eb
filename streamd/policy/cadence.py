"""Cadence: when to cut the next segment of changes of one source.

Pure and sans-I/O. `step` takes one event and returns the next state and the commands to carry out;
the daemon owns the clock and carries them out. Times are seconds of any clock that never goes back.

A cut waits until the source has been quiet for a moment, so that a burst lands in one cut. A
source that is never quiet is cut all the same: after an eighth of the RPO, or later where waiting
spares work, because the same files change again and again: then so that cuts take a fifth of the
time at most; but never later than half the RPO after the first change, for the other half is for
reading, storing and one retry. At most one cut is under way; changes noticed meanwhile wait for the
next.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

_SETTLE_SECONDS_MAX: Final = 1.0
_SETTLE_SHARE: Final = 4
_LATEST_SHARE: Final = 2
_EAGER_SHARE: Final = 8
_REST: Final = 4  # times what a cut takes
_CUTS: Final = 3
_FILE_COST: Final = 64 * 1024  # a small file costs as much as reading so many bytes of a large one


class Cadence(msgspec.Struct, frozen=True):
    """What the cadence of a source follows from: how much may be lost."""

    rpo_seconds: float
    cut_seconds: float = 0.0  # what a cut takes at present
    spared_share: float = 1.0  # of that, when two cuts are made one

    @property
    def settle_seconds(self) -> float:
        """How long the source must be quiet before a cut."""
        return min(self._quiet_seconds, self.latest_seconds)

    @property
    def latest_seconds(self) -> float:
        """How long after the first change a cut comes although the source is not quiet.

        What changes right after a cut has begun waits for that one and the next: where cuts take
        so long that the RPO is in danger, they follow each other sooner.
        """
        left = self.rpo_seconds - _CUTS * self.cut_seconds
        sparing = _REST * self.cut_seconds * self.spared_share
        rest = max(self.rpo_seconds / _EAGER_SHARE, self._quiet_seconds, sparing)
        return max(0.0, min(self.rpo_seconds / _LATEST_SHARE, left, rest))

    @property
    def _quiet_seconds(self) -> float:
        return min(_SETTLE_SECONDS_MAX, self.rpo_seconds / _SETTLE_SHARE)


def spared_share(before: Mapping[int, int], now: Mapping[int, int]) -> float:
    """Return which share of the work would have been spared, had two cuts been one.

    Each maps the files that were read to their sizes. A file in both was read twice.
    """
    total = sum(now.values()) + _FILE_COST * len(now)
    again = [size for fid, size in now.items() if fid in before]
    return (sum(again) + _FILE_COST * len(again)) / total if total else 1.0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one source waits for."""

    dirty_since: float | None = None  # oldest change in no cut yet
    changed_at: float = 0.0  # newest change seen
    cutting_since: float | None = None  # oldest change in the cut under way
    retry_at: float | None = None  # no cut before: the last one failed
    breached: bool = False


class Changed(msgspec.Struct, frozen=True):
    """A change was noticed."""

    at: float


class Ticked(msgspec.Struct, frozen=True):
    """Time went by."""

    at: float


class Published(msgspec.Struct, frozen=True):
    """The cut under way is durable."""

    at: float


class Failed(msgspec.Struct, frozen=True):
    """The cut under way failed; its changes are still dirty. Not to be tried before `retry_at`."""

    at: float
    retry_at: float


Event = Changed | Ticked | Published | Failed


class Cut(msgspec.Struct, frozen=True):
    """Capture and publish everything dirty now."""


class ReportBreach(msgspec.Struct, frozen=True):
    """Changes are older than the RPO and not yet restorable. Said once per breach."""


class ReportRecovery(msgspec.Struct, frozen=True):
    """The source is inside its RPO again."""


Command = Cut | ReportBreach | ReportRecovery


def step(state: State, event: Event, cadence: Cadence) -> tuple[State, tuple[Command, ...]]:
    """Return the state after `event`, and what must be done about it."""
    match event:
        case Changed(at):
            since = at if state.dirty_since is None else state.dirty_since
            return replace(state, dirty_since=since, changed_at=at), ()
        case Published(at):
            return _judge(replace(state, cutting_since=None, retry_at=None), at, cadence)
        case Failed(at, retry_at):
            return _judge(replace(_put_back(state), retry_at=retry_at), at, cadence)
    return _tick(state, event.at, cadence)


def due_at(state: State, cadence: Cadence) -> float | None:
    """Return when the next cut is due, or None while nothing is dirty or a cut is under way."""
    if state.dirty_since is None or state.cutting_since is not None:
        return None
    settled = state.changed_at + cadence.settle_seconds
    due = min(settled, state.dirty_since + cadence.latest_seconds)
    return due if state.retry_at is None else max(due, state.retry_at)


def lag_seconds(state: State, now: float) -> float:
    """Return the age of the oldest change that would be lost with the host now; 0 if none."""
    waiting = [at for at in (state.cutting_since, state.dirty_since) if at is not None]
    return now - min(waiting) if waiting else 0.0


def _tick(state: State, at: float, cadence: Cadence) -> tuple[State, tuple[Command, ...]]:
    due = due_at(state, cadence)
    cut: tuple[Command, ...] = ()
    if due is not None and at >= due:
        state = replace(state, dirty_since=None, cutting_since=state.dirty_since, retry_at=None)
        cut = (Cut(),)
    state, report = _judge(state, at, cadence)
    return state, cut + report


def _judge(state: State, at: float, cadence: Cadence) -> tuple[State, tuple[Command, ...]]:
    breached = lag_seconds(state, at) > cadence.rpo_seconds
    if breached == state.breached:
        return state, ()
    return replace(state, breached=breached), (ReportBreach() if breached else ReportRecovery(),)


def _put_back(state: State) -> State:
    waiting = [at for at in (state.cutting_since, state.dirty_since) if at is not None]
    return replace(state, dirty_since=min(waiting, default=None), cutting_since=None)
