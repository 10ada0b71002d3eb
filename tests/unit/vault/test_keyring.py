"""A change of keys is all or nothing, whatever fails at whichever step, and whoever else changes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from golden.materials import CountedEntropy, fixed

from streamd.effects import SystemClock
from streamd.errors import KeyRejected, KeysChanged, StorageRefused, VaultDamaged, VaultUnreachable
from streamd.format import layout
from streamd.format.crypto import Kem
from streamd.format.keys import HostKey
from streamd.format.ring import RingContent
from streamd.format.slots import Secret, SlotKind
from streamd.model.ids import VaultId
from streamd.storage.memory import MemoryBlobStore
from streamd.storage.port import BlobName, Bytes
from streamd.vault.documents import certificates, newest_config, put_certificate, revoked
from streamd.vault.keyring import publish, replace_private, unlock, with_new_pair, with_slot
from streamd.vault.vault import create_vault, open_vault

CODE = "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF-GGGG-HHHH"
SECRET = Secret(SlotKind.RECOVERY_CODE, CODE.encode())
OTHER = Secret(SlotKind.PASSPHRASE, b"another way to open it")
CLOCK = SystemClock()


class Fragile(MemoryBlobStore):
    """Fails at the n-th write, before or after it was carried out."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.left, self.after, self.refuses_delete = 1 << 30, False, False

    async def put(self, name: BlobName, data: Bytes) -> None:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise VaultUnreachable("cut off", url="x")
        await super().put(name, data)
        if self.left < 0:
            raise VaultUnreachable("cut off after it arrived", url="x")

    async def delete(self, name: BlobName) -> None:
        if self.refuses_delete:
            raise StorageRefused(f"{name} is locked", action="delete")
        self.left -= 1
        if self.left < 0:
            raise VaultUnreachable("cut off", url="x")
        await super().delete(name)

    def names(self) -> list[str]:
        return sorted(self._blobs)

    def sneak(self, name: str, data: bytes) -> None:
        """Put what nobody asked for."""
        self._blobs[BlobName(name)] = (data, 0)

    def heal(self) -> None:
        self.left = 1 << 30


@dataclass
class Made:
    """A vault with one recovery code."""

    store: Fragile = field(default_factory=Fragile)
    entropy: CountedEntropy = field(default_factory=CountedEntropy)
    host: HostKey | None = None

    @property
    def vault(self) -> bytes:
        assert self.host is not None
        return self.host.vault

    @property
    def content(self) -> RingContent:
        assert self.host is not None
        assert self.host.private is not None
        return RingContent(private=self.host.private, public=self.host.public)

    async def publish(self, content: RingContent, **options: object) -> RingContent:
        done = await publish(
            self.store, self.vault, content, clock=CLOCK, entropy=self.entropy, **options
        )
        return done.content

    async def opened(self, secret: Secret = SECRET) -> RingContent:
        return (await unlock(self.store, secret, kit=None)).content


async def make() -> Made:
    made = Made()
    created = await create_vault(
        made.store,
        host_name="host",
        clock=CLOCK,
        entropy=made.entropy,
        recovery_code=CODE,
        kem=Kem.X25519,
    )
    made.host = created.host_key
    return made


def two_slots(made: Made) -> RingContent:
    return with_slot(made.content, OTHER, label="two", clock=CLOCK, entropy=made.entropy)[1]


