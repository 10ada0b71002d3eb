"""The generated documents are those in git, and the help is what users were promised."""

import importlib.util
from pathlib import Path

import pytest

from streamd.cli.main import main

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def _generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts/generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", ["config.md", "errors.md", "cli.md"])
def test_a_generated_page_is_up_to_date(name: str, golden) -> None:
    golden(ROOT / "docs" / name, _generated()[name])


def test_the_help_names_every_command(
    golden, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    golden(HERE / "help.txt", capsys.readouterr().out)


def test_the_errors_of_the_command_line_are_the_contract(
    golden, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["errors", "--json"]) == 0
    golden(HERE / "errors.json", capsys.readouterr().out)


def test_the_sample_configuration_is_valid_and_what_it_says(
    golden, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sample = ROOT / "config" / "streamd.toml"
    assert main(["config", "check", "--values-only", "-c", str(sample)]) == 0
    capsys.readouterr()
    assert main(["config", "show", "-c", str(sample)]) == 0
    shown = capsys.readouterr().out.split("\n", 1)[1]  # the first line is the path
    golden(HERE / "sample-effective.toml", shown)
