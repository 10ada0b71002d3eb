"""Metrics that nobody asks for take everything and cost nothing."""

import subprocess
import sys

import pytest

from streamd.daemon.meters import Meters
from streamd.observe.unheard import unheard


def test_it_takes_whatever_a_metric_takes() -> None:
    metrics = unheard()
    metrics.source_bytes_total.labels("web").inc(3)
    metrics.pipeline_stage_duration_seconds.labels("read").observe(0.1)
    metrics.add_source("web", 15)
    metrics.azure_paused.labels("credential").set(1)


def test_it_has_no_special_methods_that_would_mislead() -> None:
    with pytest.raises(AttributeError):
        _ = unheard().__len__


def test_meters_without_a_registry_know_what_was_read_and_stored() -> None:
    meters = Meters()
    meters.read("web", 10, 4, 6)
    meters.read("db", 1, 1, 0)
    assert (meters.source_bytes, meters.stored_bytes) == (11, 5)


@pytest.mark.slow
def test_a_short_command_loads_neither_metrics_nor_what_writes_log_lines(tmp_path) -> None:
    config = tmp_path / "streamd.toml"
    (tmp_path / "tree").mkdir()
    config.write_text(
        f'[vault]\nurl = "file://{tmp_path}/vault"\nkey_file = "{tmp_path}/key"\n'
        f'[daemon]\nstate = "{tmp_path}/state"\nsocket = "{tmp_path}/socket"\n'
        f'[sources.a]\npaths = ["{tmp_path}/tree"]\n'
    )
    code = (
        "import sys; from streamd.cli.main import main;"
        f"config = {str(config)!r};"
        f"assert main(['init', '-c', config, '--kit', {str(tmp_path / 'kit')!r}]) == 0;"
        "assert main(['capture', '-c', config]) == 0;"
        "heavy = {'structlog', 'prometheus_client', 'pydantic', 'azure', 'aiohttp'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
