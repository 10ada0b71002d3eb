"""Measures streamd beside restic and borg on the same data: `python -m bench --help`."""

import sys
from pathlib import Path

# some rows use servers and builders of the tests: Azurite, the blob server, a small host
sys.path.append(str(Path(__file__).parents[1] / "tests"))
