"""The dashboard is the generated one, and keeps the habits of good dashboards."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry

from streamd.observe.metrics import Metrics

GRAFANA = Path(__file__).parents[3] / "grafana"
TEXT = (GRAFANA / "streamd.json").read_text()
DASHBOARD: dict[str, Any] = json.loads(TEXT)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
COUNTERS = {i.name for i in Metrics(CollectorRegistry()).catalogue() if i.type == "counter"}


def test_the_committed_dashboard_is_the_generated_one() -> None:
    """Write it anew with: python grafana/generate.py"""
    assert runpy.run_path(str(GRAFANA / "generate.py"))["build"]() == TEXT


def test_grafana_knows_every_field() -> None:
    parsed = Dashboard.from_json(DASHBOARD)
    assert json.loads(json.dumps(parsed, cls=JSONEncoder)) == DASHBOARD


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_have_their_own_place_and_number() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_respects_the_choices_at_the_top(expr: str) -> None:
    selectors = re.findall(r"(?:streamd|process)_\w+(\{[^}]*\})?", expr)
    assert selectors
    for selector in selectors:
        assert 'job="$job", instance=~"$instance"' in selector


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_counters_are_shown_as_rates(expr: str) -> None:
    for function, name in re.findall(r"(\w*)\(?(streamd_\w+)", expr):
        if name in COUNTERS or name.endswith(("_bucket", "_count")):
            assert function in ("rate", "increase"), expr


def test_every_source_label_is_chosen_where_there_is_one() -> None:
    with_source = {i.name for i in Metrics(CollectorRegistry()).catalogue() if "source" in i.labels}
    for expr in EXPRESSIONS:
        for name, matchers in re.findall(r"(streamd_\w+?)(?:_bucket|_count)?\{([^}]*)\}", expr):
            assert ('source=~"$source"' in matchers) == (name in with_source), expr


def test_the_rows_the_operator_needs_are_there() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Protection",
        "Throughput",
        "Backpressure and queues",
        "Uploads and Azure",
        "Retention",
        "Verification",
        "Watching and completeness",
        "Process",
    ]
