"""The metrics exist before anything happened, come and go with sources, and are all documented."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamd.observe import metrics_page
from streamd.observe.metrics import Metrics, Watermark
from streamd.observe.source_metrics import FILE_RESULTS
from streamd.sources.port import Outcome

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def series(registry: CollectorRegistry) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_series_of_a_source_exists_from_the_start(registry, metrics) -> None:
    metrics.add_source("web", 15)
    present = series(registry)
    for info in metrics.catalogue():
        if "source" in info.labels and "through" not in info.name and "lag" not in info.name:
            name = info.name + ("_count" if info.type == "histogram" else "")
            assert present[name], f"{name} has no series"
            assert all(labels["source"] == "web" for labels in present[name])


def test_series_without_a_source_exist_from_the_start_too(registry, metrics) -> None:
    present = series(registry)
    for name in ("streamd_azure_requests_total", "streamd_pipeline_queue_bytes"):
        assert present[name]
    assert registry.get_sample_value("streamd_gc_reclaimed_bytes_total") == 0


def test_a_removed_source_leaves_nothing_behind(registry, metrics) -> None:
    before = series(registry)
    metrics.add_source("web", 15)
    metrics.file_errors_total.labels(source="web", errno="ENOTDIR").inc()
    metrics.remove_source("web")
    assert series(registry).keys() == before.keys()


def test_adding_a_source_again_keeps_its_counters(registry, metrics) -> None:
    metrics.add_source("web", 15)
    metrics.source_bytes_total.labels(source="web").inc(5)
    metrics.add_source("web", 30)
    assert registry.get_sample_value("streamd_source_bytes_total", {"source": "web"}) == 5
    assert registry.get_sample_value("streamd_rpo_target_seconds", {"source": "web"}) == 30


def test_watermarks_are_computed_at_the_scrape(registry, metrics) -> None:
    marks = [Watermark("web", "vault", 1_500_000, 2.5)]
    metrics.set_watermarks(lambda: marks)
    labels = {"source": "web", "destination": "vault"}
    name = "streamd_protected_through_timestamp_seconds"
    assert registry.get_sample_value(name, labels) == 1.5
    assert registry.get_sample_value("streamd_rpo_lag_seconds", labels) == 2.5
    marks[0] = marks[0]._replace(protected_through_us=9_000_000)
    assert registry.get_sample_value(name, labels) == 9
    marks.clear()
    assert registry.get_sample_value(name, labels) is None


def test_only_the_watchers_in_use_are_shown_as_such(registry, metrics) -> None:
    metrics.set_watch_modes("web", ["fanotify"])
    metrics.set_watch_modes("web", ["inotify", "polling"])
    shown = {
        mode: registry.get_sample_value("streamd_watch_mode", {"source": "web", "mode": mode})
        for mode in ("fanotify", "inotify", "polling")
    }
    assert shown == {"fanotify": 0, "inotify": 1, "polling": 1}


def test_a_class_without_points_is_shown_as_zero(registry, metrics) -> None:
    metrics.set_recovery_points("web", {"daily": 3, "hourly": 1})
    metrics.set_recovery_points("web", {"daily": 4})
    for name, count in {"daily": 4, "hourly": 0, "yearly": 0}.items():
        labels = {"source": "web", "class": name}
        assert registry.get_sample_value("streamd_recovery_points", labels) == count


def test_there_is_one_vault_at_a_time(registry, metrics) -> None:
    metrics.set_repository(repository_id="a", kind="directory", format_version="1")
    metrics.set_repository(repository_id="b", kind="azure", format_version="1")
    assert len(series(registry)["streamd_repository_info"]) == 1


def test_the_build_names_the_program(registry, metrics) -> None:
    metrics.set_build(version="0.1.0", python="3.11.2")
    assert series(registry)["streamd_build_info"] == [{"version": "0.1.0", "python": "3.11.2"}]


def test_attributes_have_the_names_of_their_metrics(metrics) -> None:
    for info in metrics.catalogue():
        short = info.name.removeprefix("streamd_")
        if short not in ("protected_through_timestamp_seconds", "rpo_lag_seconds"):
            assert hasattr(metrics, short), f"no attribute {short}"


def test_outcomes_of_reading_are_the_labels_of_the_metric() -> None:
    assert set(FILE_RESULTS) == {outcome.value for outcome in Outcome}


def test_metrics_md_is_up_to_date() -> None:
    """Write it anew with: python -m streamd.observe.metrics_page > docs/metrics.md"""
    assert (DOCS / "metrics.md").read_text() == metrics_page.render()
