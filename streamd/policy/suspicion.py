"""Suspicion: whether a source is being destroyed, and since when.

What each commit did (`policy.toll`) is added up by the minute, over a window of an hour. The source
is suspect when at least 100 files are hit and

    encrypted   they are more than half of all files whose content was replaced: files that looked
                like data look like random bytes now, in place or beside the removed original; or
    deleted     they are more than half of the source, counted as it was before: files that are
                gone, emptied, encrypted, or renamed to another ending

The first shows soon, whatever the size of the source. The second goes by what is left: the most
entries that the source had within the window, less those that it has. So what comes and goes, a
spool or a cache, is no loss, nor are files that others take the place of.

The incident begins before the first commit that did any of it: everything recorded behind that
point is suspect, and the point itself is the last that is certainly good.

Pure. The window is kept in the catalog, and changes in the transaction that changes the tree: it is
never ahead of what was recorded, nor behind.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from streamd.policy.toll import Counts

LABEL: Final = "before-incident"  # of the point that is held
FILES_MIN: Final = 100  # fewer are no mass, whatever their share
SHARE_MIN: Final = 0.5  # that must be exceeded
BUCKET_US: Final = 60 * 1_000_000
BUCKETS_MAX: Final = 60
ENCRYPTED: Final = "encrypted"
DELETED: Final = "deleted"
NOTHING: Final = Counts()


class Bucket(msgspec.Struct, array_like=True, frozen=True):
    """What happened in one minute."""

    minute: int  # since the epoch
    peak_count: int  # the most entries that the source had
    before_us: int = 0  # the last record before the first damage in it; 0: there is no damage
    counts: Counts = NOTHING


class Alarm(NamedTuple):
    """Why a source is suspect. `before_us`: of its last record that is certainly good."""

    reason: str
    file_count: int
    before_us: int


class Window(msgspec.Struct, array_like=True, frozen=True):
    """The last hour of one source, oldest first, without the minutes in which nothing happened."""

    buckets: tuple[Bucket, ...] = ()

    def add(self, counts: Counts, *, at_us: int, last_us: int, entries_before: int) -> "Window":
        """Return the window after a commit at `at_us`; the record before it was at `last_us`.

        A commit that did nothing of what is counted need not be added: nothing became less.
        """
        minute = at_us // BUCKET_US
        kept = [one for one in self.buckets if minute - BUCKETS_MAX < one.minute]
        last = Bucket(minute, 0)
        if kept and kept[-1].minute >= minute:  # later: the host's clock was put back
            last = kept.pop()
        before_us = last.before_us or (last_us if counts.damage_count else 0)
        peak = max(last.peak_count, entries_before)
        summed = _sum(last.counts, counts)
        kept.append(replace(last, peak_count=peak, before_us=before_us, counts=summed))
        return Window(tuple(kept[-BUCKETS_MAX:]))

    def alarm(self, entries: int) -> Alarm | None:
        """Say why the source is suspect, if it is; it has so many `entries` now."""
        sums = _sum(*(one.counts for one in self.buckets))
        encrypted = sums.scrambled + sums.swapped
        if _is_mass(encrypted, sums.rewritten + sums.swapped):
            hit = [one for one in self.buckets if one.counts.scrambled or one.counts.swapped]
            return Alarm(ENCRYPTED, encrypted, hit[0].before_us)
        replaced = min(sums.born_random, sums.gone_plain)
        peak = max((one.peak_count for one in self.buckets), default=0)
        lost = max(min(peak - entries, sums.gone) - replaced, 0)
        spoilt = sums.scrambled + replaced
        damaged = lost + spoilt + sums.emptied + sums.renamed
        if not _is_mass(damaged, entries + lost):
            return None
        reason = ENCRYPTED if 2 * spoilt > damaged else DELETED
        return Alarm(reason, damaged, self._onset_us(damaged))

    def _onset_us(self, damaged: int) -> int:
        """Return the last record before the damage.

        In most hours somebody deletes something: what makes less than a hundredth is ordinary.
        """
        hit = [one for one in self.buckets if one.before_us]
        passed = list(accumulate(one.counts.damage_count for one in hit))
        return hit[bisect_right(passed, damaged // 100)].before_us


def _sum(*counts: Counts) -> Counts:
    return Counts(*map(sum, zip(NOTHING, *counts, strict=True)))


def _is_mass(hit: int, of: int) -> bool:
    return hit >= FILES_MIN and hit > SHARE_MIN * of
