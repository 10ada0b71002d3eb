"""Every metric streamd exports, each defined once.

An attribute of `Metrics` has the metric's name without the prefix `streamd_`, for example
`metrics.source_bytes_total` is `streamd_source_bytes_total`; so a name can be searched for from a
dashboard to the line that moves it. Units are base units: bytes, seconds, Unix time.

Every label combination that is known beforehand exists from the start with the value 0: Prometheus'
`increase()` does not see the step from "absent" to 1. Labels that name a source come and go with
`add_source` and `remove_source`. No label takes a value from outside, such as a path.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamd.observe.metric_set import SOURCE_LABEL, MetricInfo, MetricSet
from streamd.policy.retention import CLASSES

DESTINATIONS: Final = ("local", "vault")
STEPS: Final = ("read", "chunk", "compress", "encrypt", "pack", "upload", "commit")
WATCH_MODES: Final = ("fanotify", "inotify", "polling")
RESCAN_REASONS: Final = (
    "start",
    "overflow",
    "watch-limit",
    "unclean-stop",
    "mount-lost",
    "periodic",
    "request",
)
RESULTS: Final = ("ok", "incomplete")
FILE_RESULTS: Final = ("ok", "fuzzy", "vanished", "unreadable", "io-error", "type-changed")
FILE_ERRORS: Final = ("EACCES", "EPERM", "EIO")
ENTRY_TYPES: Final = ("file", "directory", "symlink", "other")
CHUNK_RESULTS: Final = ("new", "duplicate")
OPERATIONS: Final = ("put", "get", "scan", "delete")
CODES: Final = ("2xx", "401", "403", "404", "409", "412", "429", "4xx", "5xx", "timeout", "connect")
RETRY_REASONS: Final = ("429", "5xx", "timeout", "connect")
BLOCKED_REASONS: Final = ("immutable", "hold", "refused")

DELAY_BUCKETS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600)
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LOOP_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

_SOURCE: Final = SOURCE_LABEL


class Watermark(NamedTuple):
    """How far one source is protected at one destination, as of now."""

    source: str
    destination: str
    protected_through_us: int  # every change made before it is durable there
    lag_seconds: float  # age of the oldest change that is not; 0 when there is none


class Metrics(MetricSet):
    """The metrics of one daemon, in one registry. May be used from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._watermarks: Callable[[], Iterable[Watermark]] = tuple
        self._declare_identity()
        self._declare_protection()
        self._declare_watch()
        self._declare_read()
        self._declare_pipeline()
        self._declare_data()
        self._declare_azure()
        self._declare_retention()
        self._declare_process()
        self._adopt(_WatermarkCollector(self), _WATERMARK_INFOS)

    # -- what is called at start and on reload --------------------------------------------------

    def add_source(self, name: str, rpo_seconds: float) -> None:
        """Begin to export `name`; calling it again only sets the target."""
        self.create_labels_of(name)
        self.rpo_target_seconds.labels(source=name).set(rpo_seconds)

    def remove_source(self, name: str) -> None:
        """Stop exporting `name`."""
        self.remove_labels_of(name)

    def set_watermarks(self, read: Callable[[], Iterable[Watermark]]) -> None:
        """Have `read` called at every scrape; it must not block, and may run in any thread."""
        self._watermarks = read

    def watermarks(self) -> Iterable[Watermark]:
        """Return what the scrape shows now."""
        return self._watermarks()

    def set_build(self, *, version: str, python: str) -> None:
        """Say which program this is."""
        self.build_info.labels(version=version, python=python).set(1)

    def set_repository(self, *, repository_id: str, kind: str, format_version: str) -> None:
        """Say which vault this is; `kind` is "directory" or "azure". Replaces what was said."""
        self.repository_info.clear()
        self.repository_info.labels(
            repository_id=repository_id, kind=kind, format_version=format_version
        ).set(1)

    def set_watch_modes(self, source: str, modes: Iterable[str]) -> None:
        """Say how the roots of `source` are watched."""
        in_use = set(modes)
        for mode in WATCH_MODES:
            self.watch_mode.labels(source=source, mode=mode).set(mode in in_use)

    def set_recovery_points(self, source: str, by_class: Mapping[str, int]) -> None:
        """Say how many kept points each class (of `policy.retention.CLASSES`) has."""
        for name in CLASSES:
            self.recovery_points.labels(source, name).set(by_class.get(name, 0))

    # -- the metrics ----------------------------------------------------------------------------

    def _declare_identity(self) -> None:
        self.build_info = self._gauge(
            "build_info", "1; the labels say which program runs.", ("version", "python")
        )
        self.repository_info = self._gauge(
            "repository_info",
            "1; the labels say which vault is written to.",
            ("repository_id", "kind", "format_version"),
        )
        self.config_last_reload_successful = self._gauge(
            "config_last_reload_successful",
            "1 if the configuration's last load succeeded, 0 if the old one is still in force.",
        )
        self.config_last_reload_success_timestamp_seconds = self._gauge(
            "config_last_reload_success_timestamp_seconds",
            "Unix time of the last successful load or reload of the configuration.",
        )
        self.config_generation = self._gauge(
            "config_generation", "Number of the configuration in force, counted from the start."
        )

    def _declare_protection(self) -> None:
        self.rpo_target_seconds = self._gauge(
            "rpo_target_seconds", "The configured rpo of the source.", (_SOURCE,)
        )
        self.unprotected_changes = self._gauge(
            "unprotected_changes", "Changes noticed and not yet captured.", (_SOURCE,)
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

    def _declare_pipeline(self) -> None:
        step: dict[str, tuple[str, ...]] = {"step": STEPS}
        self.pipeline_bytes_total = self._counter(
            "pipeline_bytes_total",
            "Bytes that left the step: plain up to chunk, stored from compress on.",
            ("step",),
            **step,
        )
        self.pipeline_queue_items = self._gauge(
            "pipeline_queue_items", "Batches waiting in front of the step.", ("step",), **step
        )
        self.pipeline_queue_bytes = self._gauge(
            "pipeline_queue_bytes", "Bytes waiting in front of the step.", ("step",), **step
        )
        self.pipeline_queue_limit_bytes = self._gauge(
            "pipeline_queue_limit_bytes", "Most bytes that may wait there.", ("step",), **step
        )
        self.pipeline_backpressure_seconds_total = self._counter(
            "pipeline_backpressure_seconds_total",
            "Time producers were blocked because the queue in front of the step was full.",
            ("step",),
            **step,
        )
        self.pipeline_stage_duration_seconds = self._histogram(
            "pipeline_stage_duration_seconds",
            "Time the step worked on one batch.",
            ("step",),
            LATENCY_BUCKETS,
            **step,
        )

    def _declare_data(self) -> None:
        self.source_bytes_total = self._counter(
            "source_bytes_total", "Bytes read from protected files.", (_SOURCE,)
        )
        self.deduplicated_bytes_total = self._counter(
            "deduplicated_bytes_total",
            "Source bytes not stored because the vault had their chunk already.",
            (_SOURCE,),
        )
        self.stored_bytes_total = self._counter(
            "stored_bytes_total",
            "Bytes newly stored for the source, deduplicated, compressed and encrypted.",
            (_SOURCE,),
        )
        self.chunks_total = self._counter(
            "chunks_total",
            "Chunks seen, by whether the vault had them.",
            ("result",),
            result=CHUNK_RESULTS,
        )
        self.protected_bytes = self._gauge(
            "protected_bytes", "Logical size of the newest state.", (_SOURCE,)
        )
        self.repository_bytes = self._gauge(
            "repository_bytes",
            "Bytes stored at the destination.",
            ("destination",),
            destination=DESTINATIONS,
        )

    def _declare_azure(self) -> None:
        operation: dict[str, tuple[str, ...]] = {"operation": OPERATIONS}
        self.azure_requests_total = self._counter(
            "azure_requests_total",
            "Requests to Azure, by operation and status code, or what happened instead.",
            ("operation", "code"),
            code=CODES,
            **operation,
        )
        self.azure_request_duration_seconds = self._histogram(
            "azure_request_duration_seconds",
            "Duration of a request to Azure.",
            ("operation",),
            LATENCY_BUCKETS,
            **operation,
        )
        self.azure_retries_total = self._counter(
            "azure_retries_total",
            "Requests to Azure that were tried again, and why.",
            ("operation", "reason"),
            reason=RETRY_REASONS,
            **operation,
        )
        self.azure_throttled_seconds_total = self._counter(
            "azure_throttled_seconds_total", "Time waited because Azure asked to slow down."
        )
        self.uploaded_bytes_total = self._counter("uploaded_bytes_total", "Bytes sent to Azure.")
        self.downloaded_bytes_total = self._counter(
            "downloaded_bytes_total", "Bytes received from Azure."
        )
        self.upload_pending_objects = self._gauge(
            "upload_pending_objects", "Objects durable locally that wait for their upload."
        )
        self.upload_pending_bytes = self._gauge(
            "upload_pending_bytes", "Bytes durable locally that wait for their upload."
        )

    def _declare_retention(self) -> None:
        self.retention_last_success_timestamp_seconds = self._gauge(
            "retention_last_success_timestamp_seconds",
            "Unix time of the last successful retention run.",
        )
        self.retention_overdue_recovery_points = self._gauge(
            "retention_overdue_recovery_points",
            "Recovery points the policy has expired that still exist.",
            (_SOURCE,),
        )
        self.retention_deleted_recovery_points_total = self._counter(
            "retention_deleted_recovery_points_total",
            "Recovery points removed by retention.",
            (_SOURCE,),
        )
        self.retention_blocked_total = self._counter(
            "retention_blocked_total",
            "Deletions that were refused, and why.",
            ("reason",),
            reason=BLOCKED_REASONS,
        )
        self.gc_reclaimed_bytes_total = self._counter(
            "gc_reclaimed_bytes_total", "Bytes reclaimed by deleting and rewriting objects."
        )

    def _declare_process(self) -> None:
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.event_loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds",
            "How late the event loop wakes up.",
            (),
            LOOP_LAG_BUCKETS,
        )
        self.watchdog_pings_total = self._counter(
            "watchdog_pings_total", "Signs of life sent to systemd."
        )


_WATERMARK_INFOS: Final = (
    MetricInfo(
        "streamd_protected_through_timestamp_seconds",
        "gauge",
        (_SOURCE, "destination"),
        "Watermark: every change made before this Unix time is durable at the destination. "
        "Moves with the clock while nothing waits, stands still otherwise.",
    ),
    MetricInfo(
        "streamd_rpo_lag_seconds",
        "gauge",
        (_SOURCE, "destination"),
        "Age of the oldest change that is not yet durable at the destination; 0 if there is none.",
    ),
)


class _WatermarkCollector(Collector):
    """Computes the watermarks at the scrape, so that they age by themselves."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        through, lag = families = self._families()
        for mark in self._metrics.watermarks():
            labels = (mark.source, mark.destination)
            through.add_metric(labels, mark.protected_through_us / 1e6)
            lag.add_metric(labels, mark.lag_seconds)
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(i.name, i.help, labels=i.labels) for i in _WATERMARK_INFOS]
