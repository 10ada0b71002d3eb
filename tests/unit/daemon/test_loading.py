"""The daemon loads at its start what it may need later."""

import ast
import subprocess
import sys
from pathlib import Path

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


def late_imports(folder: str) -> set[str]:
    """Return the modules that functions in a folder import."""
    found = set()
    for path in (STREAMD / folder).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        functions = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = {part for part in parts if _is_module(part)}
                found |= modules or {node.module}
    return found


def _is_module(name: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    try:
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def test_nothing_is_left_to_load_in_the_midst_of_work() -> None:
    wanted = set().union(*map(late_imports, FOLDERS)) - AT_THE_START
    code = (
        "import sys; import streamd.daemon.main; from streamd.daemon.loading import load_all;"
        f"load_all(); sys.exit(', '.join(sorted({wanted!r} - set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert len(wanted) > 10
    assert done.returncode == 0, done.stderr
