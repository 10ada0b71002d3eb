"""One restore from beginning to end, and the report of it."""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import field

from streamd.effects import Clock
from streamd.errors import SpaceMissing, UsageInvalid, VaultDamaged
from streamd.model.entry import EntryType
from streamd.restore.existing import Survey, Surveyor, differing_runs
from streamd.restore.fetch import Fetch, Progress
from streamd.restore.plan import OnConflict, PlannedFile, Planner, Refused, RestorePlan
from streamd.restore.target import Notes, Target, open_target, stop_if_full
from streamd.vault.documents import utc_text
from streamd.vault.journal_reader import Damage
from streamd.vault.parallel import in_thread
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import TreeState
from streamd.vault.vault import Vault

_EXPAND_BATCH: Final = 1000
_SPARE_BYTES: Final = 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Selection(msgspec.Struct, frozen=True):
    """Paths of one source; the empty path is all of it. A relative path is below its only path."""

    source: str
    paths: tuple[bytes, ...] = (b"",)


class RestoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `target` is a directory, or None: everything to where it came from."""

    selections: Sequence[Selection]
    at_us: int
    target: bytes | None
    on_conflict: OnConflict = OnConflict.FAIL
    dry_run: bool = False
    verify: bool = False
    devices: bool = False


class RestoreReport(msgspec.Struct, kw_only=True):
    """What was done, or with `dry_run` what would be. Sizes in bytes, times in µs and seconds."""

    dry_run: bool
    at_us: dict[str, int] = field(default_factory=dict)  # source -> instant really restored
    remarks: list[str] = field(default_factory=list)  # why that is not the instant asked for
    directory_count: int = 0
    file_count: int = 0  # whatever is no directory
    link_count: int = 0
    equal_count: int = 0
    skipped_count: int = 0
    content_bytes: int = 0  # written, or to be written
    read_bytes: int = 0  # of the vault's objects
    local_bytes: int = 0
    remote_bytes: int = 0
    verified_count: int = 0
    refused: list[Refused] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    damage: list[Damage] = field(default_factory=list)  # met on the way, harmful or not
    is_journal_damaged: bool = False  # so that the state itself may lack something
    seconds: float = 0.0

    @property
    def is_damaged(self) -> bool:
        """Whether something could not be had because the vault is damaged."""
        return self.is_journal_damaged or any(each.is_damage for each in self.refused)


class RestoreSession:
    """Carries out one request."""

    def __init__(
        self,
        vault: Vault,
        request: RestoreRequest,
        *,
        clock: Clock,
        progress: Callable[[Progress], None] = lambda _: None,
        states: StateReader | None = None,
    ) -> None:
        self._vault = vault
        self._request = request
        self._clock = clock
        self._progress = progress
        self._states = states or StateReader(vault)
        self._chunks = self._states.chunks
        self._privileged = os.geteuid() == 0
        self.report = RestoreReport(dry_run=request.dry_run)

    async def run(self) -> RestoreReport:
        """Restore. Raises NotFound, TargetConflict, SpaceMissing, UsageInvalid, DiskFull,
        KeyRejected, and what the store raises; after DiskFull or a crash it can be repeated.
        """
        started, before = self._clock.monotonic(), self._traffic()
        plan = await self._plan()
        await self._expand(plan)
        root_path = b"/" if self._request.target is None else self._request.target
        root = _open_existing(root_path)
        try:
            survey = await in_thread(partial(self._survey, plan, root))
            fetch = Fetch(self._chunks, plan, survey.write, path_of=self._path_of())
            await fetch.locate()
            self._check_space(plan, survey, root_path)
            if self._request.dry_run:
                self._foretell(plan, survey, fetch.to_read)
            else:
                if root is None:
                    is_place = plan.directories[0].version is None
                    root = open_target(root_path, 0o755 if is_place else 0o700)
                await self._carry_out(plan, survey, fetch, root)
        except OSError as error:
            raise UsageInvalid(f"{os.fsdecode(root_path)}: {error.strerror}") from error
        finally:
            if root is not None:
                os.close(root)
        report = self.report
        report.refused = plan.refused + fetch.result.refused
        report.damage.extend(self._chunks.damage)
        self._count_traffic(before, fetch)
        report.seconds = self._clock.monotonic() - started
        return report

    # -- plan ------------------------------------------------------------------------------------

    async def _plan(self) -> RestorePlan:
        planner = Planner(devices=self._request.devices)
        count = sum(len(selection.paths) for selection in self._request.selections)
        absolute = self._request.target is None or count > 1
        for selection in self._request.selections:
            with await self._states.state_at(selection.source, self._request.at_us) as state:
                report = self.report
                report.at_us[selection.source] = state.at_us
                report.damage.extend(state.damage)
                if state.damage and not state.is_exact:
                    report.is_journal_damaged = True
                if state.note:
                    report.remarks.append(f"{selection.source}: {state.note}")
                paths = [absolute_path(state, path) for path in selection.paths]
                await in_thread(partial(planner.add, state, paths, absolute=absolute))
        return planner.plan

    async def _expand(self, plan: RestorePlan) -> None:
        """Resolve chunk lists; files whose list is damaged are refused."""
        long = [file for file in plan.files if file.version.levels]
        for start in range(0, len(long), _EXPAND_BATCH):
            some = long[start : start + _EXPAND_BATCH]
            try:
                lists = await self._chunks.expand_all([file.version for file in some])
                for file, runs in zip(some, lists, strict=True):
                    file.runs = runs
            except VaultDamaged:
                await self._expand_singly(plan, [file for file in some if not file.runs])
        plan.files = [file for file in plan.files if file.runs or not file.version.levels]

    async def _expand_singly(self, plan: RestorePlan, files: Sequence[PlannedFile]) -> None:
        for file in plan.files:
            if file not in files:
                continue
            try:
                file.runs = await self._chunks.expand(file.version)
            except VaultDamaged as error:
                path = plan.source_path(file.directory, file.name)
                plan.refused.append(Refused(path, str(error), is_damage=True))

    def _survey(self, plan: RestorePlan, root: int | None) -> Survey:
        target = Target(root if root is not None else -1, plan, privileged=self._privileged)
        newest = max(self.report.at_us.values(), default=0)
        surveyor = Surveyor(
            plan,
            target,
            self._request.on_conflict,
            chunk_id=self._vault.keys.domain_keys.chunk_id,
            instant=utc_text(newest).replace(":", "").replace("-", ""),
            privileged=self._privileged,
        )
        try:
            return surveyor.run(target_exists=root is not None)
        finally:
            target.close()

    def _check_space(self, plan: RestorePlan, survey: Survey, path: bytes) -> None:
        """Raise SpaceMissing if the target cannot hold what is to be written."""
        while path != b"/" and not os.path.isdir(path):
            path = os.path.dirname(os.path.abspath(path))
        room = os.statvfs(path)
        block = room.f_bsize
        needed = _SPARE_BYTES + len(plan.directories) * block
        for file in survey.write:
            size = 0
            for run in file.runs:
                if run.id is not None:
                    size += run.size
            needed += -(-size // block) * block
        free = (room.f_bfree if self._privileged else room.f_bavail) * room.f_frsize
        where = os.fsdecode(path)
        if needed > free:
            raise SpaceMissing(f"{where} has {free} bytes free, and {needed} are needed")
        inodes = len(plan.directories) + len(survey.write)
        if room.f_files and inodes > room.f_favail:
            raise SpaceMissing(f"{where} has {room.f_favail} inodes free, {inodes} are needed")

    def _foretell(self, plan: RestorePlan, survey: Survey, to_read: int) -> None:
        report = self.report
        report.directory_count = len(plan.directories) - 1
        report.file_count = len(survey.write)
        report.link_count = sum(len(file.links) for file in survey.write + survey.equal)
        report.equal_count, report.skipped_count = len(survey.equal), survey.skipped_count
        report.content_bytes = sum(
            run.size for file in survey.write for run in file.runs if run.id is not None
        )
        report.read_bytes = to_read

    # -- write -----------------------------------------------------------------------------------

    async def _carry_out(self, plan: RestorePlan, survey: Survey, fetch: Fetch, root: int) -> None:
        target = Target(root, plan, privileged=self._privileged)
        try:
            await in_thread(partial(self._make_directories, plan, survey, target))
            notes = await fetch.run(
                lambda: Target(root, plan, privileged=self._privileged), self._progress
            )
            await in_thread(partial(self._finish, plan, survey, fetch, target))
            if self._request.verify:
                await in_thread(partial(self._verify, plan, fetch, target))
        finally:
            target.close()
        for each in (*notes, target.notes):
            self.report.notes.merge(each)
        report = self.report
        report.file_count = fetch.result.file_count
        report.content_bytes = fetch.result.written_bytes
        report.equal_count, report.skipped_count = len(survey.equal), survey.skipped_count

    def _make_directories(self, plan: RestorePlan, survey: Survey, target: Target) -> None:
        for number, name in survey.litter:
            target.remove_temporary(number, name)
        for number in range(1, len(plan.directories)):
            planned = plan.directories[number]
            if planned.parent in survey.blocked:
                survey.blocked.add(number)
            if number in survey.blocked:
                continue
            try:
                target.make_directory(number, replace=number in survey.replaced)
                self.report.directory_count += 1
            except OSError as error:
                stop_if_full(error)
                survey.blocked.add(number)
                plan.refused.append(Refused(planned.source_path, str(error.strerror)))

    def _finish(self, plan: RestorePlan, survey: Survey, fetch: Fetch, target: Target) -> None:
        """Make links, then give the directories their metadata, the deepest first, then flush."""
        if self._request.on_conflict is OnConflict.OVERWRITE:
            for file in survey.equal:
                with _Refusing(plan, plan.source_path(file.directory, file.name)):
                    target.describe_existing(file)
        for file in (*fetch.finished(), *survey.equal):
            for link in file.links:
                with _Refusing(plan, plan.source_path(link.directory, link.name)):
                    target.link(file, link)
                    self.report.link_count += 1
        for number in range(len(plan.directories) - 1, -1, -1):
            if number not in survey.blocked:
                with _Refusing(plan, plan.directories[number].source_path):
                    target.finish_directory(number)
        if _libc.syncfs(target.root) != 0:
            number = ctypes.get_errno()
            raise UsageInvalid(f"the target cannot be flushed: {os.strerror(number)}")

    def _verify(self, plan: RestorePlan, fetch: Fetch, target: Target) -> None:
        chunk_id = self._vault.keys.domain_keys.chunk_id
        for file in fetch.finished():
            if file.version.type != EntryType.REGULAR:
                continue
            path = plan.source_path(file.directory, file.name)
            with _Refusing(plan, path):
                handle = target.open_existing(file.directory, file.name)
                try:
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                    size = os.fstat(handle).st_size
                    bad = next(differing_runs(handle, file, chunk_id), None)
                finally:
                    os.close(handle)
                if bad is not None or size != file.version.size:
                    what = "reads back differently from the target"
                    plan.refused.append(Refused(path, what, is_damage=True))
                else:
                    self.report.verified_count += 1

    # -- where bytes came from -------------------------------------------------------------------

    def _path_of(self) -> Callable[[str], str] | None:
        """Return how to find objects as files, if the store is a directory."""
        found: Callable[[str], str] | None = getattr(self._vault.store, "path_of", None)
        return found

    def _traffic(self) -> tuple[int, int] | None:
        store = self._vault.store
        local = getattr(store, "local_bytes_read", None)
        return None if local is None else (local, getattr(store, "remote_bytes_read", 0))

    def _count_traffic(self, before: tuple[int, int] | None, fetch: Fetch) -> None:
        report, after = self.report, self._traffic()
        if not report.dry_run:
            report.read_bytes = fetch.result.read_bytes
        if before is not None and after is not None:
            report.local_bytes, report.remote_bytes = after[0] - before[0], after[1] - before[1]
        elif self._path_of() is not None:
            report.local_bytes = fetch.result.read_bytes
        else:
            report.remote_bytes = fetch.result.read_bytes


class _Refusing:
    """Turns an OSError about one thing into a refusal of it."""

    def __init__(self, plan: RestorePlan, path: bytes) -> None:
        self._plan = plan
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, OSError):
            return False
        stop_if_full(error)
        self._plan.refused.append(Refused(self._path, str(error.strerror)))
        return True


def absolute_path(state: TreeState, path: bytes) -> bytes:
    """Return the absolute path of what a person named. Raises UsageInvalid."""
    if not path or path.startswith(b"/"):
        return path
    roots = state.info().paths
    if len(roots) != 1:
        raise UsageInvalid("the source has several paths: name an absolute one")
    return roots[0].rstrip(b"/") + b"/" + path


def _open_existing(path: bytes) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageInvalid(f"{os.fsdecode(path)}: {error.strerror}") from error
