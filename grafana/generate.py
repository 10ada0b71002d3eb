"""Makes the Grafana dashboard streamd.json from panels.yml: `python grafana/generate.py`.

The result is committed, because it is what people import; a test compares. Every panel names its
unit, explains itself, and shows counters only under rate() or increase().
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import (
    common,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as dash
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

PANELS = Path(__file__).with_name("panels.yml")
OUTPUT = Path(__file__).with_name("streamd.json")
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HOST = 'job="$job", instance=~"$instance"'
SOURCE = HOST + ', source=~"$source"'

WIDTH = 24
HEIGHT = 8


@dataclass(frozen=True)
class Query:
    """One expression, and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows, in which unit, and how to read it."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False
    red_above: float | None = None


def load() -> dict[str, list[Panel]]:
    """Return the panels of each row."""
    rows = yaml.safe_load(PANELS.read_text())
    return {row["row"]: [_parse(panel) for panel in row["panels"]] for row in rows}


def _parse(raw: dict[str, Any]) -> Panel:
    queries = tuple(
        Query(query["expr"].replace("$S", SOURCE).replace("$H", HOST), query["legend"])
        for query in raw.pop("queries")
    )
    return Panel(**raw, queries=queries)


def build() -> str:
    """Return the dashboard as JSON text."""
    board = (
        dash.Dashboard("streamd")
        .uid("streamd")
        .description("Is everything protected, what is slow, what is wrong.")
        .tags(["streamd", "backup"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
    )
    for variable in _variables():
        board = board.with_variable(variable)
    number, top = 1, 0
    for title, panels in load().items():
        row = dash.Row(title).id(number).grid_pos(models.GridPos(h=1, w=WIDTH, x=0, y=top))
        board = board.with_row(row)
        number, top, left, tallest = number + 1, top + 1, 0, 0
        for panel in panels:
            height = HEIGHT // 2 if panel.kind == "stat" else HEIGHT
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            place = models.GridPos(h=height, w=panel.width, x=left, y=top)
            board = board.with_panel(_panel(panel).id(number).grid_pos(place))
            number, left, tallest = number + 1, left + panel.width, max(tallest, height)
        top += tallest
    text = json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True)
    return text + "\n"


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel:
    builder = timeseries.Panel() if panel.kind == "timeseries" else stat.Panel()
    builder = (
        builder.title(panel.title)
        .description(panel.text)
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .min(0)
        .thresholds(_thresholds(panel))
    )
    if isinstance(builder, timeseries.Panel):
        builder = builder.legend(
            common.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        ).fill_opacity(10)
        if panel.stacked:
            stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
            builder = builder.stacking(stacking)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        builder = builder.with_target(
            prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        )
    return builder


def _thresholds(panel: Panel) -> dash.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="green")]
    if panel.red_above is not None:
        steps.append(models.Threshold(value=panel.red_above, color="red"))
    return dash.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _variables() -> list[dash.DatasourceVariable | dash.QueryVariable]:
    source = dash.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return [
        source,
        _labels("job", "streamd_build_info", "Job", several=False),
        _labels("instance", 'streamd_build_info{job="$job"}', "Host", several=True),
        _labels("source", f"streamd_rpo_target_seconds{{{HOST}}}", "Source", several=True),
    ]


def _labels(name: str, series: str, label: str, *, several: bool) -> dash.QueryVariable:
    variable = (
        dash.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(f"label_values({series}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=several)
        .include_all(include_all=several)
    )
    return variable.all_value(".+") if several else variable


if __name__ == "__main__":
    OUTPUT.write_text(build())
