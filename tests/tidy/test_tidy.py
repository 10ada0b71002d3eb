"""Properties of the source text itself. Style that is not checked is an opinion."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESCUE = (
    ROOT / "streamd" / "rescue" / "streamd-rescue.py"
)  # a program of its own, with its own rules
MODULES = sorted(set((ROOT / "streamd").rglob("*.py")) - {RESCUE})
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
GLANCE_LINES = 5
# words so wide that everything fits, which is how a module becomes a drawer
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
EMPTY_ALLOWED = "__init__.py"


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_tidy(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = _tree(path)
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
    tree = _tree(path)
    silent = [n for n in tree.body if _has_to_speak(n) and not ast.get_docstring(n)]
    assert [node.name for node in silent] == []


RESCUE_LINES_MAX = 999
RESCUE_WIDTH_MAX = 120
OTHERS_ALLOWED = {
    "cryptography",
    "blake3",
    "lz4",
    "zstandard",
}  # of these, blake3 only if it is there
UNSAFE = {"pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "jsonpickle"}


def _imported(path: Path) -> set[str]:
    """Return the first parts of the names of all modules that a file imports."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            assert isinstance(node.args[0], ast.Constant), "an import that nobody can check"
            found.add(str(node.args[0].value).split(".")[0])
    return found


def test_the_rescue_script_is_short_and_stands_alone() -> None:
    lines = RESCUE.read_text("utf-8").splitlines()
    assert len(lines) <= RESCUE_LINES_MAX
    assert max(map(len, lines)) <= RESCUE_WIDTH_MAX
    assert _imported(RESCUE) - sys.stdlib_module_names <= OTHERS_ALLOWED


@pytest.mark.parametrize("path", [*MODULES, RESCUE], ids=_name)
def test_nothing_is_decoded_by_what_can_run_code(path: Path) -> None:
    assert _imported(path) & UNSAFE == set()
    calls = (n.func for n in ast.walk(_tree(path)) if isinstance(n, ast.Call))
    assert {name.id for name in calls if isinstance(name, ast.Name)} & {"eval", "exec"} == set()


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


def test_no_two_test_files_have_the_same_name() -> None:
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in set(names) if names.count(name) > 1] == [], "pytest cannot tell them"


@pytest.mark.parametrize("folder", ["maintenance", "vault", "restore"])
def test_threads_that_use_databases_are_outlived(folder: str) -> None:
    """A cancelled wait in an executor leaves the thread behind, with a database that gets closed."""
    used = {
        _name(path)
        for path in (ROOT / "streamd" / folder).rglob("*.py")
        if "run_in_executor" in path.read_text("utf-8")
    }
    assert used <= {"streamd/vault/parallel.py"}, "use vault.parallel.in_thread"
