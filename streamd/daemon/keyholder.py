"""Change the keys of a vault: who may, the change itself, and what this host keeps of it.

A change is allowed to whoever can read everything: a full host that knows the ring in force, or
somebody with a kit. After it the host's key file is brought up to date, and a running daemon told.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from streamd.config.model import Config
from streamd.config.private_files import write_private
from streamd.daemon import control
from streamd.daemon.compose import Stores, copy_control_objects, load_host_key, open_stores
from streamd.daemon.unlocking import KeyOffer, unlock_with
from streamd.effects import Clock, Entropy
from streamd.errors import (
    DaemonUnreachable,
    HostWriteOnly,
    KeyFileInvalid,
    KeysChanged,
    KitInvalid,
    LastSlot,
    NotFound,
    StreamdError,
)
from streamd.format import crypto, layout
from streamd.format.keys import KEY_FILE_FORMAT, HostKey, SlotKey, encode_host_key
from streamd.format.kit import Kit
from streamd.format.ring import RingContent
from streamd.format.slots import Secret
from streamd.format.vault_config import VaultConfig
from streamd.model.ids import ID_SIZE, DomainId, VaultId, WriterId, to_text
from streamd.storage.port import BlobStore
from streamd.vault.documents import certificates, new_certificate, newest_config, put_certificate
from streamd.vault.keyring import (
    Published,
    publish,
    replace_private,
    unlock,
    with_new_pair,
    with_slot,
)

_RELOAD_SECONDS: Final = 30.0
_KEYS_PREFIX: Final = "k/"


class Change(msgspec.Struct, frozen=True):
    """What a change did, besides what was asked for."""

    edition: int
    left_behind: int  # old slots and rings that the storage would not delete
    daemon: str  # reloaded, not running, or why it did not follow


class KeyHolder(msgspec.Struct):
    """A vault whose keys may be changed, and this host's key file."""

    config: Config
    stores: Stores
    host: HostKey | None  # None: this host has no key file of the vault
    content: RingContent
    vault: bytes
    clock: Clock
    entropy: Entropy

    @property
    def record(self) -> BlobStore:
        """Where the vault of record is: keys are changed there first."""
        return self.stores.remote if self.stores.remote is not None else self.stores.local

    async def publish(
        self,
        content: RingContent,
        change: Callable[[VaultConfig], VaultConfig] = lambda config: config,
    ) -> Published:
        """Put a changed ring into force and remember it in the key file. Raises KeysChanged."""
        # The key file of a full host learns new private keys before anybody seals to them.
        known = None if self.host is None else self.host.private
        if self.host is not None and known is not None and known.meta != content.private.meta:
            early = msgspec.structs.replace(
                known, meta=content.private.meta, data=content.private.data
            )
            self.write_host(msgspec.structs.replace(self.host, private=early))
        done = await publish(
            self.record,
            self.vault,
            content,
            clock=self.clock,
            entropy=self.entropy,
            change=change,
        )
        self.content = done.content
        if self.host is not None:
            private = done.content.private if self.host.is_full else None
            self.write_host(
                msgspec.structs.replace(self.host, public=done.content.public, private=private)
            )
        await self.mirror()
        return done

    def write_host(self, host: HostKey) -> None:
        """Replace the host's key file."""
        write_private(self.config.vault.key_file, encode_host_key(host))
        self.host = host

    async def mirror(self) -> None:
        """Bring the control objects of the local copy up to date with the vault of record."""
        if self.stores.remote is None:
            return
        await copy_control_objects(self.stores.remote, self.stores.local)
        there = {info.name async for info in self.stores.remote.scan(_KEYS_PREFIX)}
        for info in [each async for each in self.stores.local.scan(_KEYS_PREFIX)]:
            if info.name not in there:
                await self.stores.local.delete(info.name)

    async def tell_daemon(self) -> str:
        """Make a running daemon take up the key file; return what came of it, in words."""
        try:
            await control.request(
                self.config.daemon.socket, "reload", {}, timeout_seconds=_RELOAD_SECONDS
            )
        except DaemonUnreachable:
            return "not running"
        except StreamdError as error:
            return f"did not follow: {error}"
        return "follows"


