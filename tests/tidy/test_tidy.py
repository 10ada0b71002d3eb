"""Properties of the source text itself. Style that is not checked is an opinion."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "streamd").rglob("*.py"))
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
GLANCE_LINES = 5
# words so wide that everything fits, which is how a module becomes a drawer
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
EMPTY_ALLOWED = "__init__.py"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_tidy(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MODULE_LINES_MAX, "split it by noun"
    assert ast.get_docstring(tree), "a module starts by saying what it is for"
    assert path.stem not in BANNED_NAMES, "name what it holds"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def _has_to_speak(node: ast.stmt) -> bool:
    """Return whether `node` is public and too long to be understood at a glance."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    assert node.end_lineno is not None
    is_long = isinstance(node, ast.ClassDef) or node.end_lineno - node.lineno > GLANCE_LINES
    return is_long and not node.name.startswith("_")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_public_names_say_what_they_mean(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    silent = [n for n in tree.body if _has_to_speak(n) and not ast.get_docstring(n)]
    assert [node.name for node in silent] == []


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in MODULES}
    assert [f for f in folders if not (f / EMPTY_ALLOWED).exists()] == []


def test_imports_point_downwards() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
