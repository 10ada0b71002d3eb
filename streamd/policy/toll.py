"""Toll: what one commit did to the files of a source, as far as mass damage shows in it.

Filled in by whoever changes the tree, entry by entry; `counts` sums it up for `policy.suspicion`.
Pure: encoded versions and names in, numbers out.
"""

from collections import Counter
from typing import Final, NamedTuple

import msgspec

from streamd.model.entry import EntryType, FileVersion, VersionFlag

_DECODE: Final = msgspec.msgpack.Decoder(FileVersion).decode
_RANDOM: Final = int(VersionFlag.RANDOM)
_SMALL_INT_MAX: Final = 0x7F  # flags are the last field: one byte as long as they are small
_OTHER, _REWRITTEN, _SCRAMBLED, _EMPTIED = range(4)  # what can happen to a file that stays
_TYPE_AT: Final = 3  # in an encoded version: behind the head of an array of more than 15


class Counts(NamedTuple):
    """How many files came to what."""

    rewritten: int = 0  # have other content
    scrambled: int = 0  # of those: looked like data, look like random bytes now
    emptied: int = 0  # of those: nothing is left, or one byte over and over
    swapped: int = 0  # data went where random bytes came, in the same directory
    born_random: int = 0  # new ones that look like random bytes
    gone_plain: int = 0  # are gone and did not
    gone: int = 0  # entries that are gone, of any type
    renamed: int = 0  # have another ending

    @property
    def damage_count(self) -> int:
        """How much of it could be the work of somebody who destroys."""
        return self.scrambled + self.emptied + self.gone + self.renamed


def is_random(version: bytes) -> bool:
    """Say whether an encoded version is of content that looks like random bytes."""
    return version[-1] <= _SMALL_INT_MAX and bool(version[-1] & _RANDOM)


def ending(name: bytes) -> bytes:
    """Return what is behind the last dot of a name, without what counts rotations or is a date."""
    stem, _, end = name.rpartition(b".")
    return end.lower().rstrip(b"0123456789-_~") if stem else b""


class Toll:
    """Counts while a tree is changed."""

    def __init__(self) -> None:
        self._gone = self._renamed = 0
        self._changed: list[tuple[bytes, bytes]] = []  # versions: what was, what is
        self._born: Counter[int] = Counter()  # random ones, by directory
        self._gone_plain: Counter[int] = Counter()
        self._former: dict[int, bytes] = {}  # fid -> the name that it left

    def born(self, parent: int, version: bytes) -> None:
        """A new file is in directory `parent`."""
        if is_random(version):
            self._born[parent] += 1

    def gone(self, parent: int, version: bytes) -> None:
        """A file has lost its last name, which was in directory `parent`."""
        self._gone += 1
        if version[_TYPE_AT] == EntryType.REGULAR and not is_random(version):
            self._gone_plain[parent] += 1

    def changed(self, old: bytes, new: bytes) -> None:
        """A file has another version."""
        self._changed.append((old, new))

    def left(self, fid: int, name: bytes) -> None:
        """A file leaves its name, for another one."""
        self._former.setdefault(fid, name)

    def named(self, fid: int, name: bytes) -> None:
        """A file has a new name."""
        former = self._former.pop(fid, None)
        if former is not None and ending(name) not in {b"", ending(former)}:
            self._renamed += 1

    def counts(self) -> Counts:
        """Return the sums."""
        kinds = Counter(_change(old, new) for old, new in self._changed)
        return Counts(
            rewritten=kinds[_REWRITTEN] + kinds[_SCRAMBLED] + kinds[_EMPTIED],
            scrambled=kinds[_SCRAMBLED],
            emptied=kinds[_EMPTIED],
            swapped=(self._born & self._gone_plain).total(),
            born_random=self._born.total(),
            gone_plain=self._gone_plain.total(),
            gone=self._gone,
            renamed=self._renamed,
        )


def _change(old: bytes, new: bytes) -> int:
    """Say what happened to a file whose version is another one."""
    before, after = _DECODE(old), _DECODE(new)
    is_content = before.type == after.type == EntryType.REGULAR
    if not is_content or (before.levels, before.content) == (after.levels, after.content):
        return _OTHER
    fresh = after.flags & ~before.flags
    if fresh & VersionFlag.RANDOM:
        return _SCRAMBLED
    if fresh & VersionFlag.BLANK or (before.size and not after.size):
        return _EMPTIED
    return _REWRITTEN
