"""Levels sample and full: frames are read, decrypted, decompressed, and every chunk hashed."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import field

from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, pack
from streamd.format.keys import Role
from streamd.maintenance.verify_report import FrameId, VerifyReport
from streamd.policy.sampling import allot
from streamd.storage.port import BlobInfo, BlobName
from streamd.vault.chunk_reader import ChunkReader, Holder, ReadJob
from streamd.vault.parallel import OBJECT_FAULTS, in_thread, in_waves
from streamd.vault.vault import Vault

_PACK_WIDTH: Final = 4  # whole packs in memory at a time
_FRAME_WIDTH: Final = 8
_DAY_US: Final = 86_400_000_000
_AGES_US: Final = (_DAY_US, 7 * _DAY_US, 30 * _DAY_US)  # strata: up to these ages, and older


class _Stratum(msgspec.Struct):
    """Frames of one role and age: how many there are, and a fair sample of them."""

    count: int = 0
    drawn: list[FrameId] = field(default_factory=list)

    def offer(self, frame: FrameId, size: int, draw: random.Random) -> None:
        """Keep `size` of all that were ever offered, each with the same chance."""
        self.count += 1
        if len(self.drawn) < size:
            self.drawn.append(frame)
            return
        at = draw.randrange(self.count)
        if at < size:
            self.drawn[at] = frame


class ContentCheck:
    """Opens frames and notes those that do not open in the report."""

    def __init__(self, vault: Vault, chunks: ChunkReader, report: VerifyReport) -> None:
        self._vault = vault
        self._chunks = chunks
        self._report = report

    # -- a part ----------------------------------------------------------------------------------

    async def sample(self, size: int, seed: int, now_us: int) -> None:
        """Open `size` frames, drawn at random from every role and age."""
        draw = random.Random(seed)  # noqa: S311 - the same seed must draw the same again
        strata: dict[tuple[Role, int], _Stratum] = {}
        async for holder in self._chunks.holders():
            age_us = now_us - holder.frames.created_us
            place = holder.role, sum(age_us > limit for limit in _AGES_US)
            stratum = strata.setdefault(place, _Stratum())
            for row in holder.frames.table.frames:
                frame = FrameId(holder.name, holder.role, row.first_chunk)
                stratum.offer(frame, size, draw)
        ordered = [strata[place] for place in sorted(strata)]
        wanted: dict[BlobName, list[FrameId]] = {}
        shares = allot(size, [stratum.count for stratum in ordered])
        for stratum, share in zip(ordered, shares, strict=True):
            draw.shuffle(stratum.drawn)
            for frame in stratum.drawn[:share]:
                wanted.setdefault(frame.name, []).append(frame)
        async for frames, failure in in_waves(
            [wanted[name] for name in sorted(wanted)], self._open_some, width=_FRAME_WIDTH
        ):
            if isinstance(failure, Exception):
                self._report.found(frames[0].name, str(failure))

    async def _open_some(self, frames: Sequence[FrameId]) -> None:
        wanted = {(frame.role, frame.first_chunk) for frame in frames}
        for holder in await self._chunks.holders_of(frames[0].name):
            for row in holder.frames.table.frames:
                if (holder.role, row.first_chunk) not in wanted:
                    continue
                job = ReadJob(holder, (row,))
                self._report.sampled_count += 1
                try:
                    data = await self._chunks.read(job)
                except OBJECT_FAULTS as error:
                    self._is_bad(holder, job, str(error))
                    continue
                self._report.read_bytes += len(data)
                await self._open(job, memoryview(data))

    # -- everything ------------------------------------------------------------------------------

    async def everything(self) -> None:
        """Read every pack and every segment with frames, whole."""
        domain = self._vault.keys.domain
        packs = [
            info
            async for info in self._vault.store.scan(layout.pack_prefix(domain))
            if layout.parse_pack_name(info.name) is not None
        ]
        async for info, result in in_waves(packs, self._read_pack, width=_PACK_WIDTH):
            if isinstance(result, Exception):
                self._report.found(info.name, str(result))
        async for holder in self._chunks.holders():
            if layout.parse_pack_name(holder.name) is None:
                await self._read_inline(holder)

    async def _read_pack(self, info: BlobInfo) -> None:
        try:
            data = await self._vault.store.get(info.name)
        except OBJECT_FAULTS:
            await self._all_bad(info.name)
            raise
        self._report.read_bytes += len(data)
        frames = pack.decode_pack_index(data, self._vault.keys.secret_for)
        number = envelope.parse(data, envelope.Kind.PACK).header.r
        if number not in (Role.DATA, Role.META):
            raise VaultDamaged("the pack holds frames of no known role")
        await self._open_all(Holder(info.name, info.size_bytes, Role(number), frames), data)
        await in_thread(partial(pack.verify_pack_name, info.name, data))

    async def _all_bad(self, name: BlobName) -> None:
        for holder in await self._chunks.holders_of(name):
            for row in holder.frames.table.frames:
                self._report.bad_frames.add(FrameId(name, holder.role, row.first_chunk))

    async def _read_inline(self, holder: Holder) -> None:
        try:
            data = await self._vault.store.get(holder.name)
            self._report.read_bytes += len(data)
            await self._open_all(holder, data)
        except OBJECT_FAULTS as error:
            self._report.found(holder.name, str(error))
            await self._all_bad(holder.name)

    async def _open_all(self, holder: Holder, data: bytes) -> None:
        rows = holder.frames.table.frames
        if rows:
            job = ReadJob(holder, tuple(rows))
            await self._open(job, memoryview(data)[job.offset :])

    async def _open(self, job: ReadJob, part: memoryview) -> None:
        """Open the frames of a job one after the other: no two plaintexts at a time."""

        def check() -> list[tuple[int, str]]:
            return [
                (row.first_chunk, str(plain))
                for row, plain in self._chunks.open_frames(job, part)
                if isinstance(plain, VaultDamaged)
            ]

        for first_chunk, what in await in_thread(check):
            self._report.found(job.holder.name, what)
            self._report.bad_frames.add(FrameId(job.holder.name, job.holder.role, first_chunk))

    def _is_bad(self, holder: Holder, job: ReadJob, what: str) -> None:
        self._report.found(holder.name, what)
        for row in job.rows:
            self._report.bad_frames.add(FrameId(holder.name, holder.role, row.first_chunk))
