"""What an object's name may look like, whatever the store.

Names reach a store from a vault, and a vault is hostile input: a name that would climb out of a
directory, or that one of the stores could not hold, is refused before anything is touched.
"""

import re
from typing import Final

from streamd.errors import VaultDamaged

TEMPORARY: Final = "tmp"  # the first part of no name: a directory vault keeps its unfinished here
_NAME_MAX: Final = 900  # Azure allows 1,024 for prefix and name together
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,254}"
_NAME: Final = re.compile(rf"(?!{TEMPORARY}(?:/|\Z)){_PART}(?:/{_PART})*\Z")
_PREFIX: Final = re.compile(rf"(?:{_PART}/)*(?:{_PART})?\Z")


def check_name(name: str) -> None:
    """Raise VaultDamaged unless every store can hold an object of this name."""
    if len(name) > _NAME_MAX or _NAME.match(name) is None:
        raise VaultDamaged(f"{name[:_NAME_MAX]!r} is not the name of an object", name=name)


def check_prefix(prefix: str) -> None:
    """Raise VaultDamaged unless `prefix` may begin a name; the empty prefix is that of all."""
    if len(prefix) > _NAME_MAX or _PREFIX.match(prefix) is None:
        raise VaultDamaged(f"{prefix[:_NAME_MAX]!r} begins no object's name", name=prefix)


def range_end(name: str, *, length: int, offset: int, size: int | None) -> int:
    """Return where the requested range of an object of `length` bytes ends.

    Raises VaultDamaged if the object ends inside the range, or before it.
    """
    end = length if size is None else offset + size
    if not 0 <= offset <= end <= length:
        raise VaultDamaged(
            f"{name} has {length} bytes, but bytes {offset} to {end} were expected", name=name
        )
    return end
