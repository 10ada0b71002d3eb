"""Look at what stands in the target already, and decide about it, before anything is written.

Files that are equal (size, time, and content chunk by chunk) are not written again, so a restore
that is repeated after a crash goes on where it stopped: whole files by comparing them, a large
unfinished one by comparing its chunks.
"""

import os
import stat
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

import msgspec
from msgspec import field

from streamd.errors import TargetConflict
from streamd.format.crypto import Buffer
from streamd.model.entry import EntryType
from streamd.restore.plan import (
    TEMPORARY_PREFIX,
    OnConflict,
    PlannedFile,
    PlannedLink,
    Refused,
    RestorePlan,
    other_name,
)
from streamd.restore.target import KINDS, SET_IDS, Target, temporary_name

_SHOWN: Final = 3
_ZEROS: Final = bytes(1024 * 1024)
_RESUMED_RUNS_MIN: Final = 2


class Verdict(Enum):
    """What happens at one place."""

    WRITE = 1
    REPLACE = 2
    EQUAL = 3
    SKIP = 4
    CONFLICT = 5
    KEEP_BOTH = 6


class Survey(msgspec.Struct):
    """The plan, parted by what is to be done."""

    write: list[PlannedFile] = field(default_factory=list)
    equal: list[PlannedFile] = field(default_factory=list)
    skipped_count: int = 0
    blocked: set[int] = field(default_factory=set)  # directories that cannot be
    replaced: set[int] = field(default_factory=set)  # directories in whose place something goes
    litter: list[tuple[int, bytes]] = field(default_factory=list)


def differing_runs(
    handle: int, file: PlannedFile, chunk_id: Callable[[Buffer], bytes]
) -> Iterator[int]:
    """Yield the numbers of the runs that an open file does not hold. OSError."""
    at = 0
    for number, run in enumerate(file.runs):
        if run.id is not None:
            data = os.pread(handle, run.size, at)
            if len(data) != run.size or chunk_id(data) != run.id:
                yield number
        elif not _is_hole(handle, at, run.size):
            yield number
        at += run.size


def _is_hole(handle: int, at: int, size: int) -> bool:
    end = at + size
    while at < end:
        data = os.pread(handle, min(len(_ZEROS), end - at), at)
        if not data or not _ZEROS.startswith(data):
            return False
        at += len(data)
    return True


