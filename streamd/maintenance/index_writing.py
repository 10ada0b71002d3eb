"""Write an index generation from what this host's catalog knows. Needs no private key.

Covered is what is durable in the vault of record: its listing gives each object's size, time and
hash, so that the next verification can tell what has changed since.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Final

import msgspec
from msgspec import field

from streamd.catalog.objects import ObjectState
from streamd.format import envelope, index_run, layout
from streamd.format.envelope import Kind
from streamd.format.index_run import IndexManifest, IndexShard, ObjectRow, ShardRow
from streamd.maintenance.site import Site
from streamd.model.ids import SourceId
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobInfo, BlobName, BlobStore
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.index_reader import generations
from streamd.vault.journal_reader import JournalReader, SegmentHead, SegmentRow
from streamd.vault.parallel import in_thread, in_waves
from streamd.vault.record_reader import heads_in

_LOG: Final = get_logger("index")
_WIDTH: Final = 16
_IN_MAX: Final = 500
_UNCOVERED: Final = frozenset({Kind.INDEX, Kind.CONDEMN, Kind.FINAL})


class _Covered(msgspec.Struct):
    """The objects of the generation to be, in order of their names."""

    infos: list[BlobInfo] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)  # number in the catalog → position
    segments: list[SegmentRow] = field(default_factory=list)


async def write_index(site: Site, record: BlobStore) -> int:
    """Write the next generation; return how many chunks it has, -1 if there is too much to cover.

    `record` is the vault of record. Raises what stores raise.
    """
    vault = site.vault
    covered = await _cover(site, record)
    if len(covered.infos) > index_run.OBJECTS_MAX:
        _LOG.warning("index-too-large", objects=len(covered.infos), most=index_run.OBJECTS_MAX)
        return -1
    heads = await _heads(site, covered.segments)
    generation = max(await generations(vault), default=0) + 1
    counts = [0] * len(covered.infos)
    bits = index_run.bits_for(await site.catalog.read(_count_chunks))
    shards = await _write_shards(site, generation, bits, covered.places, counts)
    if shards is None:
        return -1
    prefix = layout.domain_prefix(vault.keys.domain)
    sources = sorted({source for head in heads.values() for source in head.sources})
    manifest = IndexManifest(
        generation=generation,
        bits=bits,
        condemned=await _newest_condemned(site),
        sources=tuple(sources),
        shards=shards,
        objects=tuple(
            _row(info, count, prefix, heads.get(info.name), sources)
            for info, count in zip(covered.infos, counts, strict=True)
        ),
    )
    encoded = await in_thread(partial(site.writer.encode_index_manifest, manifest))
    await site.publish(Kind.INDEX, encoded)
    return sum(counts)


async def _write_shards(
    site: Site, generation: int, bits: int, places: dict[int, int], counts: list[int]
) -> tuple[ShardRow, ...] | None:
    """Publish the shards, and count the chunks of each object; None if one is too large."""
    prefix, rows = layout.domain_prefix(site.vault.keys.domain), list[ShardRow]()
    with closing(site.catalog.open_reader()) as connection:
        for number in range(1 << bits):
            shard = await in_thread(partial(_shard, connection, number, bits, places, counts))
            if not shard.chunk_count:
                continue
            if shard.chunk_count > index_run.SHARD_CHUNKS_MAX:
                _LOG.warning("index-too-large", chunks=shard.chunk_count << bits)
                return None
            encoded = await in_thread(partial(site.writer.encode_index_shard, shard, generation))
            await site.publish(Kind.INDEX, encoded)
            name, hashed = encoded.name.removeprefix(prefix), envelope.signed_hash(encoded.data)
            rows.append(ShardRow(number, name, shard.chunk_count, hashed))
    return tuple(rows)


async def _newest_condemned(site: Site) -> int:
    """Return the newest condemn generation; by now every one has been carried out."""
    vault, newest = site.vault, 0
    async for info in vault.store.scan(layout.condemn_prefix(vault.keys.domain)):
        parsed = layout.parse_condemn_name(info.name)
        newest = max(newest, parsed[0] if parsed is not None else 0)
    return newest


async def _cover(site: Site, record: BlobStore) -> _Covered:
    """Find what the catalog and the vault of record both have."""
    covered = _Covered()
    batch: list[BlobInfo] = []
    async for info in record.scan(layout.domain_prefix(site.vault.keys.domain)):
        batch.append(info)
        if len(batch) == _IN_MAX:
            await _cover_some(site, covered, batch)
            batch = []
    await _cover_some(site, covered, batch)
    return covered


async def _cover_some(site: Site, covered: _Covered, infos: Sequence[BlobInfo]) -> None:
    known = await site.catalog.read(_durable, [info.name for info in infos])
    for info in infos:
        number = known.get(info.name)
        if number is None:
            continue
        covered.places[number] = len(covered.infos)
        covered.infos.append(info)
        position = layout.parse_segment_name(info.name)
        if position is not None:
            covered.segments.append(SegmentRow(position, info.name, info.size_bytes))


async def _heads(site: Site, segments: Sequence[SegmentRow]) -> dict[BlobName, SegmentHead]:
    """Return the heads of segments; those in the generation before need not be read again."""
    vault = site.vault
    index = await ChunkReader(vault).index()
    found = {} if index is None else heads_in(index, vault.keys.writer)
    missing = [row for row in segments if row.name not in found]
    journal = JournalReader(vault, vault.keys.writer)
    async for _, head in in_waves(missing, journal.read_head, width=_WIDTH):
        if isinstance(head, SegmentHead):
            found[head.name] = head
    return found


def _row(
    info: BlobInfo,
    count: int,
    prefix: str,
    head: SegmentHead | None,
    sources: Sequence[SourceId],
) -> ObjectRow:
    row = ObjectRow(
        info.name.removeprefix(prefix), info.size_bytes, info.modified_us, info.md5, count
    )
    if head is None:
        return row
    return ObjectRow(
        row.name,
        row.size,
        row.modified_us,
        row.md5,
        row.chunk_count,
        head.start_us,
        head.end_us,
        tuple(sources.index(source) for source in head.sources),
    )


def _durable(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    marks = ",".join("?" * len(names))
    rows = connection.execute(
        f"SELECT name, number, kind FROM object WHERE state = ? AND name IN ({marks})",  # noqa: S608 - question marks only
        [int(ObjectState.VAULT), *names],
    )
    return {name: number for name, number, kind in rows if kind not in _UNCOVERED}


def _count_chunks(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM chunk").fetchone()[0])


def _shard(
    connection: sqlite3.Connection,
    number: int,
    bits: int,
    places: dict[int, int],
    counts: list[int],
) -> IndexShard:
    """Return the chunks of one shard that covered objects hold, and count them by object."""
    step = 1 << (index_run.BITS_MAX - bits)
    low, high = bytes((number * step,)), (number + 1) * step
    query, values = "SELECT id, object FROM chunk WHERE id >= ?", [low]
    if high <= 0xFF:  # noqa: PLR2004 - the last byte
        query, values = query + " AND id < ?", [low, bytes((high,))]
    ids, objects = bytearray(), bytearray()
    for chunk, holder in connection.execute(query + " ORDER BY id", values):
        place = places.get(holder)
        if place is not None:
            ids += chunk
            objects += place.to_bytes(4, "little")
            counts[place] += 1
    return IndexShard(number, bits, bytes(ids), bytes(objects))
