"""Index runs: which chunk is in which object, and what there was, at one moment.

A generation is a set of shards, each with the chunks whose ids begin alike, and a manifest that is
put last and makes the generation complete. Both are of kind X and signed:

    header: g = generation, t = creation
    shard     section x   IndexShard, under the domain's index key
    manifest  section m   IndexManifest, under the domain's index key

They are accelerators: whatever they say can be found out from the objects themselves, and a reader
that ignores them comes to the same results.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from streamd.effects import Entropy
from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, wire
from streamd.format.crypto import Buffer
from streamd.format.envelope import Envelope, Header, Kind, SectionDraft, Signer, VerifyKey
from streamd.format.keys import KeyChain, KeySource, index_source
from streamd.format.pack import EncodedObject
from streamd.model.ids import CHUNK_ID_SIZE

BITS_MAX: Final = 8  # 256 shards
SHARD_CHUNKS_TARGET: Final = 400_000
SHARD_CHUNKS_MAX: Final = 1_500_000  # 36 bytes each, in a section of at most 64 MiB
OBJECTS_MAX: Final = 400_000  # about 100 bytes each, in a section of at most 64 MiB
_NUMBER_SIZE: Final = 4


class ObjectRow(msgspec.Struct, array_like=True, frozen=True):
    """An object that the generation knows. The last three are of segments only."""

    name: str  # below the domain's prefix
    size: int
    modified_us: int = 0  # as the vault of record listed it; 0: not known
    md5: bytes = b""  # likewise; empty: its listing has none
    chunk_count: int = 0  # rows of the shards that name it
    start_us: int = 0
    end_us: int = 0
    sources: tuple[int, ...] = ()  # positions in `IndexManifest.sources`


class ShardRow(msgspec.Struct, array_like=True, frozen=True):
    """One shard of the generation; `hash` is the one in its trailer."""

    shard: int
    name: str  # below the domain's prefix
    chunk_count: int
    hash: bytes


class IndexManifest(msgspec.Struct, array_like=True, frozen=True):
    """What makes a generation complete. Chunks of objects that it does not name are elsewhere."""

    generation: int
    bits: int  # a chunk is in the shard that these first bits of its id say
    condemned: int  # the newest condemn generation that had been carried out
    sources: tuple[bytes, ...]
    shards: tuple[ShardRow, ...]
    objects: tuple[ObjectRow, ...]


class IndexShard(msgspec.Struct, array_like=True, frozen=True):
    """Chunks by id, each with the position of an object in the manifest."""

    shard: int
    bits: int
    ids: bytes  # 32 bytes each, ascending
    objects: bytes  # u32le each

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return len(self.ids) // CHUNK_ID_SIZE

    def find(self, chunk: bytes) -> int | None:
        """Return the position of the object that holds a chunk, None if it is not here."""
        index = bisect_left(_Ids(self.ids), chunk)
        if index == self.chunk_count or _id_at(self.ids, index) != chunk:
            return None
        return int.from_bytes(self.objects[index * _NUMBER_SIZE : (index + 1) * 4], "little")

    def rows(self) -> Iterator[tuple[bytes, int]]:
        """Yield (chunk, position of the object that holds it), ascending."""
        for index, (number,) in enumerate(struct.iter_unpack("<I", self.objects)):
            yield _id_at(self.ids, index), number


class _Ids:
    """Ids side by side as a sequence, so that they can be bisected in place."""

    def __init__(self, ids: bytes) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids) // CHUNK_ID_SIZE

    def __getitem__(self, index: int) -> bytes:
        return _id_at(self._ids, index)


_MANIFEST: Final = msgspec.msgpack.Decoder(IndexManifest)
_SHARD: Final = msgspec.msgpack.Decoder(IndexShard)


def _id_at(ids: bytes, index: int) -> bytes:
    return ids[index * CHUNK_ID_SIZE : (index + 1) * CHUNK_ID_SIZE]


def bits_for(chunk_count: int) -> int:
    """Return how many bits choose the shard when there are that many chunks."""
    bits = 0
    while bits < BITS_MAX and chunk_count > SHARD_CHUNKS_TARGET << bits:
        bits += 1
    return bits


def shard_of(chunk: bytes, bits: int) -> int:
    """Return the shard of a chunk."""
    return chunk[0] >> (BITS_MAX - bits)


def encode_shard(
    shard: IndexShard,
    generation: int,
    *,
    keys: KeyChain,
    now_us: int,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    """Return a shard's object."""
    unique = entropy.token(layout.UNIQUE_SIZE)
    name = layout.index_shard_name(keys.domain, generation, shard.shard, unique)
    return _encoded(
        name, "x", msgspec.msgpack.encode(shard), generation, keys, now_us, signer, entropy
    )


