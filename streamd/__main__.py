"""The `streamd` command, and `python -m streamd`."""

import atexit
import gc
import os
import sys


def main() -> int:
    """Run the command and return its exit code.

    What is imported stays to the end. Looking through it for garbage again and again while it
    grows takes a fifth of the start, so the collector waits until `daemon.garbage` sets all that
    aside, or a short command has ended.
    """
    gc.disable()
    codes: list[int] = []
    atexit.register(_leave, codes)  # first, so it is called last
    from streamd.cli.main import main as run

    codes.append(run())
    return codes[0]


def _leave(codes: list[int]) -> None:
    """End the process when threads have ended and everybody else had a say.

    What is left to the interpreter is to take apart, one by one, what the system takes back as a
    whole: 15 ms of every command.
    """
    if not codes:
        return  # it did not come to an end by itself: whatever that is, the interpreter says it
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter has a message and an exit code for that
    os._exit(codes[0])


if __name__ == "__main__":
    raise SystemExit(main())
