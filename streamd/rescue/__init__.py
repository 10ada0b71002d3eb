"""What lets a vault be restored without streamd: the rescue script, and the format in words.

Both are data of this package and are stored in every vault, under names that carry their SHA-256,
so that `sha256sum` is enough to check them. The script shares no code with streamd on purpose.
"""

import hashlib
import os
from typing import Final

_HERE: Final = os.path.dirname(os.path.abspath(__file__))


def script_path() -> str:
    """Return the file with the rescue script of this release."""
    return os.path.join(_HERE, "streamd-rescue.py")


def specification_name() -> str:
    """Return the object name under which a vault of this release has the format's description."""
    return next(name for name in documents() if name.startswith("v/format-"))


def documents() -> dict[str, bytes]:
    """Return what belongs into a vault besides its data: object name -> bytes."""
    found: dict[str, bytes] = {}
    for file, stem, ending in (
        ("streamd-rescue.py", "rescue", "py"),
        ("format.md", "format", "md"),
    ):
        with open(os.path.join(_HERE, file), "rb") as opened:
            data = opened.read()
        found[f"v/{stem}-{hashlib.sha256(data).hexdigest()}.{ending}"] = data
    return found