CHANGES: dict[str, Callable[[Made], RingContent]] = {
    "new pair": lambda made: with_new_pair(made.content),
    "new slot": two_slots,
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_whichever_write_fails_the_vault_opens_and_the_change_can_be_repeated(
    change: str, after: bool
) -> None:
    async def attempt(step: int) -> bool:
        """Fail at one write; return whether the change needed fewer."""
        made = await make()
        before = made.content
        made.store.left, made.store.after = step, after
        try:
            await made.publish(CHANGES[change](made))
        except VaultUnreachable:
            is_over = False
        else:
            is_over = True
        made.store.heal()
        opened = await made.opened()
        assert opened.private.meta.items() >= before.private.meta.items()
        config = await newest_config(made.store, opened.public.admin)
        assert config is not None
        assert config.public is not None
        assert config.public.generation in opened.private.meta, "nobody seals to a lost key"
        assert layout.parse_ring_name(config.ring) == opened.private.edition
        again = await made.publish(with_new_pair(opened))
        assert await made.opened() == again
        return is_over

    step = 0
    while not asyncio.run(attempt(step)):
        step += 1
    assert step >= 3  # ring, slot, configuration


def test_of_two_changes_at_once_one_wins_and_the_other_leaves_nothing() -> None:
    async def run() -> None:
        made = await make()
        first = await made.publish(with_new_pair(made.content))
        left = set(made.store.names())
        with pytest.raises(KeysChanged):
            await raced(made, made.content)
        assert await made.opened() == first
        assert set(made.store.names()) == left

    async def raced(made: Made, stale: RingContent) -> None:
        """Publish from the same configuration that the winner started from."""
        name = BlobName(layout.config_name(1))
        winner = await made.store.get(name)
        await made.store.delete(name)

        def put_back(config):
            made.store.sneak(name, winner)
            return config

        await made.publish(with_new_pair(stale), change=put_back)

    asyncio.run(run())


def test_a_storage_that_deletes_nothing_keeps_the_old_ones_and_it_is_said() -> None:
    async def run() -> None:
        made = await make()
        made.store.refuses_delete = True
        done = await publish(
            made.store, made.vault, two_slots(made), clock=CLOCK, entropy=made.entropy
        )
        assert done.left_behind == 2
        alone = {k: v for k, v in done.content.private.slots.items() if v.kind == "passphrase"}
        await made.publish(replace_private(done.content, slots=alone))
        opened = await unlock(made.store, SECRET, kit=None)
        assert not opened.is_current, "the old slot still opens the old ring, and no other"
        assert (await unlock(made.store, OTHER, kit=None)).is_current

    asyncio.run(run())


def test_a_slot_that_somebody_adds_is_not_one_of_the_ring() -> None:
    async def run() -> None:
        made = await make()
        stranger = await make()
        stranger.host = msgspec.structs.replace(stranger.host, vault=made.vault)
        foreign = with_slot(
            stranger.content, OTHER, label="x", clock=CLOCK, entropy=CountedEntropy("other")
        )[1]
        await publish(stranger.store, made.vault, foreign, clock=CLOCK, entropy=CountedEntropy("o"))
        for name in stranger.store.names():
            if name.startswith("k/"):
                made.store.sneak(name, await stranger.store.get(BlobName(name)))
        with pytest.raises((KeyRejected, VaultDamaged)):
            await unlock(made.store, OTHER, kit=None)
        assert await made.opened() == made.content
        await made.publish(with_new_pair(made.content))
        assert {s.kind for s in (await made.opened()).private.slots.values()} == {"recovery-code"}

    asyncio.run(run())


def test_a_revoked_certificate_is_believed_up_to_its_instant_by_an_opened_vault() -> None:
    async def run() -> None:
        made = await make()
        assert made.host is not None
        vault = await open_vault(made.store, made.host)
        writer = vault.keys.writer
        [known] = await certificates(
            made.store,
            writer,
            vault=VaultId(made.vault),
            domain=vault.keys.domain,
            admin=made.host.public.admin,
        )
        admin = made.content.private.admin
        await put_certificate(made.store, revoked(known, number=1, from_us=77), admin)
        [key] = (await open_vault(made.store, made.host)).verify_keys[writer]
        assert key.revoked_from_us == 77
        with pytest.raises(KeysChanged):
            other = msgspec.structs.replace(known, public=fixed("x").hex(), number=1)
            await put_certificate(made.store, other, admin)

    asyncio.run(run())
