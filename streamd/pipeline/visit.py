"""One directory to look at, and what looking compares."""

from collections.abc import Container, Iterable, Iterator, Sequence
from errno import ETIMEDOUT
from typing import Final

import msgspec
from msgspec.structs import replace

from streamd.catalog.dirty import DirtyPlace
from streamd.catalog.lookup import NodeRow
from streamd.catalog.walk import WalkLookup
from streamd.model.host import HostStat
from streamd.model.names import PackedNames
from streamd.pipeline.in_flight import SourceMissing
from streamd.sources.port import VIRTUAL_ROOT, Listing, Source

_DEV: Final = HostStat._fields.index("dev")
_SLASH: Final = b"/"


class Visit(msgspec.Struct, frozen=True):
    """One directory to look at: some names or all, and whether to look below unchanged ones."""

    path: bytes
    fid: int
    names: list[bytes] | None
    deep: bool
    span: tuple[bytes, bytes | None] | None = None  # all names from here up to there are in `names`
    packed: tuple[PackedNames, int] | None = None  # `names` are slice number so-and-so of these
    new_at: tuple[int, bytes] | None = None  # the place at which this directory was found, new

    def in_slices(self, names: PackedNames) -> "list[Visit]":
        """Return the same visit in parts, to be `unpacked`; `names` are all that are there."""
        return [
            replace(self, names=None, span=names.span(number), packed=(names, number))
            for number in range(len(names))
        ]

    def unpacked(self) -> "Visit":
        """Return the same visit with its names; these are of one slice at a time only."""
        if self.packed is None:
            return self
        names, number = self.packed
        return replace(self, names=names.slice(number), packed=None)

    def is_of_new(self, in_flight: Container[tuple[int, bytes]]) -> bool:
        """Say whether the directory is new and itself still in flight: nothing in it is known."""
        return self.new_at is not None and self.new_at in in_flight

    def examined(self, source: Source, in_flight: Container[tuple[int, bytes]]) -> Listing:
        """Look. Where most of it will be new, it is asked at once which files they are."""
        if self.is_of_new(in_flight) or (self.names is not None and self.span is None):
            return source.examine(self.path, self.names, identities=True)
        return source.examine(self.path, self.names)

    def looked_for(self, known: Iterable[bytes], on_their_way: Iterable[bytes]) -> set[bytes]:
        """Return the names that ought to be there, captured or not yet."""
        if self.span is not None:
            low, high = self.span
            within = {name for name in on_their_way if low <= name and (not high or name < high)}
            return {*known, *within}
        return set(self.names) if self.names is not None else {*known, *on_their_way}


def rows_of(
    lookup: WalkLookup, visit: Visit, in_flight: Container[tuple[int, bytes]]
) -> dict[bytes, NodeRow]:
    """Return what is captured of the names of a visit."""
    if visit.is_of_new(in_flight):
        return {}
    if visit.names is None:
        return lookup.children(visit.fid)
    if visit.span is not None:
        return lookup.between(visit.fid, *visit.span)
    return lookup.named(visit.fid, visit.names)


def is_unmounted(lookup: WalkLookup, source: Source, root: bytes) -> bool:
    """Say whether a root that had entries is now another directory, and an empty one.

    That is what is seen of a mount point when nothing, or something new, is mounted there.
    """
    row = lookup.named(lookup.root, [root]).get(root)
    if row is None or not lookup.has_children(row.fid):
        return False
    now = source.examine(VIRTUAL_ROOT, [root]).entries.get(root)
    if now is None:
        return True
    if (now.ino, now.dev) == (row.stat.ino, row.stat.dev) or now.type != row.stat.type:
        return False
    inside = source.examine(root, None)
    return not (inside.entries or inside.names or inside.failed or inside.left_out)


def check_roots(
    lookup: WalkLookup,
    source: Source,
    visit: Visit,
    listing: Listing,
    deleted: Container[bytes],
    present: set[bytes],
) -> None:
    """Refuse to take a root that vanished or hangs, or an unmounted one, for mass deletion.

    Roots that are there are added to `present`; `deleted` are known to be gone for good.
    """
    if visit.path == VIRTUAL_ROOT:
        for root in visit.names or source.roots:
            present.update({root} & listing.entries.keys())
            is_hung = listing.failed.get(root) == ETIMEDOUT
            is_there = root in listing.entries or (root in listing.failed and not is_hung)
            if not is_there and root not in deleted:
                raise SourceMissing(root)
            if root in listing.entries and is_unmounted(lookup, source, root):
                raise SourceMissing(root)  # before anything is recorded of it, itself included
        return
    is_root, path = visit.path in source.roots and visit.names is None, visit.path
    if is_root and not listing.entries and is_unmounted(lookup, source, path):
        raise SourceMissing(path)


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


def visits(
    places: Iterable[DirtyPlace], roots: Sequence[bytes]
) -> Iterator[tuple[bytes, list[bytes], bool]]:
    """Yield (directory, names, descend) for every place, shallow ones first and grouped."""
    shallow: dict[bytes, list[bytes]] = {}
    deep: dict[bytes, list[bytes]] = {}
    for place in places:
        at = split(place.path, roots)
        if at is not None:
            (deep if place.deep else shallow).setdefault(at[0], []).append(at[1])
    for directory, names in shallow.items():
        yield directory, names, False
    for directory, names in deep.items():
        yield directory, names, True
