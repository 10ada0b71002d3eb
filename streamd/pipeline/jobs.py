"""What is on its way through the pipeline: jobs, and what the pipeline is told of their source."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import msgspec
from msgspec import field

from streamd.catalog.inodes import Inodes
from streamd.catalog.tree import Intent
from streamd.model.record import Gap, Mark
from streamd.pipeline.commit import SourceIdentity
from streamd.pipeline.cut import Cut
from streamd.pipeline.dedup import Lane
from streamd.pipeline.findings import Finding, Ready
from streamd.pipeline.in_flight import InFlight
from streamd.pipeline.seal import Described
from streamd.sources.port import Source


class Observer(Protocol):
    """Told what every step did; `observe.metrics` listens."""

    def step(self, step: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """One batch passed a step: read, chunk, seal, pack, upload or commit."""

    def files(self, source: str, outcome: str, count: int) -> None:
        """Entries were read, with this outcome."""

    def read(self, source: str, size: int, stored: int, duplicate: int) -> None:
        """Bytes of a source were read; so many are newly stored, so many were known."""

    def chunks(self, new: int, duplicate: int) -> None:
        """Chunks were found new, or known."""

    def committed(self, source: str, delays: list[float]) -> None:
        """Changes became durable in the local vault, after these delays in seconds."""


class Stream(msgspec.Struct):
    """What the pipeline needs to know of one source while it captures it."""

    source: Source
    identity: SourceIdentity
    in_flight: InFlight
    number: int  # of the source in the catalog
    on_committed: Callable[[Ready, int], None]  # finding, instant of the record
    slow: Executor | None = None  # a thread of its own, where reading means waiting for a program
    new_fid: Callable[[], int] | None = None  # for files that replace others in the midst of it
    inodes: Inodes | None = None  # all of them, if the source is new


class Job(msgspec.Struct):
    """A finding on its way."""

    stream: Stream
    lane: Lane
    sequence: int
    finding: Finding
    first_us: int
    survey_done: int = 0
    gaps: list[Gap] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    held_bytes: int = 0
    cut: Cut | None = None  # the live cut that it is a part of


class Parked(msgspec.Struct):
    """A finished finding that waits for its turn and its packs."""

    job: Job
    ready: Ready
    packs: list[tuple["asyncio.Future[int]", list[bytes]]]
    is_void: bool = False

    @property
    def is_held(self) -> bool:
        """Whether it waits for the end of the cut that it is a part of."""
        return self.job.cut is not None and self.job.cut.is_held

    def void(self) -> None:
        """Record nothing of it. Its new chunks stay: a later pass may refer to them."""
        ready, self.is_void = self.ready, True
        ready.gone, ready.intents, ready.settled, ready.found = [], [], [], ()
        ready.good_paths, ready.troubles, ready.absent = [], [], []
        ready.again, ready.racy, ready.slipped, ready.later, ready.owed = [], {}, [], [], {}


def begin(job: Job) -> Ready:
    """Return what is ready of a finding before anything is read."""
    finding = job.finding
    return Ready(
        gone=finding.gone,
        troubles=list(finding.troubles),
        absent=finding.absent,
        again=list(finding.deferred),
        settled=[(entry[0], entry[1]) for entry in finding.found] + finding.gone,
        found=finding.found,
        gaps=job.gaps,
        marks=job.marks,
        survey_done=job.survey_done,
        first_us=job.first_us,
    )


def take(ready: Ready, described: Described) -> None:
    """Add described entries to a finding."""
    ready.intents += described.intents
    ready.good_paths += described.good_paths
    ready.troubles += described.troubles
    ready.again += described.again
    ready.racy |= described.racy
    ready.slipped += described.slipped
    ready.later += described.later
    ready.owed |= described.owed


def add_links(parked: Parked) -> None:
    """Entries that are only further names of files in this survey follow the files."""
    for entry in parked.job.finding.found:
        if not entry.read:
            parked.ready.intents.append(
                Intent(
                    entry.parent,
                    entry.name,
                    entry.fid,
                    entry.stat,
                    version=None,
                    again=False,
                    is_fresh=False,
                )
            )


def in_order(parked: Parked) -> None:
    """Put intents into the order of the entries: a directory comes before what is in it."""
    places = {(entry.parent, entry.name): i for i, entry in enumerate(parked.job.finding.found)}
    parked.ready.intents.sort(key=lambda intent: places.get((intent.parent, intent.name), -1))
