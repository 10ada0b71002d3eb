"""Open a vault with its recovery kit, a passphrase or a key file, for one process only.

What a host may read is what its key file holds; with a kit, a command may read more, and forgets it
when it ends. Nothing here writes a key to a disk.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec.structs import replace

from streamd.config.model import Config
from streamd.config.private_files import read_private
from streamd.daemon.compose import (
    behind,
    load_host_key,
    minding_layers,
    open_reading_store,
    open_vault_for_reading,
    past_rot,
)
from streamd.errors import KeyFileInvalid, KitInvalid, NotFound, SecretUnreadable, SecretUnusable
from streamd.format import keys
from streamd.format.keys import HostKey
from streamd.format.kit import KIT_SIZE_MAX, Kit, decode_kit
from streamd.format.slots import Secret, SlotKind
from streamd.model.ids import DomainId, VaultId, WriterId, from_text
from streamd.observe.logging import get_logger, register_secret
from streamd.storage.port import BlobStore
from streamd.storage.rate import ByteRate
from streamd.vault.documents import certificates, newest_config
from streamd.vault.keyring import Unlocked, unlock
from streamd.vault.vault import Vault, open_vault

_OTHERS: Final = 0o077
_LOG: Final = get_logger("keys")
_SECRET_SIZE_MAX: Final = 65_536
_CREDENTIALS: Final = {
    SlotKind.RECOVERY_CODE: "streamd-recovery-code",
    SlotKind.PASSPHRASE: "streamd-passphrase",
    SlotKind.KEY_FILE: "streamd-slot-key",
}


class KeyOffer(msgspec.Struct, frozen=True):
    """What was named on the command line to open the vault with."""

    kit: str | None = None
    code_file: str | None = None
    passphrase_file: str | None = None
    key_file: str | None = None
    host: str | None = None  # whose history, where the vault has several hosts
    ask: Callable[[str], str] | None = None  # a person at a terminal

    @property
    def is_made(self) -> bool:
        """Whether anything was named."""
        return any((self.kit, self.code_file, self.passphrase_file, self.key_file))


def read_kit(path: str) -> Kit:
    """Read a recovery kit. Raises KitInvalid, SecretUnreadable."""
    if not os.path.lexists(path):
        raise KitInvalid(f"there is no recovery kit at {path}", path=path)
    try:
        with open(path, "rb") as file:  # a kit without its code may be readable by others
            data = file.read(KIT_SIZE_MAX + 1)
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}", path=path) from error
    if len(data) > KIT_SIZE_MAX:
        raise KitInvalid(f"{path} is too long to be a recovery kit", path=path)
    kit = decode_kit(data)
    if kit.code:
        register_secret(kit.code)
        if os.stat(path).st_mode & _OTHERS:  # removable disks often have no modes to set
            _LOG.warning("kit-readable", path=path, what="others can read the code in the kit")
    return kit


def read_offer(offer: KeyOffer) -> tuple[Secret, Kit | None]:
    """Return the secret that was offered, and the kit if there is one.

    A file goes before a systemd credential, before what the kit itself holds, before asking.
    Raises SecretUnusable if there is none, KitInvalid, SecretUnreadable.
    """
    kit = None if offer.kit is None else read_kit(offer.kit)
    files = {
        SlotKind.PASSPHRASE: offer.passphrase_file,
        SlotKind.KEY_FILE: offer.key_file,
        SlotKind.RECOVERY_CODE: offer.code_file,
    }
    named = [(kind, path) for kind, path in files.items() if path is not None]
    if len(named) > 1:
        raise SecretUnusable("name one of passphrase, key file and recovery code, not several")
    if named:
        return read_secret_file(*named[0]), kit
    credential = _credential(SlotKind.RECOVERY_CODE)
    if credential is not None:
        return read_secret_file(SlotKind.RECOVERY_CODE, credential), kit
    if kit is not None and kit.code:
        return _registered(Secret(SlotKind.RECOVERY_CODE, kit.code.encode())), kit
    if offer.ask is None:
        raise SecretUnusable("the recovery code is not in the kit, and nobody is there to ask")
    return _registered(Secret(SlotKind.RECOVERY_CODE, offer.ask("Recovery code: ").encode())), kit


def _credential(kind: SlotKind) -> str | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, _CREDENTIALS[kind]) if directory else ""
    return path if path and os.path.exists(path) else None


def read_secret_file(kind: SlotKind, path: str) -> Secret:
    """Read a secret of a slot. Raises SecretUnreadable, SecretUnusable."""
    data = read_private(path, _SECRET_SIZE_MAX)
    if kind is not SlotKind.KEY_FILE:
        data = data.rstrip(b"\r\n")
    if not data:
        raise SecretUnusable(f"{path} is empty")
    return _registered(Secret(kind, data))


def _registered(secret: Secret) -> Secret:
    if secret.kind is not SlotKind.KEY_FILE:
        register_secret(secret.value.decode("utf-8", "replace"))
    return secret


async def unlock_with(store: BlobStore, offer: KeyOffer, url: str = "") -> Unlocked:
    """Open the key ring of the vault in `store`. Raises what `vault.keyring.unlock` raises."""
    secret, kit = read_offer(offer)
    return await unlock(store, secret, kit=kit, url=url)


@asynccontextmanager
async def open_vault_unlocked(
    config: Config, offer: KeyOffer, *, receiving: ByteRate | None = None
) -> AsyncIterator[Vault]:
    """Lend the vault to a command that only reads, with the keys that `offer` opens.

    Without an offer, with those of the host's key file.
    """
    if not offer.is_made:
        async with open_vault_for_reading(config, receiving=receiving) as vault:
            yield vault
        return
    url = config.vault.url
    store = open_reading_store(config, receiving=receiving)

    async def opened(where: BlobStore) -> Vault:
        unlocked = await unlock(where, secret, kit=kit, url=url)
        host_key = await reading_key(where, unlocked, config.vault.key_file, offer.host)
        return await open_vault(where, host_key, url=url)

    try:
        secret, kit = read_offer(offer)
        vault = await past_rot(store, behind(store), opened)
        yield minding_layers(replace(vault, store=store))
    finally:
        await store.aclose()


async def reading_key(
    store: BlobStore, unlocked: Unlocked, key_file: str, host: str | None
) -> HostKey:
    """Return keys that read the history of one host: this one's, the only one's, or `host`'s.

    Raises NotFound when the vault has several and none is named.
    """
    own = None if host is not None else _own_key(key_file)
    if own is not None and own.vault == unlocked.vault:
        return full_key(own, unlocked)
    config = await newest_config(store, unlocked.content.public.admin)
    domains = {} if config is None else config.domains
    known = unlocked.content.private.domains
    names: dict[str, tuple[str, str]] = {}
    for domain, writers in domains.items():
        for writer in writers if domain in known else ():
            found = await certificates(
                store,
                WriterId(from_text(writer)),
                vault=VaultId(unlocked.vault),
                domain=DomainId(from_text(domain)),
                admin=unlocked.content.public.admin,
            )
            names[domain] = (found[0].host, writer)
    if host is None and len(names) > 1:
        listed = ", ".join(sorted(name for name, _ in names.values()))
        raise NotFound(f"the vault has several hosts: say which with --host ({listed})")
    for domain, (name, writer) in names.items():
        if host is None or host in {name, domain}:
            return HostKey(
                format=keys.KEY_FILE_FORMAT,
                major=1,
                vault=unlocked.vault,
                domain=from_text(domain),
                writer=from_text(writer),
                signing_key=b"",  # it reads: nothing is signed with it
                domain_secret=known[domain],
                public=unlocked.content.public,
                private=unlocked.content.private,
            )
    raise NotFound(f"the vault has no host called {host}" if host else "the vault has no host")


def _own_key(path: str) -> HostKey | None:
    try:
        return load_host_key(path)
    except (KeyFileInvalid, SecretUnreadable):
        return None  # whoever has the kit needs no key file


def full_key(own: HostKey, unlocked: Unlocked) -> HostKey:
    """Return this host's keys with the private ones that were unlocked."""
    return msgspec.structs.replace(
        own, public=unlocked.content.public, private=unlocked.content.private
    )
