"""One directory to look at, and what looking compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamd.model.host import HostStat
from streamd.sources.port import VIRTUAL_ROOT

_DEV: Final = HostStat._fields.index("dev")
_SLASH: Final = b"/"


@dataclass(frozen=True, slots=True)
class Visit:
    """One directory to look at: some names or all, and whether to look below unchanged ones."""

    path: bytes
    fid: int
    names: list[bytes] | None
    deep: bool
    span: tuple[bytes, bytes | None] | None = None  # all names from here up to there are in `names`


def is_same(one: HostStat, other: HostStat) -> bool:
    """Compare all but the device number, which may change when a file system is mounted again."""
    return one[:_DEV] == other[:_DEV] and one[_DEV + 1 :] == other[_DEV + 1 :]


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of `name` in a directory; in the virtual root a name is a whole path."""
    if directory == VIRTUAL_ROOT:
        return name
    return directory.rstrip(_SLASH) + _SLASH + name


def split(path: bytes, roots: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return (directory, name) of a path of a source; None for a path outside of it."""
    for root in roots:
        if path == root:
            return VIRTUAL_ROOT, root
        if path.startswith(root.rstrip(_SLASH) + _SLASH):
            directory, _, name = path.rpartition(_SLASH)
            return (directory or _SLASH), name
    return None
