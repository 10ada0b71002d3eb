"""What is known of the protection of a source at this moment: for `status` and the watermarks."""

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec import field

from streamd.catalog import dirty, objects
from streamd.catalog.census import entry_count
from streamd.catalog.suspicion import incident_of
from streamd.model.record import Incident


class Progress(msgspec.Struct):
    """What `status` shows of a source."""

    state: str = "starting"  # starting | scanning | protected | source-missing
    message: str = ""
    drained_us: int = 0  # every change made before it has been noticed
    local_oldest_us: int | None = None  # oldest change not yet durable in the local vault
    vault_oldest_us: int | None = None  # oldest change not yet in the vault of record
    last_change_us: int = 0
    last_scan_us: int = 0
    dirty_count: int = 0
    problem_count: int = 0
    fuzzy_count: int = 0
    entry_count: int = 0  # in the newest state
    entries_scanned: int = 0
    incident: Incident | None = None  # why it is suspect
    is_watching: bool = False
    owed: dict[bytes, int] = field(default_factory=dict)  # failed, and tried again: waiting since
    note_count: int = 0  # moves with every note that was taken
    scanned: asyncio.Event = field(default_factory=asyncio.Event)
    # no scan is under way, and the first has ended
    scan_idle: asyncio.Event = field(default_factory=asyncio.Event)

    def waits_since(self, since_us: int) -> None:
        """A change waits that may be as old as `since_us`."""
        self.local_oldest_us = min(self.local_oldest_us or since_us, since_us)
        self.vault_oldest_us = min(self.vault_oldest_us or since_us, since_us)

    def owe(self, failed: Mapping[bytes, int], settled: Iterable[bytes]) -> None:
        """What failed goes on waiting since its change, until it was captured or is gone."""
        for path, since_us in failed.items():
            self.owed.setdefault(path, since_us)
        for path in settled:
            self.owed.pop(path, None)

    def oldest_us(self, destination: str) -> int | None:
        """Return the oldest change that is not durable at a destination; None: all is."""
        oldest = self.local_oldest_us if destination == "local" else self.vault_oldest_us
        if not self.owed:
            return oldest
        failed = min(self.owed.values())
        return failed if oldest is None else min(oldest, failed)

    def through_us(self, destination: str) -> int:
        """Return the watermark: every change made before it is durable at `destination`."""
        oldest = self.oldest_us(destination)
        return self.drained_us if oldest is None else min(oldest, self.drained_us)

    def take(self, standing: "Standing", *, notes_before: int) -> None:
        """Show what the catalog says; ages only if nothing was noted since `notes_before`."""
        if notes_before == self.note_count:  # else the answer may be older than the question
            self.local_oldest_us = standing.local_oldest_us
            ages = [at for at in (standing.local_oldest_us, standing.waiting_us) if at is not None]
            self.vault_oldest_us = min(ages) if ages else None
        self.dirty_count, self.entry_count = standing.dirty_count, standing.entry_count
        self.incident = standing.incident
        self.problem_count = sum(standing.problems.values())
        self.fuzzy_count = standing.problems.get("fuzzy", 0)


class Standing(NamedTuple):
    """What the catalog says of a source."""

    local_oldest_us: int | None
    waiting_us: int | None  # oldest change in an object that the vault of record has not
    dirty_count: int
    problems: dict[str, int]  # by reason
    entry_count: int
    incident: Incident | None = None


def standing(connection: sqlite3.Connection, source: int, name: str = "") -> Standing:
    """Read it."""
    unput = objects.oldest_unput_us(connection, source)
    ages = [at for at in (dirty.oldest_us(connection, source), unput) if at is not None]
    return Standing(
        min(ages) if ages else None,
        objects.oldest_waiting_us(connection, source),
        dirty.count(connection, source),
        dirty.problems_by_reason(connection, source),
        entry_count(connection, source),
        incident_of(connection, name),
    )
