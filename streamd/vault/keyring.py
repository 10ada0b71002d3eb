"""Open the key ring with what a slot asks for, and publish a new one.

A change of keys or slots makes a new ring under a new key encryption key, then a slot object for
every slot that stays, then the configuration that names the ring: only that puts it in force, and
as its number can be created once, two changes at the same moment cannot both win.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from streamd.effects import Clock, Entropy
from streamd.errors import (
    BlobConflict,
    BlobNotFound,
    FormatUnsupported,
    KeyRejected,
    KeysChanged,
    KitInvalid,
    StorageRefused,
    VaultDamaged,
    VaultMissing,
)
from streamd.format import crypto, layout, ring, slots
from streamd.format.envelope import KeySigner
from streamd.format.keys import PrivateRing
from streamd.format.kit import Kit
from streamd.format.ring import RingContent
from streamd.format.slots import Secret, Slot, Stretcher
from streamd.format.vault_config import VaultConfig, encode_signed, published
from streamd.model.ids import from_text, to_text
from streamd.storage.port import BlobName, BlobStore
from streamd.vault.documents import newest_config, utc_text

_STRETCHES_MAX: Final = 64  # of different parameters: somebody who can add slots cannot stall us


class Unlocked(msgspec.Struct, frozen=True):
    """An opened ring."""

    vault: bytes
    content: RingContent
    slot_id: str  # the slot that opened it
    is_current: bool  # it is the one that the configuration names

    @property
    def edition(self) -> int:
        """Which ring of the vault it is."""
        return self.content.private.edition


class Published(msgspec.Struct, frozen=True):
    """A new ring in force."""

    content: RingContent
    config: VaultConfig
    slot_objects: dict[str, bytes]  # slot id -> slot object
    ring: bytes  # the ring's object
    left_behind: int  # old slots and rings that the storage would not delete


class _Candidate(msgspec.Struct, frozen=True):
    slot: Slot
    rings: tuple[bytes, ...] = ()  # of a kit; empty: those in the vault


class _Unlocking:
    """One attempt to open the ring."""

    def __init__(self, store: BlobStore, secret: Secret, vault: bytes, kit: Kit | None) -> None:
        self._store = store
        self._stretcher = Stretcher(secret)
        self._secret = secret
        self._vault = vault
        self._kit = kit
        self._rings: list[BlobName] = []
        self._rejected: KeyRejected | None = None
        self._unsupported: FormatUnsupported | None = None
        self._in_force = ""

    async def run(self, in_force: str) -> Unlocked:
        """Open the ring called `in_force`, or the newest that can be had."""
        self._in_force = in_force
        scan = self._store.scan(layout.RING_PREFIX)
        names = [info.name async for info in scan if info.size_bytes <= ring.RING_SIZE_MAX]
        self._rings = sorted(n for n in names if layout.parse_ring_name(n) is not None)[::-1]
        self._rings.sort(key=lambda name: name != in_force)
        best: Unlocked | None = None
        for candidate in await self._candidates():
            kek = self._kek(candidate.slot)
            if kek is None:
                continue
            found = await self._ring(candidate, kek, in_force)
            if found is not None and found.is_current:
                return found
            if found is not None and (best is None or best.edition < found.edition):
                best = found
        if best is not None:
            return best
        if self._unsupported is not None:
            raise self._unsupported
        if self._rejected is not None:
            kind = self._secret.kind
            raise KeyRejected(f"the {kind} opens no key slot of this vault") from self._rejected
        raise KeyRejected(f"the vault has no key slot of the kind {self._secret.kind}")

    async def _candidates(self) -> list[_Candidate]:
        spare, wanted = self._spare(), self._kit.slot_id if self._kit else ""
        found: list[_Candidate] = []
        async for info in self._store.scan(layout.SLOT_PREFIX):
            if info.size_bytes > slots.SLOT_SIZE_MAX:
                continue
            try:
                slot = slots.decode_slot(await self._store.get(info.name), self._vault)
            except (VaultDamaged, BlobNotFound):
                continue  # anybody who can write there can add one
            if slot.kind == self._secret.kind:
                found.append(_Candidate(slot))

        def order(each: _Candidate) -> tuple[bool, bool, int]:
            alike = spare is not None and _parameters(each.slot) == _parameters(spare.slot)
            return not alike, each.slot.id != wanted, -each.slot.edition

        found.sort(key=order)
        return [*found, *([] if spare is None else [spare])]

    def _spare(self) -> _Candidate | None:
        if self._kit is None or not self._kit.slot or not self._kit.ring:
            return None
        try:
            slot = slots.decode_slot(self._kit.slot, self._vault)
        except VaultDamaged:
            return None  # a damaged copy is in nobody's way as long as the vault has its own
        return _Candidate(slot, (self._kit.ring,))

    def _kek(self, slot: Slot) -> bytes | None:
        if self._stretcher.count >= _STRETCHES_MAX:
            return None
        try:
            return slots.open_slot(slot, self._stretcher)
        except KeyRejected as error:
            self._rejected = error
        except FormatUnsupported as error:
            self._unsupported = error  # said only if nothing opens: anybody can add such a slot
        except VaultDamaged:
            pass
        return None

    async def _ring(self, candidate: _Candidate, kek: bytes, in_force: str) -> Unlocked | None:
        edition = candidate.slot.edition
        for name in () if candidate.rings else self._rings:
            if edition and layout.parse_ring_name(name) != edition:
                continue
            try:
                data = await self._store.get(name)
                content = ring.decode_ring(data, kek, vault=self._vault)
            except (VaultDamaged, BlobNotFound):
                continue
            return self._opened(candidate.slot, content, is_current=name == in_force)
        for data in candidate.rings:
            try:
                content = ring.decode_ring(data, kek, vault=self._vault)
            except VaultDamaged:
                continue
            return self._opened(candidate.slot, content, is_current=False)
        return None

    def _opened(self, slot: Slot, content: RingContent, *, is_current: bool) -> Unlocked:
        """Make an old slot, which the ring does not know, one of the present kind."""
        if not content.private.slots:
            kem = crypto.kem_of(content.public.kem)
            slot_id = slot.id or to_text(crypto.digest(slot.salt)[: slots.SLOT_ID_SIZE])
            upgraded = slots.upgraded(slot, self._stretcher, kem)
            content = replace_private(content, slots={slot_id: upgraded})
            return Unlocked(self._vault, content, slot_id, is_current or not self._in_force)
        return Unlocked(self._vault, content, slot.id, is_current)


def _parameters(slot: Slot) -> tuple[int, int, int, bytes]:
    return slot.iterations, slot.lanes, slot.memory_kib, slot.salt


async def unlock(store: BlobStore, secret: Secret, *, kit: Kit | None, url: str = "") -> Unlocked:
    """Open the vault's key ring with a secret.

    Raises KeyRejected when nothing opens with it, KitInvalid when the kit is another vault's,
    VaultMissing, and what the store raises. What others added to the vault is passed over.
    """
    shown = await newest_config(store, None)
    is_foreign = kit is not None and shown is not None and shown.id != to_text(kit.vault)
    if shown is None and (kit is None or not kit.ring):
        raise VaultMissing(f"there is no vault at {url or 'this place'}", url=url)
    vault = kit.vault if kit is not None else _shown_id(shown)
    try:
        found = await _Unlocking(store, secret, vault, kit).run(shown.ring if shown else "")
    except KeyRejected as error:
        if is_foreign:
            raise _foreign(kit) from error
        raise
    admin = found.content.public.admin
    if kit is not None and kit.admin and kit.admin != admin:
        raise KitInvalid("the recovery kit belongs to another vault than the one at its address")
    try:
        config = await newest_config(store, admin)
    except VaultDamaged as error:
        if is_foreign:
            raise _foreign(kit) from error
        raise
    if config is not None and config.ring != (shown.ring if shown else ""):
        # something unsigned stood in front of the configuration: look again by the signed one
        found = await _Unlocking(store, secret, vault, kit).run(config.ring)
    return found


def _shown_id(shown: VaultConfig | None) -> bytes:
    try:
        return from_text("" if shown is None else shown.id)
    except ValueError as error:
        raise VaultDamaged("the configuration does not say which vault this is") from error


def _foreign(kit: Kit | None) -> KitInvalid:
    where = f", at {kit.url}: say --vault {kit.url}" if kit is not None and kit.url else ""
    return KitInvalid(f"the recovery kit belongs to another vault than this one{where}")


async def publish(
    store: BlobStore,
    vault: bytes,
    content: RingContent,
    *,
    clock: Clock,
    entropy: Entropy,
    change: Callable[[VaultConfig], VaultConfig] = lambda config: config,
) -> Published:
    """Put a ring of the next edition into force, with every slot of `content`.

    `change` makes other changes of the configuration in the same step. Raises KeysChanged when
    somebody else was faster; nothing is changed then.
    """
    admin = content.private.admin
    config = await newest_config(store, content.public.admin)
    if config is None:
        raise VaultMissing("there is no vault at this place", url="")
    private = msgspec.structs.replace(content.private, edition=content.private.edition + 1)
    content = RingContent(private=private, public=content.public)
    drafted = draft_ring(vault, content, now_us=clock.now_us(), entropy=entropy)
    put: list[BlobName] = []
    for name, data in (drafted.ring, *drafted.slots.values()):
        put.append(BlobName(name))
        await store.put(BlobName(name), data)
    if ring.decode_ring(await store.get(put[0]), drafted.kek, vault=vault) != content:
        raise VaultDamaged("the key ring does not read back as it was written", name=put[0])
    config = change(
        msgspec.structs.replace(
            config,
            number=config.number + 1,
            public=published(content.public),
            ring=drafted.ring[0],
            created=config.created,
        )
    )
    name = BlobName(layout.config_name(config.number))
    try:
        await store.put(name, encode_signed(config, admin))
    except BlobConflict as error:
        await _delete(store, put)
        raise KeysChanged("somebody else changed the keys of the vault just now") from error
    left = await _delete_old(store, vault, private.edition, set(put))
    objects = {slot_id: data for slot_id, (_, data) in drafted.slots.items()}
    return Published(content, config, objects, drafted.ring[1], left)


class DraftedRing(msgspec.Struct, frozen=True):
    """A ring and its slots, not yet put."""

    kek: bytes
    ring: tuple[str, bytes]  # name, data
    slots: dict[str, tuple[str, bytes]]  # slot id -> name, data


def draft_ring(vault: bytes, content: RingContent, *, now_us: int, entropy: Entropy) -> DraftedRing:
    """Return a ring of this content under a new key encryption key, and its slots."""
    private = content.private
    kek = entropy.token(crypto.KEY_SIZE)
    sealed = ring.encode_ring(
        content,
        kek,
        vault=vault,
        now_us=now_us,
        signer=KeySigner(private.admin),
        entropy=entropy,
    )
    kem = crypto.kem_of(content.public.kem)
    made = {
        slot_id: (
            slots.slot_object_name(entropy),
            slots.seal_slot(vault, kem, slot_id, slot, private.edition, kek),
        )
        for slot_id, slot in private.slots.items()
    }
    return DraftedRing(kek, (sealed.name, bytes(sealed.data)), made)


async def _delete_old(store: BlobStore, vault: bytes, edition: int, keep: set[BlobName]) -> int:
    """Delete slots and rings of earlier editions; return how many the storage would not."""
    old: list[BlobName] = []
    async for info in store.scan(layout.SLOT_PREFIX):
        if info.name in keep or info.size_bytes > slots.SLOT_SIZE_MAX:
            continue
        try:
            slot = slots.decode_slot(await store.get(info.name), vault)
        except (VaultDamaged, BlobNotFound):
            continue
        if slot.edition < edition:
            old.append(info.name)
    async for info in store.scan(layout.RING_PREFIX):
        number = layout.parse_ring_name(info.name)
        if number is not None and number < edition:
            old.append(info.name)
    return await _delete(store, old)


async def _delete(store: BlobStore, names: Sequence[BlobName]) -> int:
    refused = 0
    for name in names:
        try:
            await store.delete(name)
        except StorageRefused:
            refused += 1
    return refused


def with_slot(
    content: RingContent, secret: Secret, *, label: str, clock: Clock, entropy: Entropy
) -> tuple[str, RingContent]:
    """Return (slot id, content) with a slot for `secret` added. Takes as long as a stretch."""
    kem = crypto.kem_of(content.public.kem)
    created = utc_text(clock.now_us())
    slot_id, slot = slots.new_slot_key(secret, kem, label=label, created=created, entropy=entropy)
    return slot_id, replace_private(content, slots=content.private.slots | {slot_id: slot})


def replace_private(content: RingContent, **changes: object) -> RingContent:
    """Return `content` with fields of its private half replaced."""
    private: PrivateRing = msgspec.structs.replace(content.private, **changes)
    return RingContent(private=private, public=content.public)


def with_new_pair(content: RingContent) -> RingContent:
    """Return `content` with a new generation of the META and DATA key pairs."""
    kem = crypto.kem_of(content.public.kem)
    generation = max(content.private.meta) + 1
    meta, data = crypto.generate_private(kem), crypto.generate_private(kem)
    public = msgspec.structs.replace(
        content.public,
        generation=generation,
        meta=crypto.public_of(kem, meta),
        data=crypto.public_of(kem, data),
    )
    private = msgspec.structs.replace(
        content.private,
        meta=content.private.meta | {generation: meta},
        data=content.private.data | {generation: data},
    )
    return RingContent(private=private, public=public)
