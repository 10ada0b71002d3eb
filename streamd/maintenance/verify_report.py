"""What a verification looked at, and what is wrong."""

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.format.keys import Role
from streamd.storage.port import BlobName
from streamd.vault.journal_reader import Damage

AFFECTED_MAX: Final = 10_000  # rows of the report; the count goes on


class Level(StrEnum):
    """How deep to look; each level contains those before it."""

    LIST = "list"
    STRUCTURE = "structure"
    SAMPLE = "sample"
    FULL = "full"

    @property
    def contained(self) -> tuple["Level", ...]:
        """This level and those before it."""
        levels = tuple(Level)
        return levels[: levels.index(self) + 1]


class FrameId(NamedTuple):
    """A frame, by its object, role and first chunk."""

    name: BlobName
    role: Role
    first_chunk: int


class Affected(msgspec.Struct, frozen=True):
    """A version that cannot be had whole, at a path that it has in a kept state."""

    source: str
    path: bytes
    at_us: int  # an instant at which this is the version
    mtime_ns: int


class VerifyReport(msgspec.Struct):
    """The outcome of one verification."""

    level: Level
    object_count: int = 0
    object_bytes: int = 0
    read_bytes: int = 0
    segment_count: int = 0
    checkpoint_count: int = 0
    run_count: int = 0  # history runs, and shards of index generations
    pack_count: int = 0
    chunk_count: int = 0  # needed by some kept state
    missing_count: int = 0  # of these, nowhere to be had
    sampled_count: int = 0  # frames opened at level sample
    seed: int | None = None  # of the sample: the same draws the same again
    strangers: list[str] = field(default_factory=list)  # objects that nothing knows
    notes: list[str] = field(default_factory=list)  # worth saying, and no damage
    damage: list[Damage] = field(default_factory=list)
    bad_frames: set[FrameId] = field(default_factory=set)  # that do not open
    missing: set[bytes] = field(default_factory=set)  # chunks that are nowhere to be had
    affected: list[Affected] = field(default_factory=list)
    affected_count: int = 0
    healed_count: int = 0  # chunks that were stored anew
    lost_count: int = 0  # chunks that nothing holds any more
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged. Strangers do no harm."""
        return not self.damage and not self.missing_count

    def found(self, name: str, what: str) -> None:
        """Note damage, once."""
        damage = Damage(name, what)
        if damage not in self.damage:
            self.damage.append(damage)

    def affects(self, affected: Affected) -> None:
        """Note a version that is lost; the list is bounded, the count is not."""
        self.affected_count += 1
        if len(self.affected) < AFFECTED_MAX:
            self.affected.append(affected)
