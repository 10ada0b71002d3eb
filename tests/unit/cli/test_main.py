"""Every command ends with the promised exit code, and every error in the promised form."""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import typer

from streamd.cli import context, table
from streamd.cli.errors_command import kinds
from streamd.cli.main import main
from streamd.errors import ConfigInvalid, ExitCode, StreamdError, VaultUnreachable


class Fact(msgspec.Struct):
    """A report."""

    path: str
    at: str = ""


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Add a command called `probe` that does what the test says."""

    def add(function: Callable[..., object]) -> None:
        module = types.ModuleType("streamd.cli.probe")
        module.command = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "streamd.cli.probe", module)
        commands = {**table.TABLE, "probe": table.Command("probe", "Test.")}
        monkeypatch.setattr("streamd.cli.main.TABLE", commands)

    return add


def _echo(at: Annotated[str, typer.Option("--at")] = "now") -> None:
    context.emit(Fact(path=context.config_path(), at=at), lambda fact: f"{fact.path} {fact.at}")


def test_a_report_is_text_or_json(probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(_echo)
    assert main(["probe", "-c", "/x/y.toml"]) == 0
    assert capsys.readouterr().out == "/x/y.toml now\n"
    assert main(["probe", "--json", "--at", "latest", "--config", "/x/y.toml"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "/x/y.toml", "at": "latest"}


def test_common_options_may_stand_before_the_command(
    probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe(_echo)
    assert main(["--json", "-c", "/x", "probe"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "/x"
    assert main(["probe"]) == 0
    assert capsys.readouterr().out == "/etc/streamd/streamd.toml now\n"


def test_the_environment_names_the_configuration(
    probe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(_echo)
    monkeypatch.setenv("STREAMD_CONFIG", "/from/env.toml")
    main(["probe"])
    assert capsys.readouterr().out.startswith("/from/env.toml ")


def test_an_offset_of_time_is_no_option(probe, capsys: pytest.CaptureFixture[str]) -> None:
    def command(first: str, second: str) -> None:
        print(first, second)

    probe(command)
    assert main(["probe", "-2h", "-1d12h"]) == 0
    assert main(["probe", "--", "-2h", "x"]) == 0
    assert capsys.readouterr().out == "now-2h now-1d12h\n-2h x\n"


def test_a_command_that_declares_the_common_options_gets_them(
    probe, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(config: table.ConfigOption = None, json: table.JsonOption = False) -> None:
        print(config, json, context.is_json())

    probe(command)
    assert main(["probe", "-c", "x", "--json"]) == 0
    assert capsys.readouterr().out == "x True True\n"


def test_a_command_returns_its_exit_code(probe) -> None:
    probe(lambda: ExitCode.INCOMPLETE)
    assert main(["probe"]) == 3

    def leave(way: Annotated[str, typer.Option()] = "typer's") -> None:
        raise typer.Exit(6)

    probe(leave)
    assert main(["probe"]) == 6


def _raises(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.code)
def test_every_error_is_one_line_with_its_slug_and_remedy(
    probe, kind: type[StreamdError], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(_raises(kind("it\nfailed")))
    assert main(["probe"]) == kind.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"streamd: {kind.code}: it failed; ")
    assert err.count("\n") == 1
    assert "{" not in err


def test_facts_fill_the_remedy(probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(_raises(VaultUnreachable("no answer", endpoint="https://x")))
    assert main(["probe"]) == 6
    assert "the network path to https://x;" in capsys.readouterr().err


def test_an_error_is_json_on_standard_output(probe, capsys: pytest.CaptureFixture[str]) -> None:
    probe(_raises(ConfigInvalid("2 problems", problems=("a", "b"))))
    assert main(["probe", "--json"]) == 4
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": {
            "code": "config-invalid",
            "message": "2 problems",
            "remedy": ConfigInvalid.remedy,
            "problems": ["a", "b"],
        }
    }


def test_all_problems_of_a_configuration_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "streamd.toml"
    file.write_text("a = 1\nb = 2\n")
    assert main(["config", "check", "-c", str(file)]) == 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"{file}:1: a: unknown key", f"{file}:2: b: unknown key"]
    assert lines[2].startswith("streamd: config-invalid: 2 problems in the configuration")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["errors", "--nonsense"], ["config"], ["config", "diff"], ["--nonsense"]],
)
def test_a_wrong_command_line_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("streamd: usage-invalid: ")
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage-invalid"


def test_a_typo_is_answered_with_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statu"]) == 2
    assert "'status'" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("streamd ")


def test_what_nobody_foresaw_is_internal_without_a_traceback(
    probe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(_raises(RuntimeError("odd")))
    assert main(["probe"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("streamd: internal: RuntimeError: odd; ")
    assert err.count("\n") == 1
    monkeypatch.setenv("STREAMD_DEBUG", "1")
    assert main(["probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_errors_in_groups_are_found(probe, capsys: pytest.CaptureFixture[str]) -> None:
    ours = ExceptionGroup("tasks", [ExceptionGroup("inner", [VaultUnreachable("gone")])])
    probe(_raises(ours))
    assert main(["probe"]) == 6
    probe(_raises(ExceptionGroup("tasks", [VaultUnreachable("gone"), ValueError("bug")])))
    assert main(["probe"]) == 1
    capsys.readouterr()


def test_an_interrupt_ends_with_130(probe) -> None:
    probe(_raises(KeyboardInterrupt()))
    assert main(["probe"]) == 130
    probe(_raises(EOFError()))  # of somebody who was asked something
    assert main(["probe"]) == 130

    def give_up(way: Annotated[str, typer.Option()] = "typer's") -> None:
        raise typer.Abort

    probe(give_up)
    assert main(["probe"]) == 130


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = (
        "import streamd.cli.errors_command as command; from streamd.cli.main import main;"
        "command._text = lambda report: 'x' * 1_000_000; raise SystemExit(main(['errors']))"
    )
    done = subprocess.run(
        f'set -o pipefail; {sys.executable} -c "{code}" | head -c 1',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"x")


def test_a_connection_that_breaks_is_not_taken_for_that_reader(probe) -> None:
    probe(_raises(BrokenPipeError()))
    assert main(["probe"]) == 1


def test_coroutines_run_on_a_fresh_loop() -> None:
    async def answer() -> int:
        return 42

    assert context.run_async(answer()) == 42


def test_notes_stay_out_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    context.set_invocation(context.Invocation(json=False))
    context.note("hello")
    context.set_invocation(context.Invocation(json=True))
    context.note("unheard")
    context.set_invocation(context.Invocation())
    assert capsys.readouterr() == ("", "hello\n")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from streamd.cli.main import main; main(['--help']);"
        "heavy = {'pydantic', 'rich', 'aiohttp', 'azure', 'cryptography', 'asyncio', 'structlog'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
