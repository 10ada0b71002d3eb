"""Secrets that cost little to stretch: a real stretch takes 256 MiB and more than a second of a core.

tests/conftest.py puts `cheap_stretching` around every test: hardly one of them is about that cost.
As a program it is streamd, whose new secrets are cheap; what opens them reads the cost from the vault.

    python -m stretching init -c streamd.toml
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from streamd.format import slots

CHEAP: Mapping[str, int] = {"ARGON_ITERATIONS": 1, "ARGON_LANES": 1, "ARGON_MEMORY_KIB": 64}
REAL: Mapping[str, int] = {name: getattr(slots, name) for name in CHEAP}


def cheap_stretching():
    """Make new slots quick to open."""
    return mock.patch.multiple(slots, **CHEAP)


def real_stretching():
    """Make new slots as they are made outside of tests."""
    return mock.patch.multiple(slots, **REAL)


def program() -> list[str]:
    """Return the start of a command line that runs this checkout's streamd with cheap secrets."""
    return [sys.executable, "-m", "stretching"]


def surroundings() -> dict[str, str]:
    """Return the variables that the program needs besides what `streamd` needs."""
    tests = Path(__file__).parent
    return {"PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests)))}


if __name__ == "__main__":
    from streamd.cli.main import main

    with cheap_stretching():
        raise SystemExit(main())
