"""Garbage is not looked for while the program is loaded, and still found afterwards."""

import subprocess
import sys

AFTERWARDS = """
import gc, weakref
gc.disable()
from streamd.daemon.garbage import collect_seldom
collect_seldom()
class Ring: pass
ring = Ring(); ring.itself = ring; seen = weakref.ref(ring); del ring
many = [[number] for number in range(100_000)]
print(gc.isenabled(), gc.get_freeze_count() > 1_000, seen() is None)
"""
BEFORE = """
import gc
import streamd.cli.main
streamd.cli.main.main = lambda: print(gc.isenabled())
from streamd.__main__ import main
main()
"""


def printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_what_was_imported_is_set_aside_and_garbage_is_found():
    assert printed(AFTERWARDS) == "True True True"


def test_the_command_is_loaded_without_the_collector():
    assert printed(BEFORE) == "False"
