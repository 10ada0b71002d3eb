"""Seal what was read: leave out known chunks, compress and encrypt the rest, describe the files.

Blocking and free of I/O but for index look-ups; runs in the CPU threads. One call works on one
batch, and everything heavy in it (compression, encryption, hashing) releases the interpreter lock.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
from msgspec import field

from streamd.catalog.cuts import FILE_SIZE_MIN, Cuts
from streamd.catalog.dirty import Depth, DirtyPlace
from streamd.catalog.tree import Intent
from streamd.effects import work_seconds
from streamd.format import batch, chunklist
from streamd.format.chunker import GENERAL, GROWING
from streamd.format.codec import Codec
from streamd.format.frame import (
    INLINE_FRAME_TARGET,
    PACK_FRAME_TARGET,
    Content,
    FrameSealer,
    SealedBatch,
)
from streamd.format.keys import Role
from streamd.model.entry import ContentRun, VersionFlag
from streamd.model.host import HostStat
from streamd.pipeline.channel import LIVE
from streamd.pipeline.dedup import DedupIndex, Lane
from streamd.pipeline.findings import Found, Trouble
from streamd.pipeline.sampling import FLAGS
from streamd.policy.texture import Texture
from streamd.sources.port import Outcome, Piece, ReadResult
from streamd.vault.writer import VaultWriter

_OFFSET: Final = itemgetter(1)
_TICK_NS: Final = 10_000_000  # a change this close before the read may not move the clock again
_FUTURE_NS: Final = 60_000_000_000  # a change time beyond that tells of a stepped clock only
_TRIED_AGAIN: Final = frozenset(
    {Outcome.SQLITE_FAILED, Outcome.COMMAND_FAILED}
)  # after a while, like what is fuzzy
_OK: Final = Outcome.OK  # what is asked of every file is looked up once: enums are slow to ask
_FUZZY: Final = Outcome.FUZZY
_PLAIN: Final = Texture.PLAIN
_PROFILE: Final = GENERAL.number
_TOGETHER_SIZE_MAX: Final = 32 * 1024  # of a chunk on average: frames are compressed in one call


class Compression(msgspec.Struct, frozen=True):
    """How new frames are compressed."""

    codec: Codec
    level: int


class Effect(NamedTuple):
    """What sealing the frames of one batch did."""

    how: Compression
    plain_bytes: int
    stored_bytes: int
    seconds: float  # running, or ready and without a processor
    cpu_seconds: float


def unnoticed(_: Effect) -> None:
    """Learn nothing from what frames took."""


class SealedContent(msgspec.Struct):
    """New chunks of one batch, sealed."""

    data: SealedBatch | None = None
    new_ids: list[bytes] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)
    chunk_count: int = 0
    duplicate_bytes: int = 0


class Described(msgspec.Struct):
    """Entries of one batch, ready for the commit."""

    intents: list[Intent] = field(default_factory=list)
    good_paths: list[bytes] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    again: list[DirtyPlace] = field(default_factory=list)
    racy: dict[bytes, int] = field(default_factory=dict)  # captured; whether all of it, one look on
    later: list[bytes] = field(default_factory=list)  # fuzzy, failed: read again after a while
    owed: dict[bytes, int] = field(default_factory=dict)  # failed: waiting since
    slipped: list[DirtyPlace] = field(default_factory=list)  # the part of it that was not there
    pages: dict[bytes, bytes] = field(default_factory=dict)  # of chunk lists, by id


def _are_side_by_side(group: Sequence[Piece]) -> bool:
    """Say whether each piece begins where the one before ends."""
    at = group[0].offset
    for _, offset, size in group:
        if offset != at:
            return False
        at += size
    return True


def _content(arena: memoryview, group: Sequence[Piece]) -> Content:
    """Return what becomes one frame."""
    start, end = group[0].offset, group[-1].offset + group[-1].size
    sizes = [size for _, _, size in group]
    ids = b"".join([chunk_id for chunk_id, _, _ in group if chunk_id is not None])
    if _are_side_by_side(group):  # no copy
        return arena[start:end], ids, sizes
    return b"".join([arena[at : at + size] for _, at, size in group]), ids, sizes


class Sealer:
    """Seals batches. Threads may share one."""

    def __init__(
        self,
        writer: VaultWriter,
        index: DedupIndex,
        compression: Callable[[], Compression],
        user_name: Callable[[int], bytes],
        group_name: Callable[[int], bytes],
        sealed: Callable[[Effect], None] = unnoticed,
    ) -> None:
        self._writer = writer
        self._index = index
        self._compression = compression
        self._user_name = user_name
        self._group_name = group_name
        self._sealed = sealed
        self._chunk_id = writer.vault.keys.domain_keys.chunk_id

    # -- content ---------------------------------------------------------------------------------

    def seal_pieces(
        self, arena: memoryview, pieces: Sequence[Piece], lane: Lane, sequence: int
    ) -> SealedContent:
        """Seal the chunks among `pieces` that the vault does not have."""
        first: dict[bytes, Piece] = {}
        chunk_count = total = 0
        for piece in pieces:
            chunk_id, _, size = piece
            if chunk_id is not None:
                chunk_count += 1
                total += size
                first.setdefault(chunk_id, piece)
        new, needs = self._index.claim(list(first), lane, sequence)
        sealed = SealedContent(needs=needs, chunk_count=chunk_count)
        if not new:
            sealed.duplicate_bytes = total
            return sealed
        target = INLINE_FRAME_TARGET if lane[1] == LIVE else PACK_FRAME_TARGET
        sealer = self._writer.sealer(Role.DATA)
        # In the order of the arena: entries that are read singly lie behind those read at once.
        fresh = [piece for chunk_id, piece in first.items() if chunk_id in new]
        fresh.sort(key=_OFFSET)
        self._seal_groups(sealer, arena, _grouped(fresh, target))
        sealed.data = sealer.finish()
        sealed.new_ids = [piece.id for piece in fresh if piece.id is not None]
        sealed.duplicate_bytes = total - sum(piece.size for piece in fresh)
        return sealed

    def _seal_groups(
        self, sealer: FrameSealer, arena: memoryview, groups: Sequence[Sequence[Piece]]
    ) -> None:
        contents = [_content(arena, group) for group in groups]
        size = sum(len(plain) for plain, _, _ in contents)
        how = self._compression()
        ran, waited = work_seconds()  # asks the kernel, which gives the interpreter's lock away
        # Few large chunks: nobody wants the lock so often, and what one frame became stays cached.
        is_small = size < _TOGETHER_SIZE_MAX * sum(len(group) for group in groups)
        frames = []
        for one in [contents] if is_small else [[content] for content in contents]:
            frames += sealer.seal_all(one, codec=how.codec, level=how.level)
        ran_since, waited_since = work_seconds()
        cpu, wait = ran_since - ran, waited_since - waited
        stored = sum(len(frame.data) for frame in frames)
        self._sealed(Effect(how, size, stored, cpu + wait, cpu))

    def seal_pages(self, pages: dict[bytes, bytes], lane: Lane, sequence: int) -> SealedContent:
        """Seal chunk-list pages that the vault does not have, as META frames."""
        new, needs = self._index.claim(list(pages), lane, sequence)
        sealed = SealedContent(needs=needs, chunk_count=len(pages))
        if new:
            sealer = self._writer.sealer(Role.META)
            for page_id in new:
                body = pages[page_id]
                sealer.seal(body, page_id, [len(body)], codec=Codec.ZSTD)
            sealed.data = sealer.finish()
            sealed.new_ids = list(new)
        return sealed

    def key_of(self, source: int, entry: Found) -> bytes:
        """Return what stands for a large file's place in `catalog.cuts`; empty: it has none."""
        if entry.stat.size < FILE_SIZE_MIN:
            return b""
        return self._chunk_id(b"cuts|%d|%d|%b" % (_PROFILE, source, entry.path))

    @staticmethod
    def cuts_of(key: bytes, result: ReadResult) -> Cuts | None:
        """Return what is to be remembered of how a large file was cut."""
        is_of_use = key and result.cuts and not result.is_derived
        return Cuts(key, result.cuts) if is_of_use else None

    # -- entries ---------------------------------------------------------------------------------

    def describe(
        self,
        found: Sequence[Found],
        results: Sequence[ReadResult],
        *,
        read_at_ns: int,
    ) -> Described:
        """Turn read entries into intents; `read_at_ns` is when the reading began.

        What is captured and has to be looked at again is dirty since then; what is not, since its
        change.
        """
        described = Described()
        encoded = iter(self._ordinary_versions(results))
        for entry, result in zip(found, results, strict=True):
            if result.is_ordinary:
                version = next(encoded)
                if result.texture is not _PLAIN:  # the flags, which are none, are the last byte
                    version = version[:-1] + bytes([FLAGS[result.texture]])
                self._describe_ordinary(described, entry, result.stat, version, read_at_ns)
            elif result.outcome is _OK or result.outcome is _FUZZY:
                self._describe_one(described, entry, result, read_at_ns)
            elif result.outcome in {Outcome.VANISHED, Outcome.TYPE_CHANGED}:
                # Nothing of it is captured; it may live on under another name, not yet known.
                place = DirtyPlace(entry.path, Depth.ENTRY, entry.since_us)
                described.again.append(place)
                described.slipped.append(place)
            else:
                trouble = Trouble(entry.path, result.outcome, result.errno, result.detail)
                described.troubles.append(trouble)
                if result.outcome in _TRIED_AGAIN:
                    described.later.append(entry.path)
                    described.owed[entry.path] = entry.since_us
        return described

    def _ordinary_versions(self, results: Sequence[ReadResult]) -> list[bytes]:
        """Return the encoded versions of those results that are ordinary, in one go."""
        ordinary = [result for result in results if result.is_ordinary]
        return batch.versions(
            [result.stat for result in ordinary],
            [result.btime_ns for result in ordinary],
            [result.pieces for result in ordinary],
            _PROFILE,
            self._user_name,
            self._group_name,
        )

    @staticmethod
    def _describe_ordinary(
        described: Described, entry: Found, stat: HostStat, version: bytes, read_at_ns: int
    ) -> None:
        """Do what `_describe_one` does, for what most entries are."""
        parent, name, path, fid, _, _, _, _, is_fresh, generation = entry
        is_racy = -_TICK_NS < stat.ctime_ns - read_at_ns < _FUTURE_NS
        if is_racy:
            described.racy[path] = read_at_ns // 1000
        described.good_paths.append(path)
        described.intents.append(
            Intent(parent, name, fid, stat, version, is_racy, is_fresh, generation)
        )

    def _describe_one(
        self,
        described: Described,
        entry: Found,
        result: ReadResult,
        read_at_ns: int,
    ) -> None:
        stat = result.stat
        is_fuzzy = result.outcome is _FUZZY
        is_racy = -_TICK_NS < stat.ctime_ns - read_at_ns < _FUTURE_NS
        version = self._version(described, stat, result, is_fuzzy=is_fuzzy)
        again = is_fuzzy or is_racy
        if is_fuzzy:
            described.later.append(entry.path)
            described.troubles.append(Trouble(entry.path, Outcome.FUZZY, 0))
        else:
            if result.notice:
                described.troubles.append(Trouble(entry.path, result.notice, 0))
            else:
                described.good_paths.append(entry.path)
            if again:
                described.racy[entry.path] = read_at_ns // 1000
        described.intents.append(
            Intent(
                entry.parent,
                entry.name,
                entry.fid,
                stat,
                version,
                again,
                entry.is_fresh,
                entry.generation,
            )
        )

    def _version(
        self, described: Described, stat: HostStat, result: ReadResult, *, is_fuzzy: bool
    ) -> bytes:
        levels, flags = 0, FLAGS[result.texture]
        runs: Sequence[ContentRun | tuple[bytes | None, int]]
        runs = [(chunk_id, size) for chunk_id, _, size in result.pieces]
        if is_fuzzy:
            flags |= VersionFlag.FUZZY
        if None in [chunk_id for chunk_id, _, _ in result.pieces]:
            flags |= VersionFlag.SPARSE
        if result.is_derived:
            flags |= VersionFlag.DERIVED
        if len(runs) > chunklist.DIRECT_MAX:
            long = [ContentRun(piece.id, piece.size) for piece in result.pieces]
            count = result.tail_count
            levels, runs, pages = chunklist.paginate(long, self._chunk_id, apart=count)
            described.pages.update(pages)
        return batch.version(
            stat,
            result.btime_ns,
            runs,
            profile=GROWING.number if result.tail_count else _PROFILE,
            user=self._user_name(stat.uid),
            group=self._group_name(stat.gid),
            size=result.content_size,
            target=result.target,
            xattrs=result.xattrs,
            levels=levels,
            flags=flags,
        )


def _grouped(pieces: Sequence[Piece], target: int) -> list[list[Piece]]:
    """Put small chunks together into frames of up to `target` bytes; a large one stands alone."""
    groups: list[list[Piece]] = []
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        if group and size + piece.size > target:
            groups.append(group)
            group, size = [], 0
        group.append(piece)
        size += piece.size
    if group:
        groups.append(group)
    return groups