@asynccontextmanager
async def open_holder(
    config: Config, offer: KeyOffer, *, clock: Clock, entropy: Entropy
) -> AsyncIterator[KeyHolder]:
    """Lend the means to change keys, with what `offer` opens or with the host's own keys.

    Raises HostWriteOnly or KeysChanged when the host's own are not enough.
    """
    stores = open_stores(config)
    record = stores.remote if stores.remote is not None else stores.local
    try:
        host = own_key(config.vault.key_file)
        if offer.is_made:
            opened = await unlock_with(record, offer, config.vault.url)
            if not opened.is_current:
                raise KeysChanged("what was given opens an old ring only: its slot was revoked")
            content, vault = opened.content, opened.vault
            if host is not None and host.vault != vault:
                host = None
        else:
            content, vault = await _own_content(record, config, host)
        yield KeyHolder(config, stores, host, content, vault, clock, entropy)
    finally:
        await stores.aclose()


def own_key(path: str) -> HostKey | None:
    """Return what the host's key file holds; None if there is none. Raises KeyFileInvalid."""
    return load_host_key(path) if os.path.lexists(path) else None


async def _own_content(
    record: BlobStore, config: Config, host: HostKey | None
) -> tuple[RingContent, bytes]:
    if host is None:
        load_host_key(config.vault.key_file)  # raises what is wrong with it
        raise AssertionError("unreachable")
    if host.private is None:
        raise HostWriteOnly("this host holds no private keys, so it cannot change any")
    newest = await newest_config(record, host.public.admin)
    edition = None if newest is None else layout.parse_ring_name(newest.ring)
    if edition != host.private.edition or not host.private.slots:
        raise KeysChanged("the key ring of the vault is newer than this host's key file")
    return RingContent(private=host.private, public=host.public), host.vault


# -- changes ---------------------------------------------------------------------------------------


async def add_slot(holder: KeyHolder, secret: Secret, label: str) -> tuple[str, Published]:
    """Add a slot for `secret` and return its id."""
    slot_id, content = with_slot(
        holder.content, secret, label=label, clock=holder.clock, entropy=holder.entropy
    )
    return slot_id, await holder.publish(content)


def check_slots(holder: KeyHolder, slot_ids: list[str]) -> dict[str, SlotKey]:
    """Return the slots of the vault. Raises NotFound unless all of `slot_ids` are among them."""
    known = holder.content.private.slots
    for slot_id in slot_ids:
        if slot_id not in known:
            listed = ", ".join(sorted(known))
            raise NotFound(f"there is no key slot {slot_id}; there is: {listed}")
    return known


async def revoke_slots(holder: KeyHolder, slot_ids: list[str]) -> Published:
    """Take slots away: the next ring is under a new key that they do not have.

    Raises NotFound, LastSlot.
    """
    known = check_slots(holder, slot_ids)
    rest = {slot_id: slot for slot_id, slot in known.items() if slot_id not in slot_ids}
    if not rest:
        raise LastSlot("this is the last key slot of the vault")
    return await holder.publish(replace_private(holder.content, slots=rest))


async def rotate_pair(holder: KeyHolder) -> Published:
    """Make a new generation of the META and DATA key pairs; every host seals to it from now on."""
    return await holder.publish(with_new_pair(holder.content))


async def rotate_certificate(holder: KeyHolder, host_name: str) -> int:
    """Give this host's writer a new signing key; return the certificate's number.

    The old key stays good for what it signed. Raises KeyFileInvalid without a key file.
    """
    host = holder.host
    if host is None:
        raise KeyFileInvalid("this host has no key file of the vault", path="vault.key_file")
    writer, domain, vault = WriterId(host.writer), DomainId(host.domain), VaultId(host.vault)
    known = await certificates(
        holder.record, writer, vault=vault, domain=domain, admin=host.public.admin
    )
    signing_key = holder.entropy.token(crypto.KEY_SIZE)
    certificate = new_certificate(
        vault=vault,
        domain=domain,
        writer=writer,
        number=known[0].number + 1,
        signing_key=signing_key,
        host=host_name,
        now_us=holder.clock.now_us(),
    )
    await put_certificate(holder.record, certificate, holder.content.private.admin)
    await holder.mirror()  # whoever reads the local copy must know the key before it is used
    holder.write_host(msgspec.structs.replace(host, signing_key=signing_key))
    return certificate.number


