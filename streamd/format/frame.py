"""Frames: the unit of compression and encryption, one or more chunks each.

A frame's key is HKDF(session secret, salt = its origin's salt, "streamd/v1/c"), its nonce the
frame's ordinal in its origin, and its associated data binds vault, domain, codec, plain length and
the hash of its chunk ids. Where a frame stands is not bound: collection moves frames verbatim,
without a key, and the object that holds them carries the origin table. Chunk ids are checked after
decoding, which also supplies the key commitment that GCM lacks.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streamd.errors import VaultDamaged
from streamd.format import crypto, wire
from streamd.format.codec import Codec, compress_all, decompress
from streamd.format.crypto import Buffer
from streamd.format.keys import DomainKeys, KeySource, Session
from streamd.model.ids import CHUNK_ID_SIZE

FRAME_PLAIN_MAX: Final = 4 * 1024 * 1024
_TOGETHER_MIN: Final = 4  # chunks that are hashed in one call
_TOGETHER_SIZE_MAX: Final = 16 * 1024  # of a chunk on average: larger ones are quicker singly
PACK_FRAME_TARGET: Final = 1024 * 1024  # plaintext of a frame of small chunks in a pack
CIPHERS_MAX: Final = 4096  # ciphers kept by one opener: origins of the packs at hand
INLINE_FRAME_TARGET: Final = 256 * 1024  # the same inside a segment


Content = tuple[Buffer, bytes, Sequence[int]]  # of a frame: its chunks, their ids, their sizes


class Origin(msgspec.Struct, frozen=True):
    """Where a frame's key comes from; travels with the frame."""

    source: KeySource
    salt: bytes


class SealedFrame(msgspec.Struct, frozen=True):
    """A frame, ready to be put into a pack or a segment."""

    ordinal: int
    codec: int
    plain_size: int
    ids: bytes  # chunk ids, side by side
    sizes: Sequence[int]  # of the chunks, plain
    data: Buffer


class SealedBatch(msgspec.Struct, frozen=True):
    """Frames of one origin."""

    origin: Origin
    frames: list[SealedFrame]

    @property
    def stored_size(self) -> int:
        """Bytes the frames take."""
        return sum(len(frame.data) for frame in self.frames)


def frame_aad(identity: bytes, codec: int, plain_size: int, ids: bytes) -> bytes:
    """Return a frame's associated data; `identity` is vault id and domain id side by side."""
    return identity + bytes((codec,)) + plain_size.to_bytes(4, "big") + crypto.digest(ids)


def frame_cipher(secret: bytes, salt: bytes) -> AESGCM:
    """Return the AEAD of an origin's frames."""
    return crypto.cipher_for(crypto.derive(secret, salt=salt, info=b"streamd/v1/c"))


class FrameSealer:
    """Seals the frames of one new origin. One thread at a time."""

    def __init__(self, session: Session, salt: bytes, identity: bytes) -> None:
        self.origin = Origin(session.source, salt)
        self.frames: list[SealedFrame] = []
        self._cipher = frame_cipher(session.secret, salt)
        self._identity = identity

    def seal(
        self, plain: Buffer, ids: bytes, sizes: Sequence[int], *, codec: Codec, level: int = 1
    ) -> SealedFrame:
        """Compress and encrypt the chunks `plain` as the next frame."""
        (frame,) = self.seal_all([(plain, ids, sizes)], codec=codec, level=level)
        return frame

    def seal_all(
        self, contents: Sequence[Content], *, codec: Codec, level: int = 1
    ) -> list[SealedFrame]:
        """Compress and encrypt the next frames."""
        first = len(self.frames)
        packed_all = compress_all([plain for plain, _, _ in contents], codec, level)
        for (plain, ids, sizes), (used, packed) in zip(contents, packed_all, strict=True):
            assert len(ids) == CHUNK_ID_SIZE * len(sizes)
            assert sum(sizes) == len(plain) <= FRAME_PLAIN_MAX
            aad = frame_aad(self._identity, used, len(plain), ids)
            ordinal = len(self.frames)
            data = crypto.encrypt(self._cipher, ordinal, packed, aad)
            self.frames.append(SealedFrame(ordinal, used, len(plain), ids, tuple(sizes), data))
        return self.frames[first:]

    def finish(self) -> SealedBatch:
        """Return everything sealed."""
        return SealedBatch(self.origin, self.frames)


class FrameRow(NamedTuple):
    """One frame of an object: where it stands, and how to open it."""

    origin: int
    ordinal: int
    offset: int  # from the start of the frame section
    stored_size: int
    plain_size: int
    codec: int
    first_chunk: int
    chunk_count: int


class _Columns(msgspec.Struct, array_like=True, frozen=True):
    """The stored form of a frame table: columns, little-endian u32 unless said."""

    frame_count: int
    origins: bytes
    ordinals: bytes
    stored_sizes: bytes
    plain_sizes: bytes
    codecs: bytes  # u8
    chunk_counts: bytes
    ids: bytes  # 32 bytes each
    chunk_sizes: bytes


_DECODER: Final = msgspec.msgpack.Decoder(_Columns)


