"""What flows through the pipeline: findings of a survey, read, sealed, ready to be committed.

One `Finding` is a batch: up to 256 entries or 4 MiB of file content, or one piece of a large file.
It keeps its place in line (`lane`, `sequence`), because batches of one lane are committed in order.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.catalog.cuts import Cuts
from streamd.catalog.dirty import DirtyPlace
from streamd.catalog.tree import Intent
from streamd.format.frame import SealedBatch
from streamd.model.host import HostStat
from streamd.model.record import Gap, Mark

BATCH_ENTRIES_MAX: Final = 256
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024


class Found(NamedTuple):
    """`name` in directory `parent` is file `fid` and is to be recorded.

    `read` False: the file itself is in this survey already, under another name. `is_fresh`: the fid
    was drawn for this entry; otherwise it is the catalog's, and the commit checks that it still is.
    """

    parent: int
    name: bytes
    path: bytes
    fid: int
    stat: HostStat
    since_us: int  # since when its change may have been waiting
    parent_ino: int  # inode number of the directory, 0 if not known
    read: bool
    is_fresh: bool
    generation: int = 0  # which use of the inode number it is, see model.host.Identity


class Trouble(NamedTuple):
    """An entry that could not be captured."""

    path: bytes
    reason: str
    errno: int
    detail: str = ""  # what a program said


class Finding(msgspec.Struct):
    """One batch of a survey."""

    gone: list[tuple[int, bytes]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    deferred: list[DirtyPlace] = field(default_factory=list)  # to be looked at again
    troubles: list[Trouble] = field(default_factory=list)
    absent: list[bytes] = field(default_factory=list)  # not there: nothing is wrong with them
    expected_bytes: int = 0
    is_large: bool = False  # exactly one entry, a regular file too large for one batch

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to record or report."""
        return not (self.gone or self.found or self.deferred or self.troubles or self.absent)


class Ready(msgspec.Struct):
    """A finding whose content is sealed: all that the commit needs."""

    gone: list[tuple[int, bytes]] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    good_paths: list[bytes] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    absent: list[bytes] = field(default_factory=list)  # these and all below are not there
    again: list[DirtyPlace] = field(default_factory=list)  # look at these again: not captured
    racy: dict[bytes, int] = field(default_factory=dict)  # and at these: captured at an instant
    slipped: list[DirtyPlace] = field(default_factory=list)  # those that were not there any more
    lost: list[DirtyPlace] = field(default_factory=list)  # and these: the commit had no place
    is_torn: bool = False  # something of it had no place: what was recorded never was
    later: list[bytes] = field(default_factory=list)  # and these after a while
    owed: dict[bytes, int] = field(default_factory=dict)  # failed: waiting since
    inline_data: list[SealedBatch] = field(default_factory=list)
    inline_meta: list[SealedBatch] = field(default_factory=list)
    new_chunks: dict[int, list[bytes]] = field(default_factory=dict)  # pack's object number -> ids
    needs: set[int] = field(default_factory=set)  # objects that hold chunks this one refers to
    gaps: list[Gap] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    settled: list[tuple[int, bytes]] = field(default_factory=list)  # (parent, name): found, gone
    found: Sequence[Found] = ()  # those of them that were found: to be looked at if dropped
    new_ids: list[bytes] = field(default_factory=list)  # chunks claimed in the dedup index
    cuts: Cuts | None = None  # how the one large file is cut
    survey_done: int = 0  # number of the survey that this finding ends
    first_us: int = 0  # since when the oldest change in it was waiting
    held_bytes: int = 0  # of the memory budget
