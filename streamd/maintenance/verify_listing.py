"""Level list: what a listing alone proves. Hardly anything is read.

Names, possible sizes, and journals without holes; and beside the newest index generation, which
remembers what there was: nothing missing, cut off or replaced since. Where the storage lists no
hashes, an object whose time has changed is read, and must prove itself.
"""

from collections.abc import Collection, Mapping
from functools import partial
from itertools import pairwise
from typing import Final

import msgspec
from msgspec import field

from streamd.errors import VaultDamaged
from streamd.format import envelope, layout, pack
from streamd.format.index_run import ObjectRow
from streamd.maintenance.generations import read_doomed
from streamd.maintenance.verify_report import VerifyReport
from streamd.model.ids import WriterId
from streamd.storage.port import BlobInfo, BlobName
from streamd.vault.index_reader import IndexGeneration, newest_index
from streamd.vault.journal_reader import Damage, JournalReader, follows
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.vault import Vault

SUSPECTS_MAX: Final = 64  # objects read because their times changed; more: the vault was copied
LEFT_MAX: Final = 1000  # objects asked for because the listing lacks them
_SIZE_MIN: Final = envelope.HEADER_AT


class _Seen(msgspec.Struct):
    """What the listing showed."""

    has_checkpoint: bool = False
    newest_generation: int = 0  # of condemn lists
    finals: set[int] = field(default_factory=set)
    suspects: list[BlobInfo] = field(default_factory=list)


class ListingCheck:
    """Checks one listing. `known` maps names that this host remembers to sizes, if it does.

    `stored` are those of them that were in the vault of record before the listing.
    """

    def __init__(
        self,
        vault: Vault,
        report: VerifyReport,
        known: Mapping[str, int] | None = None,
        stored: Collection[str] = (),
    ) -> None:
        self._vault = vault
        self._report = report
        self._known = known
        self._left = set(stored)  # what the listing has not shown yet

    async def run(self, journals: list[JournalReader]) -> None:
        """Check it. Raises what the store raises when it cannot be reached."""
        wrong: list[Damage] = []
        index = await newest_index(self._vault, wrong)
        for damage in wrong:
            self._report.found(damage.name, damage.what)
        expected = {} if index is None else index.objects()
        seen = await self._scan(expected)
        for journal in journals:
            await self._check_density(journal, has_checkpoint=seen.has_checkpoint)
        await self._check_missing(expected, index, seen)
        await self._check_left()
        await self._check_suspects(seen.suspects)

    async def _scan(self, expected: dict[BlobName, ObjectRow]) -> _Seen:
        """Go through the listing; what is there is taken out of `expected`."""
        seen, report = _Seen(), self._report
        async for info in self._vault.store.scan(layout.domain_prefix(self._vault.keys.domain)):
            report.object_count += 1
            report.object_bytes += info.size_bytes
            row = expected.pop(info.name, None)
            self._left.discard(info.name)
            if not is_known_name(info.name):
                report.strangers.append(info.name)
                continue
            seen.has_checkpoint |= layout.parse_checkpoint_name(info.name) is not None
            condemned = layout.parse_condemn_name(info.name)
            if condemned is not None:
                seen.newest_generation = max(seen.newest_generation, condemned[0])
                if condemned[1]:
                    seen.finals.add(condemned[0])
            fault = size_fault(info)
            if fault:
                report.found(info.name, fault)
            elif row is not None:
                self._compare(info, row, seen)
            elif self._is_extra(info):
                report.strangers.append(info.name)
        return seen

    def _compare(self, info: BlobInfo, row: ObjectRow, seen: _Seen) -> None:
        if info.size_bytes != row.size:
            self._report.found(
                info.name, f"has {info.size_bytes} bytes and had {row.size}: cut off or replaced"
            )
        elif row.md5 and info.md5:
            if row.md5 != info.md5:
                self._report.found(info.name, "its content has another MD5: it was replaced")
        elif row.modified_us and info.modified_us != row.modified_us:
            seen.suspects.append(info)

    def _is_extra(self, info: BlobInfo) -> bool:
        """Whether this host, which remembers all that it has put, never put this."""
        is_pack = layout.parse_pack_name(info.name) is not None
        return self._known is not None and is_pack and info.name not in self._known

    async def _check_density(self, journal: JournalReader, *, has_checkpoint: bool) -> None:
        """Collection removes segments from the front only: whatever is left must be dense."""
        rows = await journal.list_segments()
        for last, row in pairwise(rows):
            if not follows(row.position, last.position):
                what = "segments between this one and the one before are missing"
                self._report.found(row.name, what)
        if rows and rows[0].position.seq and not has_checkpoint:
            what = "the journal's beginning is gone, and there is no checkpoint"
            self._report.found(rows[0].name, what)

    async def _check_missing(
        self,
        missing: dict[BlobName, ObjectRow],
        index: IndexGeneration | None,
        seen: _Seen,
    ) -> None:
        """What the index knows and the listing lacks must have been deleted in good order."""
        if index is None or not missing:
            return
        since = range(index.manifest.condemned + 1, seen.newest_generation + 1)
        if not seen.finals.issuperset(since):
            self._report.notes.append(
                "objects were deleted since the index was written: the next one proves more"
            )
            return
        doomed = await read_doomed(self._vault)
        for name in missing:
            if name not in doomed:
                self._report.found(name, "missing: it was there, and nothing has deleted it")

    async def _check_left(self) -> None:
        """What this host has put, and nothing has deleted, must be there: the journal's end, too.

        That packs are needed shows elsewhere, and what nobody needs, or was healed, is no loss.
        One listing is not believed: each is asked for by its name.
        """
        left = sorted(name for name in self._left if _is_history(name))
        doomed = await read_doomed(self._vault) if left else set()
        for name in [name for name in left if name not in doomed][:LEFT_MAX]:
            try:
                await self._vault.store.get(BlobName(name), offset=0, size=1)
            except OBJECT_FAULTS as error:
                self._report.found(
                    name, f"this host has put it, and nothing has deleted it: {error}"
                )

    async def _check_suspects(self, suspects: list[BlobInfo]) -> None:
        if len(suspects) > SUSPECTS_MAX:
            self._report.notes.append(
                f"the times of {len(suspects)} objects have changed: was the vault copied? "
                "Level full proves their content"
            )
            return
        for info in suspects:
            try:
                data = await self._vault.store.get(info.name)
                self._report.read_bytes += len(data)
                await in_thread(partial(prove, self._vault, info.name, data))
            except OBJECT_FAULTS as error:
                self._report.found(info.name, f"it was replaced: {error}")


