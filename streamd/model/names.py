"""Very many names of one directory, in little memory."""

from collections.abc import Iterator, Sequence
from typing import Final

SLICE_NAMES: Final = 10_000
_BETWEEN: Final = b"\0"  # is in no name


class PackedNames:
    """The sorted names of a large directory, to be taken slice by slice.

    A million names as objects of their own are 60 MB, and here a sixth of that.
    """

    def __init__(self, names: Sequence[bytes]) -> None:
        """Keep `names`, which are sorted."""
        starts = range(0, len(names), SLICE_NAMES)
        self._parts = [_BETWEEN.join(names[start : start + SLICE_NAMES]) for start in starts]
        self._lows = [names[start] for start in starts]

    def __len__(self) -> int:
        return len(self._parts)

    def span(self, number: int) -> tuple[bytes, bytes | None]:
        """Return the first name of a slice and of the next one.

        Together the spans cover every name: the first begins at b"", the last one has no end.
        """
        low = self._lows[number] if number else b""
        return low, self._lows[number + 1] if number + 1 < len(self) else None

    def slice(self, number: int) -> list[bytes]:
        """Return the names of a slice."""
        return self._parts[number].split(_BETWEEN)

    def __iter__(self) -> Iterator[list[bytes]]:
        return map(self.slice, range(len(self)))
