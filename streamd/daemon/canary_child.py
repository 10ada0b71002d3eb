"""Writes the canary, in a process of its own: what the daemon itself writes is not reported to it.

    canary_child.py PATH TEXT

Boring on purpose: a new file beside it, flushed and renamed over it, as an editor does.
"""

import os
import sys


def main(path: str, text: str) -> None:
    """Replace the file at `path`. Raises OSError."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
