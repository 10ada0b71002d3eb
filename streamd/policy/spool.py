"""What becomes of the next object when the local copy in front of a container is filling up.

Pure. The order of what gives way: data that the container has too, then the way through the copy
(bulk goes to the container directly), then the pace (whoever captures waits). What never gives way
is data that only the copy has, and the free space that belongs to the host.
"""

from enum import StrEnum
from typing import Final

import msgspec

# Of what must stay free, so much is for segments: small changes go on when bulk has to wait.
SEGMENT_SHARE: Final = 0.5
# A segment may also take so much more than `max_size`, for the same reason.
SEGMENT_EXCESS: Final = 1.05


class Way(StrEnum):
    """Where an object may go."""

    COPY = "copy"
    EVICT = "evict"  # into the copy, as soon as older data that is elsewhere too has left it
    BYPASS = "bypass"  # directly to the container
    WAIT = "wait"


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The copy and its file system. `inodes_total` 0: the file system has no bound on them."""

    copy_bytes: int
    evictable_bytes: int  # of the copy: the container has it too
    free_bytes: int
    total_bytes: int
    free_inodes: int
    inodes_total: int


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration allows. `min_free` is a share of the file system, or bytes."""

    max_size_bytes: int
    min_free: float | int

    def free_bytes_min(self, total_bytes: int) -> int:
        """Return what must stay free of a file system of `total_bytes`."""
        if isinstance(self.min_free, float):
            return int(self.min_free * total_bytes)
        return self.min_free

    def free_inodes_min(self, room: Room) -> int:
        """Return how many inodes must stay free: the same share as of the bytes."""
        if not room.inodes_total or not room.total_bytes:
            return 0
        return self.free_bytes_min(room.total_bytes) * room.inodes_total // room.total_bytes


class Admission(msgspec.Struct, frozen=True):
    """The way of an object. With EVICT: so many bytes have to leave the copy first."""

    way: Way
    evict_bytes: int = 0


def admit(
    size_bytes: int, room: Room, bounds: Bounds, *, is_bulk: bool, may_bypass: bool
) -> Admission:
    """Return where an object of `size_bytes` goes. `may_bypass`: the container may take it."""
    missing = _missing_bytes(size_bytes, room, bounds, is_bulk=is_bulk)
    if missing <= 0:
        return Admission(Way.COPY)
    if missing <= room.evictable_bytes:
        return Admission(Way.EVICT, missing)
    return Admission(Way.BYPASS if may_bypass else Way.WAIT)


def _missing_bytes(size_bytes: int, room: Room, bounds: Bounds, *, is_bulk: bool) -> int:
    """Return how much the copy would have to shrink first; 0 or less: nothing."""
    share, excess = (1.0, 1.0) if is_bulk else (SEGMENT_SHARE, SEGMENT_EXCESS)
    over_size = room.copy_bytes + size_bytes - int(bounds.max_size_bytes * excess)
    free_min = int(bounds.free_bytes_min(room.total_bytes) * share)
    over_free = size_bytes - (room.free_bytes - free_min)
    missing = max(over_size, over_free)
    if room.inodes_total and room.free_inodes - int(bounds.free_inodes_min(room) * share) < 1:
        missing = max(missing, size_bytes)  # one object for one: about as large
    return missing
