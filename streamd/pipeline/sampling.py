"""Look at the beginning of what was read, while it is in memory: see `policy.texture`."""

from collections.abc import Sequence
from typing import Final

from streamd.model.entry import VersionFlag
from streamd.policy.texture import SAMPLE_BYTES, Texture, texture
from streamd.sources.port import Piece, ReadBatch, ReadRequest, Source

FLAGS: Final = {
    Texture.PLAIN: 0,
    Texture.RANDOM: VersionFlag.RANDOM,
    Texture.BLANK: VersionFlag.BLANK,
}


def read(source: Source, requests: Sequence[ReadRequest]) -> ReadBatch:
    """Read, and look at what was read. Blocking."""
    batch = source.read(requests)
    arena = batch.arena
    for result in batch.results:
        if result.pieces:
            result.texture = sampled(arena, result.pieces)
    return batch


def sampled(arena: memoryview, pieces: Sequence[Piece]) -> Texture:
    """Return what content looks like that begins with these pieces, one at least."""
    chunk_id, offset, size = pieces[0]
    if chunk_id is None:
        is_hole = all(piece.id is None for piece in pieces)
        return Texture.BLANK if is_hole else Texture.PLAIN
    return texture(bytes(arena[offset : offset + min(size, SAMPLE_BYTES)]))