class FrameTable(msgspec.Struct, frozen=True):
    """The index of an object's frames. Offsets follow from the sizes: frames stand back to back."""

    frames: list[FrameRow]
    ids: bytes
    chunk_sizes: Sequence[int]

    @property
    def chunk_count(self) -> int:
        return len(self.chunk_sizes)

    def ids_of(self, row: FrameRow) -> bytes:
        """Return the ids of a frame's chunks, side by side."""
        start = row.first_chunk * CHUNK_ID_SIZE
        return self.ids[start : start + row.chunk_count * CHUNK_ID_SIZE]

    def sizes_of(self, row: FrameRow) -> Sequence[int]:
        """Return the plain sizes of a frame's chunks."""
        return self.chunk_sizes[row.first_chunk : row.first_chunk + row.chunk_count]

    def chunks(self) -> Iterator[tuple[bytes, FrameRow]]:
        """Yield (chunk id, its frame) for every chunk."""
        for row in self.frames:
            ids = self.ids_of(row)
            for start in range(0, len(ids), CHUNK_ID_SIZE):
                yield ids[start : start + CHUNK_ID_SIZE], row

    def id_list(self) -> list[bytes]:
        """Return the ids of all chunks."""
        ids = self.ids
        return [ids[i : i + CHUNK_ID_SIZE] for i in range(0, len(ids), CHUNK_ID_SIZE)]


def _pack(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def encode_table(batches: Sequence[tuple[int, SealedBatch]]) -> bytes:
    """Return the index section of frames; each batch comes with its origin's row."""
    frames = [(row, frame) for row, batch in batches for frame in batch.frames]
    return msgspec.msgpack.encode(
        _Columns(
            frame_count=len(frames),
            origins=_pack([row for row, _ in frames]),
            ordinals=_pack([frame.ordinal for _, frame in frames]),
            stored_sizes=_pack([len(frame.data) for _, frame in frames]),
            plain_sizes=_pack([frame.plain_size for _, frame in frames]),
            codecs=bytes([frame.codec for _, frame in frames]),
            chunk_counts=_pack([len(frame.sizes) for _, frame in frames]),
            ids=b"".join(frame.ids for _, frame in frames),
            chunk_sizes=_pack([size for _, frame in frames for size in frame.sizes]),
        )
    )


def _unpack(data: bytes, count: int) -> tuple[int, ...]:
    if len(data) != 4 * count:
        raise VaultDamaged("a column of the frame index has the wrong length")
    return struct.unpack(f"<{count}I", data)


def decode_table(data: Buffer, origin_count: int) -> FrameTable:
    """Parse an index section. Raises VaultDamaged for anything inconsistent."""
    columns = wire.decode(_DECODER, data, "the frame index")
    count = columns.frame_count
    if count < 0 or len(columns.codecs) != count or len(columns.ids) % CHUNK_ID_SIZE:
        raise VaultDamaged("the frame index is inconsistent")
    chunk_sizes = _unpack(columns.chunk_sizes, len(columns.ids) // CHUNK_ID_SIZE)
    frames: list[FrameRow] = []
    offset = first = 0
    for origin, ordinal, stored, plain, codec, chunks in zip(
        _unpack(columns.origins, count),
        _unpack(columns.ordinals, count),
        _unpack(columns.stored_sizes, count),
        _unpack(columns.plain_sizes, count),
        columns.codecs,
        _unpack(columns.chunk_counts, count),
        strict=True,
    ):
        if origin >= origin_count or plain > FRAME_PLAIN_MAX:
            raise VaultDamaged("the frame index is inconsistent")
        frames.append(FrameRow(origin, ordinal, offset, stored, plain, codec, first, chunks))
        offset, first = offset + stored, first + chunks
    if first != len(chunk_sizes):
        raise VaultDamaged("the frame index is inconsistent")
    return FrameTable(frames, columns.ids, chunk_sizes)


class FrameOpener:
    """Opens frames, remembering the ciphers of the origins it met. Threads may share one."""

    def __init__(
        self, secret_for: Callable[[KeySource], bytes], domain: DomainKeys, identity: bytes
    ) -> None:
        self._secret_for = secret_for
        self._domain = domain
        self._identity = identity
        self._ciphers: dict[Origin, AESGCM] = {}

    def open(self, table: FrameTable, row: FrameRow, origin: Origin, data: Buffer) -> Buffer:
        """Return a frame's plaintext, every chunk checked. Raises VaultDamaged, KeyRejected."""
        cipher = self._ciphers.get(origin)
        if cipher is None:
            crypto.check_suite(origin.source.suite)
            cipher = frame_cipher(self._secret_for(origin.source), origin.salt)
            if len(self._ciphers) >= CIPHERS_MAX:
                self._ciphers.clear()
            self._ciphers[origin] = cipher
        ids = table.ids_of(row)
        aad = frame_aad(self._identity, row.codec, row.plain_size, ids)
        plain = decompress(
            crypto.decrypt(cipher, row.ordinal, data, aad), row.codec, row.plain_size
        )
        self._check(plain, ids, table.sizes_of(row))
        return plain

    def _check(self, plain: Buffer, ids: bytes, sizes: Sequence[int]) -> None:
        *starts, end = accumulate(sizes, initial=0)
        if end != len(plain):
            raise VaultDamaged("a frame holds more or less than its chunks")
        view = memoryview(plain)
        if len(starts) >= _TOGETHER_MIN and end <= len(starts) * _TOGETHER_SIZE_MAX:
            found = self._domain.chunk_ids(view, starts, list(sizes))
        else:
            chunk_id = self._domain.chunk_id
            found = [chunk_id(view[at : at + size]) for at, size in zip(starts, sizes, strict=True)]
        if b"".join(found) != ids:
            raise VaultDamaged("a chunk does not match its id")
