"""Where to cut the end of a file that grows, so that the end is not sent again and again.

Content is cut where its bytes say so, every 256 KiB on average. What comes after the last such cut
changes with every append, so a log of which a line is appended each second would send some 128 KiB
each second. Instead the end is cut where earlier captures of the same file ended, and only what
came since is new. The pieces are put together as they become many: each `FAN` of one size class
become one of the next, so that a byte is sent again once for each class, and there are few pieces.
"""

from collections.abc import Sequence
from typing import Final

FAN: Final = 8
PIECES_MAX: Final = 64
_CLASS_BITS: Final = 3  # a class is eight times as large as the one before


def piece_sizes(kept: Sequence[int], fresh: int) -> list[int]:
    """Return the sizes to cut the end into.

    `kept` are the sizes of the pieces that it had, as far as they are unchanged; `fresh` is what
    comes after them.
    """
    if not fresh:
        return list(kept)
    sizes = [*kept, fresh]
    while (count := _alike(sizes)) >= FAN:
        sizes[-count:] = [sum(sizes[-count:])]
    return sizes if len(sizes) <= PIECES_MAX else [sum(sizes)]


def _alike(sizes: Sequence[int]) -> int:
    """Return how many of the last pieces are of the class of the last one, or below."""
    last, count = _class(sizes[-1]), 0
    for size in reversed(sizes):
        if _class(size) > last:
            break
        count += 1
    return count


def _class(size: int) -> int:
    return (size.bit_length() - 1) // _CLASS_BITS
