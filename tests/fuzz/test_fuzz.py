"""Every parser, on damaged specimens and on what a coverage-guided fuzzer invents.

`make fuzz CASES=1000000` is the long run; these are its small share. STREAMD_FUZZ_CASES says how many
cases the fuzzer makes here (default 2,000; 20,000 in CI).
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = int(os.environ.get("STREAMD_FUZZ_CASES", "20000" if os.environ.get("CI") else "2000"))

CARELESS = """
import random, sys
from fuzz import targets
seeds = list(targets.seeds())
targets.open_gates()
rng = random.Random(int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    case = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(case))
        kind = rng.randrange(4)
        if kind == 0:
            case[at] = rng.randrange(256)
        elif kind == 1:
            del case[at : at + rng.randrange(1, 60)]
        elif kind == 2:
            case[at : at + 4] = rng.choice([b"\\xff" * 4, bytes(4), b"\\x7f\\xff\\xff\\xff"])
        else:
            case[at:at] = case[: rng.randrange(80)]
        case = case or bytearray(1)
    try:
        targets.run_case(bytes(case))
    except BaseException:
        print("case:", bytes(case).hex(), file=sys.stderr)
        raise
print("done", len(targets.TARGETS))
"""


def run(*line: str) -> subprocess.CompletedProcess[str]:
    root = HERE.parents[1]
    return subprocess.run(
        [sys.executable, *line],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}"},
        timeout=CASES / 20 + 240,
    )


@pytest.mark.timeout(CASES // 20 + 300)
def test_no_parser_does_anything_but_refuse_damaged_specimens() -> None:
    """In a process of its own: the gates of cryptography are taken out of it."""
    done = run("-c", CARELESS, str(random.randrange(1 << 30)), str(CASES))
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[1]) >= 35, "a parser is no longer fuzzed"


@pytest.mark.timeout(CASES // 20 + 300)
def test_no_parser_does_anything_but_refuse_what_the_fuzzer_invents(tmp_path: Path) -> None:
    if run("-c", "import atheris").returncode != 0:
        assert not os.environ.get("CI"), "atheris is missing: run scripts/setup_tests.sh"
        pytest.skip("atheris is not installed: make fuzz installs it")
    done = run(str(HERE / "run_atheris.py"), str(tmp_path / "corpus"), f"-runs={CASES}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {CASES} runs" in done.stderr


def test_the_harness_reports_an_exception_that_is_not_declared() -> None:
    code = (
        "from fuzz import targets\n"
        "targets.TARGETS[0] = ('x', lambda data: data.nothing, targets.TARGETS[0][2])\n"
        "targets.run_case(b'\\x00abc')"
    )
    assert "AttributeError" in run("-c", code).stderr
