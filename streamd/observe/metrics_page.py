"""docs/metrics.md, made from the definitions: `python -m streamd.observe.metrics_page`."""

import sys
from typing import Final

from prometheus_client import CollectorRegistry

from streamd.observe.metrics import Metrics

_HEAD: Final = """\
# Metrics

Served on `metrics.listen` (default `127.0.0.1:9464`) below `/metrics`, in the Prometheus text
format or as OpenMetrics. Beside it, `/healthz` answers 200 while the process works, and
`/protectedz` only while every source is inside its RPO; both say more as JSON.

Units are bytes, seconds and Unix time. Every label value known beforehand is there from the start
with the value 0. A time of 0 means "never". The usual `process_*` and `python_gc_*` metrics are
exported too. Alert rules are in `grafana/streamd.rules.yml`, a dashboard in `grafana/streamd.json`.

Begin with these: `streamd_protected_through_timestamp_seconds` (the watermark),
`streamd_rpo_lag_seconds` beside `streamd_rpo_target_seconds`,
`streamd_change_protection_delay_seconds`, and `streamd_retention_last_success_timestamp_seconds`.

This page is generated: `python -m streamd.observe.metrics_page > docs/metrics.md`.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = (
        f"| `{info.name}` | {info.type} | {', '.join(info.labels)} | {info.help} |\n"
        for info in Metrics(CollectorRegistry()).catalogue()
    )
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(render())
