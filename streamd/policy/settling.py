"""Settling: whether what one look at a busy source found can have been true at one instant.

A look goes from place to place, while others go on changing the tree. What is recorded of a path is
a chain of links: each directory's name on the way to it, its own name, and the file. Each link was
seen at a moment of its own and was true from some change until the next. A chain was true at some
instant if the spans of its links have one in common, and spans have that when each two of them
meet. So in a chain that never was true there are two links of which one, as it is recorded, ended
before the other began.

The look begins behind a barrier: what changed before it was noticed and is looked at, and what is
not looked at was at the barrier as it is recorded. What is read is reached by its path before and
after it is read, so all names on the way are seen true with it. A known directory that is found at
a new place has everything below it looked at there. Hence, of two links that do not meet, the later
is the new place of a directory, and the earlier slipped away unseen, below that place or below the
former one; or the later is a file with several names, and the earlier is one of these, which went.

The first is known when it happens. The second is excluded if, after the file was read, all names
that it keeps still lead to it.
"""

from collections.abc import Collection, Iterable, Iterator

_SLASH = b"/"


def mixed(slipped: Iterable[bytes], moved: Collection[bytes]) -> frozenset[bytes]:
    """Return where a look may have joined what never was together.

    `slipped` are places that are neither known as they are nor as they were at the barrier; `moved`
    the places of directories that moved, former and new.
    """
    places = frozenset(moved)
    if not places:
        return places
    return frozenset(
        path for path in slipped if path in places or any(each in places for each in above(path))
    )


def above(path: bytes) -> Iterator[bytes]:
    """Yield the directories that a path lies in, the nearest first."""
    while (cut := path.rfind(_SLASH)) > 0:
        path = path[:cut]
        yield path
