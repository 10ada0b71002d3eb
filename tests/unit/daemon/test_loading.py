"""The daemon loads at its start what it may need later."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

STREAMD = Path(__file__).parents[3] / "streamd"
FOLDERS = (
    *("catalog", "config", "daemon", "format", "maintenance", "observe", "pipeline", "policy"),
    *("restore", "sources", "storage", "vault"),
)
# loaded late by what only a start does, or for a container or an identity that was there then
AT_THE_START = {
    *("importlib.resources", "streamd.maintenance.rebuild", "streamd.daemon.remote"),
    *("cryptography.x509", "azure.identity.aio"),
    *("streamd.format._batch", "streamd.sources.filesystem._bulk"),
}


def late_imports() -> set[str]:
    """Return the modules that functions in the folders import."""
    found, asked = set[str](), list[set[str]]()
    for path in (path for folder in FOLDERS for path in (STREAMD / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                asked.append({node.module, *(f"{node.module}.{one.name}" for one in node.names)})
    modules = _modules(set().union(*asked))
    for names in asked:
        shortest = min(names, key=len)
        found |= (names & modules) - {shortest} or {shortest}
    return found


def _modules(names: set[str]) -> set[str]:
    """Return those of the names that are modules; one process for all: a start takes a while."""
    code = (
        "import importlib.util, json, sys\n"
        "def is_module(name):\n"
        "    try:\n"
        "        return importlib.util.find_spec(name) is not None\n"
        "    except ImportError:\n"  # what it is in is no package
        "        return False\n"
        "print(json.dumps([name for name in json.load(sys.stdin) if is_module(name)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(sorted(names)),
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.slow
def test_nothing_is_left_to_load_in_the_midst_of_work() -> None:
    wanted = late_imports() - AT_THE_START
    code = (
        "import sys; import streamd.daemon.main; from streamd.daemon.loading import load_all;"
        f"load_all(); sys.exit(', '.join(sorted({wanted!r} - set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert len(wanted) > 10
    assert done.returncode == 0, done.stderr


def test_a_capture_by_hand_does_not_load_what_only_a_daemon_needs() -> None:
    unwanted = [
        *("streamd.sources.command", "streamd.daemon.hooks", "streamd.daemon.remote"),
        *("streamd.sources.filesystem.watching", "streamd.sources.filesystem.devicewatch"),
        *("streamd.sources.filesystem.fanotify", "streamd.sources.filesystem.inotify"),
    ]
    code = (
        "import sys; import streamd.daemon.oneshot;"
        f"sys.exit(', '.join(sorted({set(unwanted)!r} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
