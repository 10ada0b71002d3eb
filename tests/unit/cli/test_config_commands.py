"""`streamd config` and `streamd errors` tell the truth about configuration and errors."""

import json
import tomllib
from pathlib import Path

import pytest

from streamd.cli.main import main

TEXT = '[sources.a]\npaths = ["{tree}"]\n[daemon]\nstate = "{state}"\n'


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "tree").mkdir()
    path = tmp_path / "streamd.toml"
    path.write_text(TEXT.format(tree=tmp_path / "tree", state=tmp_path / "state"))
    return str(path)


def test_check_says_valid(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "-c", file]) == 0
    assert capsys.readouterr().out == f"{file}: valid (sources: 1, policies: 0)\n"


def test_check_looks_at_the_host_unless_told_not_to(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tree").rmdir()
    assert main(["config", "check", "-c", file]) == 4
    assert "does not exist" in capsys.readouterr().err
    assert main(["config", "check", "-c", file, "--values-only"]) == 0


def test_show_prints_what_is_in_force(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show", "-c", file]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["sources"]["a"]["rpo"] == "15s"
    assert shown["policies"]["default"]["hourly"] == 168
    assert main(["config", "show", "-c", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": file, "config": shown}


def test_diff_says_what_a_reload_would_do(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.toml"
    new.write_text(
        '[sources.b]\npaths = ["/b"]\n[pipeline]\ncompression = "lz4"\n'
        '[retention]\ninterval = "2h"\n'
    )
    assert main(["config", "diff", file, "-c", str(new)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "new source       b",
        "removed source   a",
        "changed          retention.interval",
        "needs a restart  daemon.state",
        "needs a restart  pipeline.compression",
    ]
    assert main(["config", "diff", file, "-c", file]) == 0
    assert capsys.readouterr().out == "nothing changes\n"


def test_errors_lists_every_slug(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["errors"]
    codes = [line["code"] for line in listed]
    assert codes == sorted(set(codes))
    assert {"config-invalid", "vault-unreachable", "internal"} <= set(codes)
    assert main(["errors"]) == 0
    out = capsys.readouterr().out
    assert all(code in out for code in codes)


def test_check_warns_of_what_is_not_acted_on(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(file).open("a") as text:
        text.write('[policies.gold]\nkeep_deleted = "90d"\n[policies.iron]\nkeep_deleted = "0s"\n')
    assert main(["config", "check", "-c", file]) == 0
    told = capsys.readouterr()
    assert 'warning: policies.gold.keep_deleted = "90d" is not acted on' in told.err
    assert "iron" not in told.err
    assert "valid" in told.out
    assert main(["config", "check", "-c", file, "--json"]) == 0
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert "policies.gold.keep_deleted" in warning
