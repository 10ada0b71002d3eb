"""What is beside the history in a vault: the key ring in force, its slots, and the documents that
restore without streamd. Nobody reads them for months, and then everything depends on them.
"""

import hashlib
import re
from typing import Final

from streamd.errors import BlobNotFound, VaultDamaged
from streamd.format import envelope, layout, slots
from streamd.format.envelope import Kind
from streamd.maintenance.verify_report import Level, VerifyReport
from streamd.storage.port import BlobName
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.vault import Vault

_HASHED: Final = re.compile(r"v/[a-z]+-([0-9a-f]{64})\.[a-z]+")  # a document's name has its SHA-256


async def check_documents(vault: Vault, report: VerifyReport) -> None:
    """Note what is wrong with them, unless the look was at the listing only.

    What somebody else put beside them is passed over.
    Which slots there must be only a host with the full role knows; whether one opens, only who has
    its secret: `streamd key test`.
    """
    if report.level is Level.LIST:
        return
    await _check_ring(vault, report)
    await _check_slots(vault, report)
    async for info in vault.store.scan(layout.DOCUMENT_PREFIX):
        found = _HASHED.fullmatch(info.name)
        if found is None:
            continue
        try:
            data = await vault.store.get(info.name)
        except OBJECT_FAULTS as error:
            report.found(info.name, str(error))
            continue
        if hashlib.sha256(data).hexdigest() != found[1]:
            report.found(info.name, "is not what its name says: restore without streamd needs it")
    name = vault.config.specification
    if name and not [True async for info in vault.store.scan(name) if info.name == name]:
        report.notes.append(f"{name} is missing: it describes every byte of this vault")


async def _check_ring(vault: Vault, report: VerifyReport) -> None:
    name = BlobName(vault.config.ring)
    try:
        data = await vault.store.get(name)
        envelope.parse(data, Kind.RING)
        envelope.verify_signature(data, vault.keys.public.admin)
    except (VaultDamaged, BlobNotFound) as error:
        report.found(name, f"the key ring in force: {error}; change any key to write a new one")


async def _check_slots(vault: Vault, report: VerifyReport) -> None:
    private = vault.keys.host.private
    if private is None or layout.parse_ring_name(vault.config.ring) != private.edition:
        return  # it does not know them, or only those of an earlier ring
    whole = set()
    async for info in vault.store.scan(layout.SLOT_PREFIX):
        if info.size_bytes > slots.SLOT_SIZE_MAX:
            continue
        try:
            slot = slots.decode_slot(await vault.store.get(info.name), vault.keys.vault)
        except OBJECT_FAULTS:
            continue
        if slot.edition == private.edition:
            whole.add(slot.id)
    for slot_id in sorted(set(private.slots) - whole):
        what = "no object in the vault is this key slot: change any key to write it anew"
        report.found(f"{layout.SLOT_PREFIX}{slot_id}", what)
