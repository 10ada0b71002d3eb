"""`streamd` with its upkeep in a hurry: what is due each quarter of an hour is due every second.

    python -m system.hasty run -c streamd.toml

A process lives through weeks of upkeep in minutes. Nothing but the waits between two rounds is
another: the rounds themselves are the real ones.
"""

import sys
from pathlib import Path

from system.daemon_process import environment

EVERY_SECONDS = 1.0
VERIFY = "\n[verify]\n" + "".join(
    f'{level} = "10s"\n' for level in ("list", "structure", "sample", "full")
)  # for the configuration


def program() -> list[str]:
    """Return the start of the command line."""
    return [sys.executable, "-m", "system.hasty"]


def surroundings() -> dict[str, str]:
    """Return the environment that the program needs."""
    checkout = Path(__file__).parents[2]
    return environment() | {"PYTHONPATH": f"{checkout}:{checkout / 'tests'}"}


def hurry() -> None:
    """Shorten every wait of the upkeep."""
    from streamd.config.model import RetentionConfig
    from streamd.daemon import memory, upkeep, verification

    for name in ("FIRST_RUN_SECONDS", "EVICT_SECONDS", "FIRST_KEEP_SECONDS", "KEEP_SECONDS"):
        setattr(upkeep, name, EVERY_SECONDS)
    for name in ("FIRST_LOOK_SECONDS", "LOOK_SECONDS"):
        setattr(verification, name, EVERY_SECONDS)
    memory.GIVE_BACK_SECONDS = EVERY_SECONDS
    RetentionConfig.settings["interval_seconds"].default = EVERY_SECONDS


if __name__ == "__main__":
    from streamd.cli.main import main

    hurry()
    raise SystemExit(main())
