"""How a metric is declared: created, catalogued, and given its label values, in one step.

`Metrics` is the one user; here is what would otherwise hide its list of definitions.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final, NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from streamd.observe.names import NAMESPACE, SOURCE_LABEL

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


class MetricInfo(NamedTuple):
    """One row of the catalogue."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


class MetricSet:
    """Metrics of one registry, whose labels exist before they are first used.

    Each `_counter`, `_gauge` and `_histogram` takes the name without namespace, the help text, the
    label names, and for each label but `source` the values it starts with.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # the time of creation of each series would double the size of a scrape
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self._infos: list[MetricInfo] = []
        self._of_sources: list[tuple[MetricWrapperBase, tuple[dict[str, str], ...]]] = []

    def catalogue(self) -> Iterator[MetricInfo]:
        """Yield every metric declared, for docs/metrics.md and the tests of the dashboards."""
        yield from self._infos

    def create_labels_of(self, source: str) -> None:
        """Make every series of `source` exist, at 0 if it is new."""
        for metric, combinations in self._of_sources:
            for values in combinations:
                metric.labels(**values, source=source)

    def remove_labels_of(self, source: str) -> None:
        """Forget every series of `source`."""
        for metric, _ in self._of_sources:
            metric.remove_by_labels({SOURCE_LABEL: source})

    def _adopt(self, collector: Collector, infos: tuple[MetricInfo, ...]) -> None:
        """Export what `collector` computes at each scrape."""
        self.registry.register(collector)
        self._infos += infos

    def _counter(
        self, name: str, text: str, labels: tuple[str, ...] = (), **values: tuple[str, ...]
    ) -> Counter:
        metric = Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)
        return self._remember(metric, MetricInfo(name, "counter", labels, text), values)

    def _gauge(
        self, name: str, text: str, labels: tuple[str, ...] = (), **values: tuple[str, ...]
    ) -> Gauge:
        metric = Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)
        return self._remember(metric, MetricInfo(name, "gauge", labels, text), values)

    def _histogram(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...],
        **values: tuple[str, ...],
    ) -> Histogram:
        metric = Histogram(
            name, text, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets
        )
        return self._remember(metric, MetricInfo(name, "histogram", labels, text), values)

    def _remember(
        self, metric: _Metric, info: MetricInfo, values: Mapping[str, tuple[str, ...]]
    ) -> _Metric:
        """Note the metric, and create the label combinations that can be created already."""
        self._infos.append(info._replace(name=f"{NAMESPACE}_{info.name}"))
        combinations = tuple(
            dict(zip(values, combination, strict=True)) for combination in product(*values.values())
        )
        if SOURCE_LABEL in info.labels:
            self._of_sources.append((metric, combinations))
        elif values:
            for combination in combinations:
                metric.labels(**combination)
        return metric