def prove(vault: Vault, name: str, data: bytes) -> None:
    """Raise VaultDamaged unless an object is what its name and its signature say."""
    if layout.parse_pack_name(name) is not None:
        pack.verify_pack_name(name, data)
        return
    kinds = [kind for kind in envelope.Kind if kind.encode() == data[8:9]]
    if not kinds:
        raise VaultDamaged("an object of no known kind")
    header = envelope.parse(data, kinds[0]).header
    verify_key = vault.verify_keys.get(WriterId(header.w))
    if verify_key is None:
        raise VaultDamaged("its writer has no certificate")
    envelope.verify_signature(data, verify_key)


def is_known_name(name: str) -> bool:
    """Say whether a name has one of the forms of the format."""
    return any(
        parse(name) is not None
        for parse in (
            layout.parse_segment_name,
            layout.parse_epoch_name,
            layout.parse_pack_name,
            layout.parse_checkpoint_name,
            layout.parse_condemn_name,
            layout.parse_history_name,
            layout.parse_index_name,
        )
    )


def _is_history(name: str) -> bool:
    return any(
        parse(name) is not None
        for parse in (
            layout.parse_segment_name,
            layout.parse_epoch_name,
            layout.parse_checkpoint_name,
        )
    )


def size_fault(info: BlobInfo) -> str:
    """Say what is wrong with an object's size: padding leaves few sizes possible."""
    size = info.size_bytes
    if not _SIZE_MIN < size <= envelope.OBJECT_SIZE_MAX:
        return f"{size} bytes are no possible size"
    if layout.parse_epoch_name(info.name) is not None:
        return ""  # the only kind that is not padded
    is_pack = layout.parse_pack_name(info.name) is not None
    padded = pack.padded_pack_size(size) if is_pack else envelope.padme(size)
    return "" if padded == size else "cut off: its size is none that padding leaves"
