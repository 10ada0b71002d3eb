"""What all tests share: Hypothesis profiles, golden files, and no skipped test in CI."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import own_disk
import pytest
from hypothesis import HealthCheck, settings
from stretching import cheap_stretching

# tests that may be skipped in CI: part of the reason → why that is no loss
SKIPS_ALLOWED: dict[str, str] = {}

settings.register_profile(
    "dev",
    max_examples=20,  # for `make check`: quick, and often
    deadline=None,  # the machine is shared: slowness is not a counter-example
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=200)
settings.load_profile(
    os.environ.get("STREAMD_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the golden tests produce"
    )


class _SkipWatch:
    """In CI a test that did not run is a failure: nobody reads the list of skips."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "?"
        if not any(allowed in reason for allowed in SKIPS_ALLOWED):
            self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: whole module")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.skipped:
            terminalreporter.write_line(f"skipped in CI, which is a failure: {line}", red=True)


# what `make cover` has run a moment before, when STREAMD_COVERED says so
_COVERED_FOLDERS = ("unit", "property")
_NOT_QUICK = ("slow", "azurite", "root", "systemd", "prometheus")


# files that take long, in the order in which they are begun: none is left over for the end, alone
_LONGEST = ("kill", "roundtrip", "soak", "scale", "retention_year", "rotten_layers", "hooks")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests; `make test` does not repeat what `make cover` has run with all examples."""
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    if not os.environ.get("STREAMD_COVERED"):
        return
    folders = [Path(__file__).parent / name for name in _COVERED_FOLDERS]
    left, covered = [], []
    for item in items:
        is_quick = not any(item.get_closest_marker(name) for name in _NOT_QUICK)
        was_run = is_quick and any(item.path.is_relative_to(folder) for folder in folders)
        # under coverage only a few examples were tried
        was_run = was_run and not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        (covered if was_run else left).append(item)
    config.hook.pytest_deselected(items=covered)
    items[:] = left


class _OwnDirectory:
    """Each run has a temporary directory of its own, and takes it away when all went well.

    pytest would keep the last three below one name and remove older ones by itself, which ends with
    a RecursionError at a tree as deep as ours may be: what one run left made another one fail.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._path = tempfile.mkdtemp(prefix="streamd-tests-")
        config.option.basetemp = self._path

    # after the fixtures of the whole session, which pytest's own plugins end in the same hook
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for name in os.listdir(self._path):  # of workers that were killed
            own_disk.take_away(Path(self._path, name))
        if session.exitstatus == pytest.ExitCode.OK or os.environ.get("CI"):
            subprocess.run(["rm", "-rf", "--one-file-system", self._path], check=False)

    def pytest_unconfigure(self) -> None:
        with contextlib.suppress(OSError):  # nothing was run: nothing is in it
            os.rmdir(self._path)


# before pytest makes its factory of temporary directories from this
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI"):
        config.pluginmanager.register(_SkipWatch(), "no-skips-in-ci")
    is_worker = hasattr(config, "workerinput")
    own_disk.give(config)
    if not is_worker and not config.option.basetemp:
        config.pluginmanager.register(_OwnDirectory(config), "own-directory")


@pytest.fixture(scope="session", autouse=True)
def _cheap_stretching():
    with cheap_stretching():
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare a text with a committed file, or write it with --update-golden."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert path.read_text("utf-8") == text, f"{path} differs: run pytest --update-golden"

    return compare