async def join(holder: KeyHolder, host_name: str) -> HostKey:
    """Add this host to the vault, with a domain and a journal of its own; it may write, not read.

    Repeating it after a crash goes on with the key file of the first attempt. Raises
    KeyFileInvalid when the key file is that of a host that has joined already.
    """
    config = await newest_config(holder.record, holder.content.public.admin)
    host = holder.host or new_joined_key(holder)
    domain, writer = to_text(host.domain), to_text(host.writer)
    if config is not None and domain in config.domains:
        path = holder.config.vault.key_file
        raise KeyFileInvalid(f"{path} is there: this host has joined the vault already", path=path)
    holder.write_host(host)
    certificate = new_certificate(
        vault=VaultId(host.vault),
        domain=DomainId(host.domain),
        writer=WriterId(host.writer),
        number=0,
        signing_key=host.signing_key,
        host=host_name,
        now_us=holder.clock.now_us(),
    )
    await put_certificate(holder.record, certificate, holder.content.private.admin)
    known = holder.content.private.domains | {domain: host.domain_secret}
    await holder.publish(
        replace_private(holder.content, domains=known),
        lambda shown: msgspec.structs.replace(shown, domains=shown.domains | {domain: (writer,)}),
    )
    return host


def new_joined_key(holder: KeyHolder) -> HostKey:
    """Draw the keys of a host that joins."""
    token = holder.entropy.token
    return HostKey(
        format=KEY_FILE_FORMAT,
        major=1,
        vault=holder.vault,
        domain=token(ID_SIZE),
        writer=token(ID_SIZE),
        signing_key=token(crypto.KEY_SIZE),
        domain_secret=token(crypto.KEY_SIZE),
        public=holder.content.public,
    )


def make_write_only(holder: KeyHolder) -> None:
    """Take the private keys off this host; the kit that opened `holder` must have all of them.

    Raises KeyFileInvalid, KitInvalid when the kit does not open all that this host can read.
    """
    host = holder.host
    if host is None:
        raise KeyFileInvalid("this host has no key file of the vault", path="vault.key_file")
    if host.private is not None:
        found = holder.content.private
        same = host.private.meta.items() <= found.meta.items()
        if not same or not host.private.data.items() <= found.data.items():
            raise KitInvalid("the recovery kit does not hold all keys of this host")
    if holder.content.private.domains.get(to_text(host.domain)) != host.domain_secret:
        raise KitInvalid("the recovery kit does not hold the secret of this host's domain")
    holder.write_host(msgspec.structs.replace(host, public=holder.content.public, private=None))


def make_full(holder: KeyHolder) -> None:
    """Give this host the private keys of the opened ring. Raises KeyFileInvalid."""
    host = holder.host
    if host is None:
        raise KeyFileInvalid("this host has no key file of the vault", path="vault.key_file")
    holder.write_host(
        msgspec.structs.replace(host, public=holder.content.public, private=holder.content.private)
    )


def kit_of(holder: KeyHolder, slot_id: str, done: Published, created: str) -> Kit:
    """Return the kit for a slot that was just added, without its code."""
    return Kit(
        vault=holder.vault,
        url=holder.config.vault.url,
        admin=holder.content.public.admin,
        slot_id=slot_id,
        created=created,
        slot=done.slot_objects[slot_id],
        ring=done.ring,
    )


async def prove_kit(holder: KeyHolder, secret: Secret, kit: Kit) -> None:
    """Open the vault with a kit as it was read back. Raises KitInvalid, KeyRejected."""
    opened = await unlock(holder.record, secret, kit=kit)
    if opened.content != holder.content:
        raise KitInvalid("the new recovery kit does not open the keys of this vault")
