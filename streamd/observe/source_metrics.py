"""Metrics of what is protected: how far each source is, how it is watched and read."""

from typing import Final

from streamd.observe.metric_set import MetricSet
from streamd.observe.names import DESTINATIONS, SOURCE_LABEL
from streamd.policy.classes import FILE_CLASSES
from streamd.policy.retention import CLASSES

WATCH_MODES: Final = ("fanotify", "inotify", "polling", "schedule")
HOOKS: Final = ("before_capture", "after_capture")
PROGRAM_RESULTS: Final = ("ok", "failed")
RESCAN_REASONS: Final = (
    "start",
    "overflow",
    "watch-limit",
    "unclean-stop",
    "mount-changed",
    "path-too-long",
    "settings-changed",
    "source-back",
    "periodic",
    "request",
)
REREAD_RESULTS: Final = ("ok", "changed", "unread", "differs")
RESULTS: Final = ("ok", "incomplete")
FILE_RESULTS: Final = (
    "ok",
    "fuzzy",
    "vanished",
    "unreadable",
    "io-error",
    "type-changed",
    "sqlite-failed",
    "command-failed",
)
FILE_ERRORS: Final = ("EACCES", "EPERM", "EIO")
ENTRY_TYPES: Final = ("file", "directory", "symlink", "other")
DELAY_BUCKETS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600)

_SOURCE: Final = SOURCE_LABEL