class Surveyor:
    """Decides for every planned entry. Blocking."""

    def __init__(
        self,
        plan: RestorePlan,
        target: Target,
        on_conflict: OnConflict,
        *,
        chunk_id: Callable[[Buffer], bytes],
        instant: str,
        privileged: bool,
    ) -> None:
        self._plan = plan
        self._target = target
        self._rule = on_conflict
        self._chunk_id = chunk_id
        self._instant = instant
        self._privileged = privileged
        self._names: dict[int, set[bytes]] = {}  # of the directories that exist
        self._conflicts: list[bytes] = []
        self.survey = Survey()

    def run(self, *, target_exists: bool) -> Survey:
        """Return what is to be done. Raises TargetConflict; refusals go into the plan."""
        if target_exists:
            self._names[0] = self._target.names(0)
        for number in range(1, len(self._plan.directories)):
            self._look_at_directory(number)
        standing, blocked, write = self._names, self.survey.blocked, self.survey.write
        for file in self._plan.files:
            if not file.links and file.directory not in standing and file.directory not in blocked:
                write.append(file)  # its directory is still to be made: nothing can stand there
            else:
                self._decide(file)
        if self._conflicts:
            shown = ", ".join(map(os.fsdecode, self._conflicts[:_SHOWN]))
            more = len(self._conflicts) - _SHOWN
            raise TargetConflict(f"in the way: {shown}" + (f" and {more} more" if more > 0 else ""))
        mine = {
            (file.directory, temporary_name(file)) for file in self.survey.write if file.present
        }
        for number, names in self._names.items():
            litter = [(number, name) for name in names if name.startswith(TEMPORARY_PREFIX)]
            self.survey.litter.extend(each for each in litter if each not in mine)
        return self.survey

    def _look_at_directory(self, number: int) -> None:
        planned = self._plan.directories[number]
        if planned.parent in self.survey.blocked:
            self.survey.blocked.add(number)
            return
        if planned.name not in self._names.get(planned.parent, ()):
            return
        try:
            status = self._target.status(planned.parent, planned.name)
            if status is None:
                return
            if stat.S_ISDIR(status.st_mode):
                self._names[number] = self._target.names(number)
                return
        except OSError as error:
            self._refuse(planned.source_path, str(error.strerror))
            self.survey.blocked.add(number)
            return
        if self._rule is OnConflict.FAIL:
            self._conflicts.append(self._plan.target_path(number))
        elif self._rule is OnConflict.OVERWRITE:
            self.survey.replaced.add(number)
        else:
            self._refuse(planned.source_path, "something that is no directory is in its place")
            self.survey.blocked.add(number)

    def _refuse(self, path: bytes, reason: str) -> None:
        self._plan.refused.append(Refused(path, reason))

    def _decide(self, file: PlannedFile) -> None:
        """Decide about a file and its further names: the first that is kept leads."""
        leader: os.stat_result | bool | None = None
        links: list[PlannedLink] = []
        for place in (PlannedLink(file.directory, file.name), *file.links):
            verdict, status = self._verdict(file, place, leader)
            name = place.name
            if verdict is Verdict.SKIP:
                self.survey.skipped_count += 1
                continue
            if verdict is Verdict.CONFLICT:
                self._conflicts.append(self._plan.target_path(place.directory, name))
                continue
            if verdict is Verdict.KEEP_BOTH:
                name = other_name(name, self._instant)
            if leader is not None:
                if verdict is not Verdict.EQUAL:
                    links.append(PlannedLink(place.directory, name, verdict is Verdict.REPLACE))
                continue
            leader = status if verdict is Verdict.EQUAL and status else True
            file.directory, file.name = place.directory, name
            file.replaces = verdict is Verdict.REPLACE
            (self.survey.equal if verdict is Verdict.EQUAL else self.survey.write).append(file)
            if verdict is not Verdict.EQUAL:
                self._look_at_unfinished(file)
        file.links = links

    def _verdict(
        self, file: PlannedFile, place: PlannedLink, leader: os.stat_result | bool | None
    ) -> tuple[Verdict, os.stat_result | None]:
        if place.directory in self.survey.blocked:
            path = self._plan.source_path(place.directory, place.name)
            self._refuse(path, "its directory cannot be made")
            return Verdict.SKIP, None
        if place.name not in self._names.get(place.directory, ()):
            return Verdict.WRITE, None
        try:
            status = self._target.status(place.directory, place.name)
            if status is None:
                return Verdict.WRITE, None
            return self._compare(file, place, status, leader), status
        except OSError as error:
            path = self._plan.source_path(place.directory, place.name)
            self._refuse(path, str(error.strerror))
            return Verdict.SKIP, None

    def _compare(
        self,
        file: PlannedFile,
        place: PlannedLink,
        status: os.stat_result,
        leader: os.stat_result | bool | None,
    ) -> Verdict:
        if isinstance(leader, os.stat_result):
            if (leader.st_dev, leader.st_ino) == (status.st_dev, status.st_ino):
                return Verdict.EQUAL
        elif leader is None and self._is_equal(file, place, status):
            return Verdict.EQUAL
        if stat.S_ISDIR(status.st_mode) and self._rule is not OnConflict.FAIL:
            path = self._plan.source_path(place.directory, place.name)
            self._refuse(path, "a directory is in its place")
            return Verdict.SKIP
        return self._ruling(file, status)

    def _ruling(self, file: PlannedFile, status: os.stat_result) -> Verdict:
        if self._rule is OnConflict.FAIL:
            return Verdict.CONFLICT
        if self._rule is OnConflict.KEEP_BOTH:
            return Verdict.KEEP_BOTH
        newer = file.version.mtime_ns > status.st_mtime_ns
        if self._rule is OnConflict.OVERWRITE or (self._rule is OnConflict.NEWER and newer):
            return Verdict.REPLACE
        return Verdict.SKIP

    def _is_equal(self, file: PlannedFile, place: PlannedLink, status: os.stat_result) -> bool:
        version = file.version
        # What overwrites puts metadata right afterwards; the others must find it right.
        if self._rule is not OnConflict.OVERWRITE and not self._is_described(file, status):
            return False
        if version.type == EntryType.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and version.target == self._target.link_target(
                place.directory, place.name
            )
        if version.type != EntryType.REGULAR:
            kind, device = KINDS[EntryType(version.type)], version.rdev
            return (stat.S_IFMT(status.st_mode), status.st_rdev) == (kind, device)
        if not stat.S_ISREG(status.st_mode):
            return False
        if (status.st_size, status.st_mtime_ns) != (version.size, version.mtime_ns):
            return False
        handle = self._target.open_existing(place.directory, place.name)
        try:
            return next(differing_runs(handle, file, self._chunk_id), None) is None
        finally:
            os.close(handle)

    def _is_described(self, file: PlannedFile, status: os.stat_result) -> bool:
        version = file.version
        is_ours = (status.st_uid, status.st_gid) == (version.uid, version.gid)
        if not is_ours and self._privileged:
            return False
        mode = version.mode if is_ours else version.mode & ~SET_IDS
        return version.type == EntryType.SYMLINK or stat.S_IMODE(status.st_mode) == mode

    def _look_at_unfinished(self, file: PlannedFile) -> None:
        names = self._names.get(file.directory, ())
        if len(file.runs) < _RESUMED_RUNS_MIN or temporary_name(file) not in names:
            return
        try:
            handle = self._target.open_unfinished(file)
            if handle is None:
                return
            try:
                bad = set(differing_runs(handle, file, self._chunk_id))
            finally:
                os.close(handle)
        except OSError:
            return
        good = frozenset(number for number in range(len(file.runs)) if number not in bad)
        # A hole cannot be fetched: where there is something in one, begin anew.
        if good and all(file.runs[number].id is not None for number in bad):
            file.present = good
