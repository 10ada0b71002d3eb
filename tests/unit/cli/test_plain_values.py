"""Values that are taken as they are mean what typer would have made of them."""

import enum
import subprocess
import sys
from types import SimpleNamespace
from typing import Annotated

import pytest
import typer
from typer import core
from typer._coercion import build_runtime_param
from typer.main import get_command

from streamd.cli import plain_values


class Word(enum.StrEnum):
    ONE = "one"
    OTHER = "other-one"


def run(arguments: list[str]) -> object:
    """Return what a command is given, or what is said of a mistake."""
    given: list[object] = []

    def command(
        texts: Annotated[list[str] | None, typer.Argument()] = None,
        *,
        text: Annotated[str, typer.Option()] = "",
        maybe: Annotated[str | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
        number: Annotated[int, typer.Option()] = 3,
        small: Annotated[int, typer.Option(max=5)] = 3,
        share: Annotated[float, typer.Option()] = 0.5,
        word: Annotated[Word | None, typer.Option()] = None,
        many: Annotated[list[str] | None, typer.Option()] = None,
    ) -> None:
        given.extend((texts, text, maybe, flag, number, small, share, word, many))

    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        get_command(app).main(arguments, standalone_mode=False)
    except Exception as error:
        return str(error)
    return [(type(each), each) for each in given]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a b",
        "--text x --maybe y --flag",
        "--text= --maybe=",
        "--number 12",
        "--number -12",
        "--number +12",
        "--number 1_000",
        "--number ٣",
        "--number x",
        "--small 5",
        "--small 6",
        "--share 0.25",
        "--share 1",
        "--word one",
        "--word other-one",
        "--word One",
        "--word ONE",
        "--word two",
        "--many a --many b",
    ],
)
def test_a_command_is_given_the_same_with_and_without(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "build_runtime_param", build_runtime_param)
    wanted = run(line.split())
    plain_values.install()
    assert run(line.split()) == wanted


def test_it_is_put_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "build_runtime_param", build_runtime_param)
    plain_values.install()
    first = core.build_runtime_param
    plain_values.install()
    assert core.build_runtime_param is first


def test_what_has_bounds_goes_the_long_way() -> None:
    asked = []

    def build(descriptor: object) -> object:
        asked.append(descriptor)
        return SimpleNamespace(coerce=lambda *_: "long")

    info = SimpleNamespace(max=5)
    one = plain_values._Plain(SimpleNamespace(annotation=int, parameter_info=info), build)
    assert one.coerce("3", SimpleNamespace(multiple=False, nargs=1), None) == "long"
    assert asked


def test_a_command_that_reads_the_configuration_needs_no_pydantic(tmp_path) -> None:
    config = tmp_path / "streamd.toml"
    config.write_text(f'[sources.a]\npaths = ["{tmp_path}"]\n')
    code = (
        "import sys; from streamd.cli.main import main;"
        f"code = main(['restore', 'a', '-c', {str(config)!r}, '--to', '/x', '--on-conflict', 'skip']);"
        "sys.exit('pydantic' if 'pydantic' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
