"""Coverage-guided fuzzing of every parser: `python tests/fuzz/run_atheris.py CORPUS -runs=N`.

`make fuzz CASES=N` installs what it needs and runs it. Ends with 0 if N cases did not crash, take
longer than ten seconds, or take a gigabyte of memory.
"""

import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["streamd.format", "streamd.vault.tree_state"]):
    from fuzz import targets

LIMITS = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=512", "-max_len=4096"]


def instrument(module: Any) -> None:
    """Let coverage guide through a module that was not imported by name."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", "") != module.__name__:
            continue
        if isinstance(value, type):
            for method, function in list(vars(value).items()):
                if isinstance(function, FunctionType):
                    setattr(value, method, atheris.instrument_func(function))
        elif isinstance(value, FunctionType):
            setattr(module, name, atheris.instrument_func(value))


def main() -> None:
    """Write the seeds, switch cryptography off, and go."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    targets.open_gates()
    instrument(targets.rescue)
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={corpus}/", *sys.argv[2:], str(corpus)],
                  targets.run_case)  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
