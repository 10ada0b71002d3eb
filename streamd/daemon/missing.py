"""Paths of a source that are not there: told, and not taken for deletions for a good while.

A root that is gone may be a disk that was not mounted. It counts as deleted only when it has been
gone for ten minutes, without a break, and the directory that held it is still there, on the file
system that the root was on: then no mount went away.
"""

import os
from typing import Final

from streamd.catalog.lookup import TreeLookup

CONFIRM_SECONDS: Final = 600.0


class MissingRoots:
    """Since when each root has been missing, on a clock that never jumps."""

    def __init__(self, confirm_seconds: float = CONFIRM_SECONDS) -> None:
        self._confirm_seconds = confirm_seconds
        self._since: dict[bytes, float] = {}

    @property
    def roots(self) -> set[bytes]:
        """Those that are missing now."""
        return set(self._since)

    def saw(self, missing: set[bytes], present: set[bytes], now: float) -> set[bytes]:
        """A survey has found some missing and some there; return those that have come back."""
        back = present & self._since.keys()
        for root in back:
            del self._since[root]
        for root in missing:
            self._since.setdefault(root, now)
        return back

    def due(self, now: float) -> list[bytes]:
        """Return roots that have been missing for long enough."""
        return [root for root, at in self._since.items() if now - at >= self._confirm_seconds]


def is_deleted(root: bytes, lookup: TreeLookup) -> bool:
    """Say whether a missing root, captured before, was deleted rather than unmounted. Blocking."""
    row = lookup.named(lookup.root, [root]).get(root)
    if row is None or row.stat.ino == 0:
        return False
    try:
        holder = os.stat(os.path.dirname(root))
    except OSError:
        return False
    if holder.st_dev != row.stat.dev:
        return False  # a mount that went away, or one that hangs: not even to be looked at
    return not os.path.lexists(root)
