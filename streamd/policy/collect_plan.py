"""Collection: what to do with each pack, given how much of it is still needed.

Pure. A pack nobody needs anything of is deleted. One with enough dead bytes is repacked: its live
frames are copied, as they are, into a new pack before the old one is deleted. Anything else stays,
because rewriting costs transfer and requests, and the rest of it may die soon by itself.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

DEAD_SHARE_MIN: Final = 0.25  # on disks and in the hot tier; colder tiers charge for early deletion


class Action(StrEnum):
    """What becomes of a pack."""

    KEEP = "keep"
    REPACK = "repack"
    DELETE = "delete"


class PackUse(NamedTuple):
    """One pack: its stored size, that of its frames, and that of each frame still needed.

    The share that is dead is counted in frames alone. Were a pack's header counted too, a small
    pack would look half dead as soon as it is written, and would be rewritten for ever.
    """

    name: str
    total_bytes: int
    frame_bytes: int
    live_frame_bytes: tuple[int, ...]

    @property
    def live_bytes(self) -> int:
        """Bytes that must survive."""
        return sum(self.live_frame_bytes)

    @property
    def dead_bytes(self) -> int:
        """Bytes of frames that nothing needs."""
        return max(0, self.frame_bytes - self.live_bytes)


class PackDecision(NamedTuple):
    """What becomes of one pack, and why. `freed_bytes` is what deleting it gives back, net."""

    pack: PackUse
    action: Action
    reason: str
    freed_bytes: int


class CollectPlan(msgspec.Struct, frozen=True):
    """One decision per pack, in the order given."""

    decisions: tuple[PackDecision, ...]

    def names(self, action: Action) -> tuple[str, ...]:
        """Return the names of the packs that `action` applies to."""
        return tuple(d.pack.name for d in self.decisions if d.action is action)

    @property
    def freed_bytes(self) -> int:
        """Bytes the plan gives back when it has been carried out."""
        return sum(d.freed_bytes for d in self.decisions)

    @property
    def copied_bytes(self) -> int:
        """Bytes that have to be written again for it."""
        return sum(d.pack.live_bytes for d in self.decisions if d.action is Action.REPACK)


def plan_collection(
    packs: Iterable[PackUse], *, dead_share_min: float = DEAD_SHARE_MIN
) -> CollectPlan:
    """Decide about each pack. `dead_share_min` (0..1) is the dead share worth a rewrite."""
    return CollectPlan(tuple(_decide(pack, dead_share_min) for pack in packs))


def _decide(pack: PackUse, dead_share_min: float) -> PackDecision:
    if not pack.live_frame_bytes:
        return PackDecision(pack, Action.DELETE, "nothing in it is needed", pack.total_bytes)
    dead_share = pack.dead_bytes / max(pack.frame_bytes, 1)
    share = f"{dead_share:.0%} of {pack.frame_bytes} bytes is dead"
    if dead_share >= dead_share_min:
        return PackDecision(pack, Action.REPACK, share, pack.dead_bytes)
    return PackDecision(pack, Action.KEEP, f"only {share}", 0)
