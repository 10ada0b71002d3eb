"""Every metric streamd exports, each defined once.

An attribute of `Metrics` has the metric's name without the prefix `streamd_`, for example
`metrics.source_bytes_total` is `streamd_source_bytes_total`; so a name can be searched for from a
dashboard to the line that moves it. Units are base units: bytes, seconds, Unix time. They are
declared by what they are about: in `source_metrics`, `data_metrics`, `vault_metrics`, and here what
is about the process itself.

Every label combination that is known beforehand exists from the start with the value 0: Prometheus'
`increase()` does not see the step from "absent" to 1. Labels that name a source come and go with
`add_source` and `remove_source`. No label takes a value from outside, such as a path.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamd.observe.data_metrics import DataMetrics
from streamd.observe.metric_set import MetricInfo
from streamd.observe.names import SOURCE_LABEL
from streamd.observe.source_metrics import WATCH_MODES, SourceMetrics
from streamd.observe.vault_metrics import VaultMetrics
from streamd.policy.retention import CLASSES

LOOP_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)

_SOURCE: Final = SOURCE_LABEL


class Watermark(NamedTuple):
    """How far one source is protected at one destination, as of now."""

    source: str
    destination: str
    protected_through_us: int  # every change made before it is durable there
    lag_seconds: float  # age of the oldest change that is not, or may not be; 0: there is none


class Metrics(SourceMetrics, DataMetrics, VaultMetrics):
    """The metrics of one daemon, in one registry. May be used from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._watermarks: Callable[[], Iterable[Watermark]] = tuple
        self._declare_identity()
        self._declare_protection()
        self._declare_watch()
        self._declare_proof()
        self._declare_read()
        self._declare_programs()
        self._declare_pipeline()
        self._declare_data()
        self._declare_azure()
        self._declare_retention()
        self._declare_verify()
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

    def set_keys(self, *, role: str, generation: int) -> None:
        """Say what this host may do; `role` is "full" or "write-only". Replaces what was said."""
        self.keys_info.clear()
        self.keys_info.labels(role=role, generation=str(generation)).set(1)

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
        self.keys_info = self._gauge(
            "keys_info",
            "1; the labels say what this host's key file may do, and which key pair it seals to.",
            ("role", "generation"),
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
        "Age of the oldest change that is not, or may not be, durable at the destination; 0 if "
        "there is none. Grows too while events wait to be read: nobody knows what they are about.",
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