def encode_manifest(
    manifest: IndexManifest, *, keys: KeyChain, now_us: int, signer: Signer, entropy: Entropy
) -> EncodedObject:
    """Return a manifest's object; the shards must be in the vault already."""
    name = layout.index_manifest_name(keys.domain, manifest.generation)
    body = msgspec.msgpack.encode(manifest)
    return _encoded(name, "m", body, manifest.generation, keys, now_us, signer, entropy)


def _encoded(  # noqa: PLR0917 - private, called twice above
    name: str,
    tag: str,
    body: bytes,
    generation: int,
    keys: KeyChain,
    now_us: int,
    signer: Signer,
    entropy: Entropy,
) -> EncodedObject:
    header = Header(
        v=keys.vault,
        d=keys.domain,
        w=keys.writer,
        t=now_us,
        ks=[index_source(keys.domain)],
        g=generation,
    )
    data = envelope.build(
        Kind.INDEX,
        header,
        [SectionDraft(tag, (body,), 0)],
        secrets={0: keys.domain_keys.index_key},
        entropy=entropy,
        signer=signer,
        padded_size=envelope.padme,
    )
    return EncodedObject(name, data)


def _opened(data: Buffer, verify_key: VerifyKey) -> Envelope:
    envelope.verify_signature(data, verify_key)
    return envelope.parse(data, Kind.INDEX)


def decode_shard(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> IndexShard:
    """Parse and authenticate a shard. Raises VaultDamaged."""
    shard = wire.decode(_SHARD, _opened(data, verify_key).plain("x", secret_for), "an index shard")
    count = shard.chunk_count
    is_consistent = (
        0 <= shard.bits <= BITS_MAX
        and len(shard.ids) == count * CHUNK_ID_SIZE
        and len(shard.objects) == count * _NUMBER_SIZE
    )
    if not is_consistent:
        raise VaultDamaged("an index shard is inconsistent")
    last = b""
    for index in range(count):
        chunk = _id_at(shard.ids, index)
        if chunk <= last or shard_of(chunk, shard.bits) != shard.shard:
            raise VaultDamaged("an index shard is out of order")
        last = chunk
    return shard


def decode_manifest(
    data: Buffer, verify_key: VerifyKey, secret_for: Callable[[KeySource], bytes]
) -> IndexManifest:
    """Parse and authenticate a manifest. Raises VaultDamaged."""
    parsed = _opened(data, verify_key)
    manifest = wire.decode(_MANIFEST, parsed.plain("m", secret_for), "an index manifest")
    if manifest.generation != parsed.header.g:
        raise VaultDamaged("an index manifest contradicts its header")
    if not 0 <= manifest.bits <= BITS_MAX or len(manifest.objects) > OBJECTS_MAX:
        raise VaultDamaged("an index manifest is beyond the format's limits")
    shards = [row.shard for row in manifest.shards]
    if shards != sorted(set(shards)) or not all(0 <= n < 1 << manifest.bits for n in shards):
        raise VaultDamaged("an index manifest lists impossible shards")
    sources = len(manifest.sources)
    if not all(0 <= n < sources for row in manifest.objects for n in row.sources):
        raise VaultDamaged("an index manifest names no source")
    return manifest
