"""Which paths are left out: gitignore patterns, evaluated relative to a source's path."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from streamd.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_CACHE_MAX: Final = 20_000


class ExcludeRules:
    """Compiled exclude patterns; the last one that matches a path decides.

    A path below an excluded directory is excluded, whatever later patterns say about it: excluded
    directories are never entered. Raises ConfigInvalid for a pattern that does not compile.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        # pathspec numbers the lines without the empty ones
        self._patterns = tuple(pattern for pattern in patterns if pattern)
        self._spec = _compiled(self._patterns) if self._patterns else None
        self._empty = not (self._spec and any(p.include is not None for p in self._spec.patterns))
        self._directories: dict[bytes, int | None] = {}

    def __bool__(self) -> bool:
        return not self._empty

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns as configured."""
        return self._patterns

    def excludes(self, relative: bytes, *, directory: bool) -> bool:
        """Say whether `relative` is left out, by itself or because a directory above it is."""
        return self.reason(relative, directory=directory) is not None

    def reason(self, relative: bytes, *, directory: bool) -> str | None:
        """Return the pattern that leaves `relative` out; None when it is protected."""
        if self._empty or not relative:
            return None
        index = self._index(relative, directory=directory)
        return None if index is None else self._patterns[index]

    def excludes_entry(self, relative: bytes, *, directory: bool) -> bool:
        """Like `excludes`, when the directory that holds the entry is known to be protected."""
        return not self._empty and self._match(relative, directory=directory) is not None

    def _index(self, relative: bytes, *, directory: bool) -> int | None:
        parent = relative.rpartition(b"/")[0]
        if parent:
            above = self._directory(parent)
            if above is not None:
                return above
        if directory:
            return self._directory(relative)
        return self._match(relative, directory=False)

    def _directory(self, relative: bytes) -> int | None:
        """Return the pattern that excludes this directory or one above it; cached."""
        known = self._directories.get(relative, -1)
        if known != -1:
            return known
        found: int | None = None
        end = relative.find(b"/")
        while found is None:  # not recursive: paths may be thousands of directories deep
            prefix = relative if end < 0 else relative[:end]
            found = self._match(prefix, directory=True)
            if end < 0:
                break
            end = relative.find(b"/", end + 1)
        if len(self._directories) >= _CACHE_MAX:
            self._directories.clear()
        self._directories[relative] = found
        return found

    def _match(self, relative: bytes, *, directory: bool) -> int | None:
        text = os.fsdecode(relative)
        assert self._spec is not None, "nobody asks where there are no patterns"
        result = self._spec.check_file(text + "/" if directory else text)
        return result.index if result.include else None


def _compiled(patterns: Sequence[str]) -> "GitIgnoreSpec":
    from pathspec import GitIgnoreSpec  # takes as long to load as all of this folder

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise ConfigInvalid(f"exclude pattern cannot be used: {error}") from error
