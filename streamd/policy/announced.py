"""Which differences between a tree and the catalog had been announced by an event.

Pure. A rescan compares beside live changes, so it also finds what is noticed and not captured yet.
Only what nobody noticed is a sign that watching is not complete.
"""

from typing import Final

PATHS_MAX: Final = 200_000  # more, and nothing is called unannounced: better silent than wrong
_SLASH: Final = b"/"


class Announced:
    """The places that were noticed since it was made."""

    def __init__(self) -> None:
        self.is_overflown = False
        self._paths: set[bytes] = set()
        self._deep: set[bytes] = set()
        self._directories: set[bytes] = set()  # something in them was noticed

    def add(self, path: bytes, *, is_deep: bool) -> None:
        """`path` was noticed, with everything below it if `is_deep`."""
        if len(self._paths) >= PATHS_MAX:
            self.is_overflown = True
            return
        self._paths.add(path)
        self._directories.add(_parent(path))
        if is_deep:
            self._deep.add(path)

    def covers(self, path: bytes, *, is_directory: bool) -> bool:
        """Say whether a difference at `path` had to be expected.

        What comes and goes in a directory changes the directory's own times without an event of
        its own: `is_directory` says that it is no more than that.
        """
        if self.is_overflown or path in self._paths:
            return True
        if is_directory and path in self._directories:
            return True
        above = path
        while above != _SLASH:
            above = _parent(above)
            if above in self._deep:
                return True
        return path in self._deep


def _parent(path: bytes) -> bytes:
    return path.rpartition(_SLASH)[0] or _SLASH
