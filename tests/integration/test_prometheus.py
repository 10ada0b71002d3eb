"""Prometheus itself reads our metrics, rules and dashboard, and finds nothing to object to."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port
from prometheus_client import CollectorRegistry, generate_latest

from streamd.observe.metrics import Metrics, Watermark

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
RULES = GRAFANA / "streamd.rules.yml"
ALERTS = ROOT / "docs" / "alerts.md"
# names of ours that are metrics; recorded series have colons
OUR_METRIC = re.compile(r"\bstreamd_[a-z0-9_]+\b")
READY_SECONDS = 100


def promtool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [shutil.which("promtool") or "promtool", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=GRAFANA,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def living_registry() -> CollectorRegistry:
    """A registry like that of a daemon at work."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.set_build(version="0.1.0", python="3.11.2")
    metrics.set_repository(repository_id="r", kind="directory", format_version="1")
    metrics.add_source("web", 15)
    metrics.set_watch_modes("web", ["fanotify"])
    metrics.set_watermarks(lambda: [Watermark("web", "vault", 1_790_000_000_000_000, 0.0)])
    return registry


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    dashboard = json.loads((GRAFANA / "streamd.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    return [filled_in(expr) for expr in expressions]


def filled_in(expr: str) -> str:
    """Put in what Grafana would put in for its variables."""
    values = {"$__rate_interval": "1m", "$job": "streamd", "$instance": ".+", "$source": ".+"}
    for variable, value in values.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr


def series_names() -> set[str]:
    names = set()
    for family in living_registry().collect():
        names.add(family.name)
        names.update(sample.name for sample in family.samples)
    return names


def test_the_exposition_follows_the_naming_rules() -> None:
    assert promtool("check", "metrics", stdin=generate_latest(living_registry()).decode()) == ""


def test_the_rules_are_valid() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("name", ["streamd.rules.test.yml", "streamd.rules.days.test.yml"])
def test_the_rules_do_what_their_tests_say(name: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", name)


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    firing, silent = set(), set()
    for path in GRAFANA.glob("*.test.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                (firing if check["exp_alerts"] else silent).add(check["alertname"])
    assert firing == silent == {rule["alert"] for rule in rules() if "alert" in rule}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    headings = {line[3:].lower() for line in ALERTS.read_text().splitlines() if line[:3] == "## "}
    alerts = [rule for rule in rules() if "alert" in rule]
    assert headings == {alert["alert"].lower() for alert in alerts}
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"].endswith("alerts.md#" + alert["alert"].lower())


def test_every_name_in_rules_and_dashboard_is_a_metric_of_ours() -> None:
    used = {
        name
        for text in (*(rule["expr"] for rule in rules()), *dashboard_expressions())
        for name in OUR_METRIC.findall(text)
    }
    assert used
    assert used <= series_names()


def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": expr}
        for number, expr in enumerate(dashboard_expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(path))


# -- with a server -----------------------------------------------------------------------------

SERVE = """
import asyncio, sys
sys.path[:0] = [{root!r}, {tests!r}]
from integration.test_prometheus import living_registry
from streamd.daemon.http import HttpServer

async def main():
    server = HttpServer(living_registry(), problem=str, protection=tuple)
    print(await server.start("127.0.0.1", 0), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def ask(server: str, path: str, **parameters: str) -> Any:
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise  # it is starting: an OSError like the refused connection before
        pytest.fail(f"{parameters}: {error.read().decode()}")


def scraped_twice(server: str) -> bool:
    try:
        found = ask(server, "query", query='count_over_time(up{job="streamd"}[1m])')["result"]
    except OSError:
        return False
    return bool(found) and float(found[0]["value"][1]) >= 2


async def until(condition, *arguments) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while not await asyncio.to_thread(condition, *arguments):
            await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus on loopback that scrapes a daemon's HTTP server and evaluates our rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    program = SERVE.format(root=str(ROOT), tests=str(ROOT / "tests"))
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    port = daemon.stdout.readline().strip()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "streamd", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        asyncio.run(until(scraped_twice, f"http://{address}"))
        yield f"http://{address}"
    finally:
        for process in (prometheus, daemon):
            process.terminate()
            process.wait(10)
        daemon.stdout.close()


def test_prometheus_scrapes_the_daemon(server: str) -> None:
    (target,) = ask(server, "targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


# shares of nothing, states that are not, and credentials that do not end, on a daemon with a
# directory vault that did nothing yet
RIGHTLY_EMPTY = ("> 0", "== 1", "streamd_credential_expiry_timestamp_seconds")


def test_every_panel_can_be_drawn(server: str) -> None:
    empty = []
    for expr in dashboard_expressions():
        answer = ask(server, "query", query=expr)
        if not answer["result"] and not any(part in expr for part in RIGHTLY_EMPTY):
            empty.append(expr)
    assert empty == []


def test_every_rule_is_evaluated_without_error(server: str) -> None:
    for rule in rules():
        ask(server, "query", query=rule["expr"])
    groups = ask(server, "rules")["groups"]
    assert len(groups) == 3
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["health"] in ("ok", "unknown"), rule.get("lastError")


def test_a_living_daemon_is_up_and_its_old_watermark_is_seen(server: str) -> None:
    (row,) = ask(server, "query", query="time() - streamd_protected_through_timestamp_seconds")[
        "result"
    ]
    assert row["metric"]["source"] == "web"
    assert float(row["value"][1]) > 0
