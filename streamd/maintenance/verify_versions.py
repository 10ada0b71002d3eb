"""Damage that an earlier version undoes: said beside it, so that nobody takes it for a loss."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from streamd.errors import StorageRefused
from streamd.maintenance.verify_listing import is_known_name, prove
from streamd.maintenance.verify_report import VerifyReport
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.journal_reader import Damage
from streamd.vault.parallel import OBJECT_FAULTS, in_thread
from streamd.vault.vault import Vault

LOOKED_AT_MAX: Final = 1000  # of the damaged objects: each costs a listing and a whole object
WHOLE: Final = "an earlier version of it is whole, and is read instead"


async def note_versions(vault: Vault, report: VerifyReport, earlier: Sequence[BlobStore]) -> None:
    """Add to what is said about each damaged object whether an earlier version of it is whole."""
    names = {damage.name for damage in report.damage if is_known_name(BlobName(damage.name))}
    for name in sorted(names)[:LOOKED_AT_MAX] if earlier else ():
        if await _is_whole_in(vault, BlobName(name), earlier):
            report.damage = [
                Damage(one.name, f"{one.what}; {WHOLE}") if one.name == name else one
                for one in report.damage
            ]


async def _is_whole_in(vault: Vault, name: BlobName, earlier: Sequence[BlobStore]) -> bool:
    for store in earlier:
        try:
            await in_thread(partial(prove, vault, name, await store.get(name)))
        except (*OBJECT_FAULTS, StorageRefused):
            continue
        return True
    return False