class SourceMetrics(MetricSet):
    """What an operator asks about a source."""

    def _declare_protection(self) -> None:
        self.rpo_target_seconds = self._gauge(
            "rpo_target_seconds", "The configured rpo of the source.", (_SOURCE,)
        )
        self.unprotected_changes = self._gauge(
            "unprotected_changes", "Changes noticed and not yet captured.", (_SOURCE,)
        )
        self.source_suspect = self._gauge(
            "source_suspect",
            "1 while the source is suspect: it was damaged in mass (encrypted, deleted), and"
            " nothing of it is thinned until that is released.",
            (_SOURCE,),
        )
        self.files = self._gauge(
            "files",
            "Entries below the source by class; each is in exactly one. Excluded ones are those of"
            " the last full scan.",
            (_SOURCE, "class"),
            **{"class": FILE_CLASSES},
        )
        self.unprotected_bytes = self._gauge(
            "unprotected_bytes", "Size of the files noticed and not yet captured.", (_SOURCE,)
        )
        self.change_protection_delay_seconds = self._histogram(
            "change_protection_delay_seconds",
            "Time from the notice of a change until it is durable at the destination.",
            (_SOURCE, "destination"),
            DELAY_BUCKETS,
            destination=DESTINATIONS,
        )
        self.recovery_point_last_success_timestamp_seconds = self._gauge(
            "recovery_point_last_success_timestamp_seconds",
            "Unix time of the newest restorable state of the source.",
            (_SOURCE,),
        )
        self.recovery_points = self._gauge(
            "recovery_points",
            "Recovery points kept, by class; a point may belong to several.",
            (_SOURCE, "class"),
            **{"class": CLASSES},
        )

    def _declare_watch(self) -> None:
        self.watch_events_total = self._counter(
            "watch_events_total", "File system events read.", (_SOURCE,)
        )
        self.watch_overflows_total = self._counter(
            "watch_overflows_total",
            "Times the kernel's event queue overflowed: events were lost, a rescan follows.",
            (_SOURCE,),
        )
        self.cut_passes_repeated_total = self._counter(
            "cut_passes_repeated_total",
            "Passes of live cuts that were made again, because the tree moved meanwhile.",
            (_SOURCE,),
        )
        self.cuts_unsettled_total = self._counter(
            "cuts_unsettled_total",
            "Live cuts that did not settle on one instant; a gap says when.",
            (_SOURCE,),
        )
        self.large_files_waiting = self._gauge(
            "large_files_waiting",
            "Large files that changed and wait to be captured by themselves.",
            (_SOURCE,),
        )
        self.watch_mode = self._gauge(
            "watch_mode",
            "1 for each kind of watcher in use for the source.",
            (_SOURCE, "mode"),
            mode=WATCH_MODES,
        )
        self.rescans_total = self._counter(
            "rescans_total",
            "Rescans finished, by what caused them and how they ended.",
            (_SOURCE, "reason", "result"),
            reason=RESCAN_REASONS,
            result=RESULTS,
        )
        self.rescan_missed_changes_total = self._counter(
            "rescan_missed_changes_total",
            "Changes found by a rescan that no event had announced.",
            (_SOURCE, "reason"),
            reason=RESCAN_REASONS,
        )
        self.rescan_last_success_timestamp_seconds = self._gauge(
            "rescan_last_success_timestamp_seconds",
            "Unix time at which the last successful rescan of the whole source ended.",
            (_SOURCE,),
        )
        self.rescan_last_duration_seconds = self._gauge(
            "rescan_last_duration_seconds", "Duration of the last finished rescan.", (_SOURCE,)
        )
        self.rescan_in_progress = self._gauge(
            "rescan_in_progress", "1 while a rescan runs.", (_SOURCE,)
        )
        self.catalog_entries = self._gauge(
            "catalog_entries",
            "Entries of the newest state, by type.",
            (_SOURCE, "type"),
            type=ENTRY_TYPES,
        )

    def _declare_proof(self) -> None:
        self.reread_files_total = self._counter(
            "reread_files_total",
            "Unchanged files read again to verify their content, by what was found.",
            (_SOURCE, "result"),
            result=REREAD_RESULTS,
        )
        self.canary_round_trip_seconds = self._histogram(
            "canary_round_trip_seconds",
            "Time from writing the canary in the source until it is durable at the destination.",
            (_SOURCE, "destination"),
            DELAY_BUCKETS,
            destination=DESTINATIONS,
        )
        self.canary_late_total = self._counter(
            "canary_late_total",
            "Canaries that were not durable at the destination in time.",
            (_SOURCE, "destination"),
            destination=DESTINATIONS,
        )
        self.canary_last_success_timestamp_seconds = self._gauge(
            "canary_last_success_timestamp_seconds",
            "Unix time at which a canary was last seen durable at the destination; 0: never.",
            (_SOURCE, "destination"),
            destination=DESTINATIONS,
        )

    def _declare_read(self) -> None:
        self.files_processed_total = self._counter(
            "files_processed_total",
            "Entries read, by outcome.",
            (_SOURCE, "result"),
            result=FILE_RESULTS,
        )
        self.read_retries_total = self._counter(
            "read_retries_total",
            "Reads repeated because the file changed while it was read.",
            (_SOURCE,),
        )
        self.fuzzy_files = self._gauge(
            "fuzzy_files",
            "Files whose newest stored version changed while it was read, every time.",
            (_SOURCE,),
        )
        self.file_errors_total = self._counter(
            "file_errors_total",
            "Entries that could not be read, by error.",
            (_SOURCE, "errno"),
            errno=FILE_ERRORS,
        )

    def _declare_programs(self) -> None:
        self.command_runs_total = self._counter(
            "command_runs_total",
            "Runs of the program of a command source, by how they ended.",
            (_SOURCE, "result"),
            result=PROGRAM_RESULTS,
        )
        self.command_last_success_timestamp_seconds = self._gauge(
            "command_last_success_timestamp_seconds",
            "Unix time at which the program of a command source last ended well; 0: never.",
            (_SOURCE,),
        )
        self.command_last_duration_seconds = self._gauge(
            "command_last_duration_seconds",
            "Duration of the last run of the program of a command source.",
            (_SOURCE,),
        )
        self.hook_runs_total = self._counter(
            "hook_runs_total",
            "Runs of the hooks of a source, by how they ended.",
            (_SOURCE, "hook", "result"),
            hook=HOOKS,
            result=PROGRAM_RESULTS,
        )
