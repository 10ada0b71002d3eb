"""What the daemon says about itself: the answers of its control socket, and how bad they are.

Pure. The fields are part of the command line contract (`streamd status --json`): they are only
added to. Times are microseconds since the epoch, 0 when it has not happened yet.
"""

import base64
import errno
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from streamd.catalog.dirty import Problem
from streamd.errors import ExitCode
from streamd.model.record import SUSPECT
from streamd.policy.classes import EVENTS_WAIT, class_of, remedy_of
from streamd.sources.port import Watch

SourceState = Literal["starting", "scanning", "protected", "lagging", "source-missing", "failed"]
OverallState = Literal["protected", "lagging", "incomplete"]
WATCHES_MAX: Final = 200  # shown of one source
_BADNESS: Final[dict[str, int]] = {
    "failed": 5,
    "source-missing": 4,
    "lagging": 3,
    "starting": 2,
    "scanning": 1,
    "protected": 0,
}


class DestinationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a source is safe at one destination (`local` or `vault`).

    `lag_seconds` is None as long as nothing of the source is there.
    """

    destination: str
    protected_through_us: int
    lag_seconds: float | None


class WatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """How a path, a mount below it or a polled directory is watched; `why` not better, if so."""

    path: str
    mode: str
    why: str = ""


class IncidentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Why a source is suspect. `before_us`: its last point that is certainly good."""

    reason: str  # encrypted, deleted
    files: int
    before_us: int


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one source stands. `message` says in words what is wrong or under way."""

    name: str
    state: SourceState
    paths: tuple[str, ...]
    rpo_seconds: float
    destinations: tuple[DestinationStatus, ...]
    watch_modes: dict[str, str]  # path → fanotify, inotify, polling …
    watches: tuple[WatchLine, ...] = ()  # the same for each part that is watched for itself
    unprotected_changes: int = 0
    problems: int = 0
    fuzzy: int = 0
    entries: int = 0
    last_change_us: int = 0
    last_scan_us: int = 0
    message: str = ""
    classes: dict[str, int] = {}  # entries by class (`policy.classes`); each is in exactly one
    reconcile_us: int = 0  # when a scan last saw everything …
    reconcile_entries: int = 0  # … and how many entries that was, those left out included
    incident: IncidentStatus | None = None  # damaged in mass, and nothing of it is thinned
    events_wait_since_us: int = 0  # what changed since may not be noticed yet; 0: all is

    @property
    def worst_lag_seconds(self) -> float | None:
        """Return the longest lag; None when a destination has nothing yet, or there is none."""
        lags = [each.lag_seconds for each in self.destinations]
        known = [lag for lag in lags if lag is not None]
        return max(known) if known and len(known) == len(lags) else None

    @property
    def is_inside_rpo(self) -> bool:
        """Whether a loss of the host now would cost no more than the RPO."""
        lag = self.worst_lag_seconds
        return lag is not None and lag <= self.rpo_seconds


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `streamd status` shows."""

    version: str
    pid: int
    started_us: int
    now_us: int
    vault_url: str
    is_remote: bool
    sources: tuple[SourceStatus, ...]
    state: OverallState
    spool_bytes: int = 0  # durable here and not yet in the container
    spool_objects: int = 0
    upload_state: str = ""
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    config_generation: int = 0
    config_error: str = ""  # why the last reload was refused
    config_unheeded: tuple[str, ...] = ()  # what is set and not acted on
    retention_last_us: int = 0
    upload_limit_bytes_per_second: int | None = None  # None: no limit, 0: paused
    upload_limit_reason: str = "none"  # none, paused, ordered, window
    upload_limit_until_us: int = 0  # 0: no end is set
    role: str = "full"  # of this host: write-only means that it cannot read the vault
    spool_full_since_us: int = 0  # capture waits for room in the local copy; 0: it does not


class ProblemLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry that is not protected as it should be, and since when.

    `path` is lossy text where `path_b64` is there.
    """

    source: str
    path: str
    reason: str
    error: str = ""  # the errno's name, such as EACCES
    since_us: int
    path_b64: str = ""
    detail: str = ""  # what a program said, or the rule that leaves it out
    in_class: str = msgspec.field(name="class", default="")  # see `policy.classes`
    remedy: str = ""


class ProblemsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `streamd problems` shows; `count` may be more than are listed."""

    problems: tuple[ProblemLine, ...]
    count: int


class WatchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows of a path that no one else does."""

    mode: str  # how the configured path that it is below is watched
    state: str  # of the source
    last_event_us: int  # of the path itself; 0: none is remembered
    source_event_us: int  # the last one anywhere in the source
    events_wait_since_us: int = 0  # as in SourceStatus
    events_wait: str = ""  # the same in words


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed. Keys are dotted, sources are named."""

    config_generation: int
    added_sources: tuple[str, ...] = ()
    removed_sources: tuple[str, ...] = ()
    changed_sources: tuple[str, ...] = ()
    applies: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def path_texts(raw: bytes) -> tuple[str, str]:
    """Return a path as JSON has it: text, and base64 too where the text is not all of it."""
    try:
        return raw.decode("utf-8"), ""
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), base64.b64encode(raw).decode("ascii")


def problem_line(source: str, problem: Problem) -> ProblemLine:
    """Return a problem as the control socket sends it."""
    text, path_b64 = path_texts(problem.path)
    number = problem.errno
    return ProblemLine(
        source=source,
        path=text,
        path_b64=path_b64,
        reason=problem.reason,
        error=errno.errorcode.get(number, str(number)) if number else "",
        since_us=problem.since_us,
        detail=problem.detail,
        in_class=class_of(problem.reason),
        remedy=remedy_of(problem.reason),
    )


def incident_problem(source: SourceStatus) -> ProblemLine | None:
    """Return the line about a suspect source among the problems."""
    incident = source.incident
    if incident is None:
        return None
    return ProblemLine(
        source=source.name,
        path=source.paths[0] if source.paths else "",
        reason=SUSPECT,
        since_us=incident.before_us,
        detail=f"{incident.files} files {incident.reason}",
        remedy=remedy_of(SUSPECT),
    )


def waiting_problem(source: SourceStatus) -> ProblemLine | None:
    """Return the line about a source whose events wait among the problems."""
    if not source.events_wait_since_us:
        return None
    return ProblemLine(
        source=source.name,
        path=source.paths[0] if source.paths else "",
        reason=EVENTS_WAIT,
        since_us=source.events_wait_since_us,
        detail=source.message,
        in_class=class_of(EVENTS_WAIT),
        remedy=remedy_of(EVENTS_WAIT),
    )


def worst_first(sources: Iterable[SourceStatus]) -> list[SourceStatus]:
    """Return the sources in the order in which somebody should look at them."""
    return sorted(sources, key=_badness)


def _badness(source: SourceStatus) -> tuple[object, ...]:
    lag = source.worst_lag_seconds
    return (
        source.incident is None,
        -_BADNESS[source.state],
        source.is_inside_rpo,
        -source.problems,
        lag is not None,
        -(lag or 0.0),
        source.name,
    )


def overall_state(sources: Iterable[SourceStatus]) -> OverallState:
    """Return the state of all sources together.

    `incomplete` when one is missing, failed, not scanned yet, suspect or has problems, or when
    there is none at all; else `lagging` when one is behind its RPO.
    """
    listed = list(sources)
    if not listed or any(
        source.problems or source.incident or source.state not in {"protected", "lagging"}
        for source in listed
    ):
        return "incomplete"
    if all(source.state == "protected" and source.is_inside_rpo for source in listed):
        return "protected"
    return "lagging"


def verdict(status: DaemonStatus) -> ExitCode:
    """Return the exit code of `streamd status`: OK only when everything is protected."""
    is_protected = status.state == overall_state(status.sources) == "protected"
    return ExitCode.OK if is_protected else ExitCode.INCOMPLETE


def watch_lines(watches: Mapping[bytes, Watch]) -> tuple[WatchLine, ...]:
    """Return how the parts of a source are watched, the first of very many; the worst first."""
    best_last = sorted(watches.items(), key=lambda one: (not one[1].why, one[0]))
    return tuple(
        WatchLine(path=path.decode(errors="replace"), mode=watch.mode, why=watch.why)
        for path, watch in best_last[:WATCHES_MAX]
    )
