"""Content-defined cut points: FastCDC-2020, seeded per domain.

A profile number is stored with every version, so that the same file is cut the same way again. The
cuts themselves are not part of reading: content lists name chunks and sizes.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from streamd.format.crypto import keyed_digest

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

P = TypeVar("P", bound=tuple[object, ...])

KIB: Final = 1024
SMALL_FILE_MAX: Final = 64 * KIB  # up to here a file is one chunk and no chunker runs


class Profile(msgspec.Struct, frozen=True):
    """Sizes in bytes."""

    number: int
    min_size: int
    avg_size: int
    max_size: int


GENERAL: Final = Profile(1, 64 * KIB, 256 * KIB, 1024 * KIB)
# As GENERAL, but what follows the last cut by content is cut where earlier captures ended.
GROWING: Final = Profile(2, GENERAL.min_size, GENERAL.avg_size, GENERAL.max_size)


class Cutter:
    """Cuts buffers of one stream; the caller carries the uncut tail over to the next buffer."""

    def __init__(self, seed: int, profile: Profile = GENERAL) -> None:
        self.profile = profile
        self._seed = seed

    @cached_property
    def _cdc(self) -> "FastCDC":
        from pyfastcdc import FastCDC  # with the first large file, not at every start

        return FastCDC(
            self.profile.avg_size,
            min_size=self.profile.min_size,
            max_size=self.profile.max_size,
            normalized_chunking=1,
            seed=self._seed,
        )

    def cut(self, buffer: memoryview, *, final: bool) -> list[int]:
        """Return the sizes of the chunks that `buffer` begins with.

        Unless `final`, the last one is left out if more data could move its end: a chunk shorter
        than the maximum that ends at the end of the buffer was not cut by content.
        """
        sizes = [chunk.length for chunk in self._cdc.cut_buf(buffer)]
        if sizes and not final and sizes[-1] < self.profile.max_size:
            sizes.pop()
        return sizes

    def chunks(
        self,
        key: bytes,
        data: memoryview,
        starts: list[int],
        sizes: list[int],
        *,
        final: bool,
        piece: type[P],
    ) -> list[list[P]]:
        """Return of each part of `data` what it begins with, as `piece`: id, offset, size.

        Ids are keyed hashes; what is cut is what `cut` says. It is one call for all parts where
        there is the compiled module.
        """
        if _CUT is None:
            return self.chunks_singly(key, data, starts, sizes, final=final, piece=piece)
        profile = self.profile
        return _CUT(
            key,
            data,
            starts,
            sizes,
            self._seed,
            profile.min_size,
            profile.avg_size,
            profile.max_size,
            final,
            piece,
        )

    def chunks_singly(
        self,
        key: bytes,
        data: memoryview,
        starts: list[int],
        sizes: list[int],
        *,
        final: bool,
        piece: Callable[[bytes, int, int], P],
    ) -> list[list[P]]:
        """Do what `chunks` does, one after the other: the definition of what is right."""
        found = []
        for start, size in zip(starts, sizes, strict=True):
            pieces, at = [], start
            for length in self.cut(data[start : start + size], final=final):
                pieces.append(piece(keyed_digest(key, data[at : at + length]), at, length))
                at += length
            found.append(pieces)
        return found


def _compiled() -> "Callable[..., list[list[Any]]] | None":
    try:
        from streamd.format._batch import cut
    except ImportError:  # not built, or from older files
        return None
    return cut


_CUT: Final = _compiled()
