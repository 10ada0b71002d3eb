"""The composition root: the only place that chooses stores, and opens a vault from a configuration.

A directory vault is written directly. A container has a directory vault in front of it, at
`local.path`:
everything is durable there first, and the uploader copies it. Readers look there first, too.
"""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec.structs import replace

from streamd.config.model import Config
from streamd.effects import Clock, Entropy, SystemClock, SystemEntropy
from streamd.errors import (
    ConfigInvalid,
    KeyFileInvalid,
    KeyRejected,
    SecretUnreadable,
    VaultMissing,
)
from streamd.format.keys import HostKey, decode_host_key
from streamd.format.layout import CONFIG_PREFIX
from streamd.observe.logging import get_logger
from streamd.storage.layered import LayeredBlobStore
from streamd.storage.local import LocalBlobStore
from streamd.storage.port import BlobName, BlobStore
from streamd.storage.rate import ByteRate
from streamd.storage.versions import VersionedBlobStore
from streamd.vault.parallel import OBJECT_FAULTS
from streamd.vault.vault import Vault, no_other_layer, open_vault

if TYPE_CHECKING:  # of a container; a vault in a directory needs nothing of that
    from streamd.daemon.remote import RemoteObserver
    from streamd.storage.uplink import Uplink

READ_GIVE_UP_SECONDS: Final = 30.0
_KEY_FILE_SIZE_MAX: Final = 1 << 20
_CONTROL_PREFIXES: Final = ("README.txt", "k/", "v/", "w/")
_OTHERS: Final = 0o077
_ROT: Final = (*OBJECT_FAULTS, VaultMissing, KeyRejected)  # what rotten control objects lead to
_LOG: Final = get_logger("storage")

T = TypeVar("T")


class Stores(msgspec.Struct, frozen=True):
    """Where objects go and come from."""

    local: LocalBlobStore  # written first; the vault itself when there is no `remote`
    remote: BlobStore | None
    reading: BlobStore
    uplink: "Uplink | None" = None  # the way to `remote`
    earlier: tuple[BlobStore, ...] = ()  # versions that `remote` may have kept, to be tried in turn

    async def aclose(self) -> None:
        """Close what is open."""
        await self.reading.aclose()


def open_stores(
    config: Config,
    *,
    create: bool = False,
    observer: "RemoteObserver | None" = None,
    give_up_after_seconds: float | None = READ_GIVE_UP_SECONDS,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    sending: ByteRate | None = None,
    receiving: ByteRate | None = None,
) -> Stores:
    """Return the stores of a configuration. Raises ConfigInvalid, SecretUnreadable.

    What goes to and comes from a container keeps to the rates `sending` and `receiving`, if any.
    """
    directory = config.vault.directory
    if directory is not None:
        local = LocalBlobStore(directory, create=create)
        return Stores(local, None, local)
    if config.local is None:
        raise ConfigInvalid("a container vault needs a [local] table: the spool in front of it")
    from streamd.daemon.remote import open_remote

    uplink, remote, earlier = open_remote(
        config,
        observer=observer,
        clock=clock or SystemClock(),
        entropy=entropy or SystemEntropy(),
        give_up_after_seconds=give_up_after_seconds,
        rates=(sending, receiving),
    )
    local = LocalBlobStore(config.local.path, create=True)
    versioned = VersionedBlobStore(remote, earlier)
    reading = LayeredBlobStore(local, versioned, distrust_remote=versioned.distrust)
    return Stores(local, remote, reading, uplink, earlier)


def load_host_key(path: str) -> HostKey:
    """Read the host's key file. Raises SecretUnreadable, KeyFileInvalid."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise KeyFileInvalid(f"there is no key file at {path}", path=path) from error
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}", path=path) from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise SecretUnreadable(f"{path} can be read by others", path=path)
        return decode_host_key(file.read(_KEY_FILE_SIZE_MAX), path)


def open_reading_store(config: Config, *, receiving: ByteRate | None = None) -> BlobStore:
    """Return a store to read the configured vault from, on any machine: a local copy is optional.

    Raises ConfigInvalid, SecretUnreadable.
    """
    local = config.local
    if config.vault.directory is not None or (local is not None and os.path.isdir(local.path)):
        return open_stores(config, receiving=receiving).reading
    from streamd.daemon.remote import open_remote

    _, remote, earlier = open_remote(
        config,
        observer=None,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        give_up_after_seconds=READ_GIVE_UP_SECONDS,
        rates=(None, receiving),
    )
    return VersionedBlobStore(remote, earlier)


async def open_vault_of(config: Config, stores: Stores) -> Vault:
    """Open the configured vault over `stores.reading`.

    The few control objects are kept in the local directory too, so that a daemon starts, and goes
    on protecting, while the container cannot be reached.
    """
    host_key = load_host_key(config.vault.key_file)
    url = config.vault.url
    if stores.remote is None:
        return await open_vault(stores.local, host_key, url=url)
    if not [True async for _ in stores.local.scan(CONFIG_PREFIX)]:
        await open_vault(stores.remote, host_key, url=url)  # raises before anything is copied
        await copy_control_objects(stores.remote, stores.local)
    opened = await past_rot(
        stores.local, stores.remote, lambda store: open_vault(store, host_key, url=url)
    )
    return minding_layers(replace(opened, store=stores.reading))


async def past_rot(
    store: BlobStore, behind: BlobStore | None, work: Callable[[BlobStore], Awaitable[T]]
) -> T:
    """Return what `work` makes of the objects that open a vault; if it cannot, of those `behind`.

    Raises what `work` raises.
    """
    try:
        return await work(store)
    except _ROT as error:
        if behind is None:
            raise
        found = await work(behind)
        _LOG.warning(
            "local-control-objects-damaged",
            what=str(error),
            remedy="they were read from the container: move k/, v/ and w/ of the local copy away,"
            " and they are copied anew at the next start",
        )
        return found


def behind(store: BlobStore) -> BlobStore | None:
    """Return the vault of record, if `store` has a copy in front of it."""
    return store.remote if isinstance(store, LayeredBlobStore) else None


def minding_layers(vault: Vault) -> Vault:
    """Return the vault, its readers going on to the next layer of its store when one is wrong."""
    store = vault.store
    if isinstance(store, LayeredBlobStore | VersionedBlobStore):
        return replace(vault, distrust=store.distrust)
    return vault


async def copy_control_objects(source: BlobStore, target: BlobStore) -> None:
    """Copy configuration, certificates, key ring and slots; the configuration last."""
    names: list[BlobName] = []
    for prefix in _CONTROL_PREFIXES:
        names += [info.name async for info in source.scan(prefix)]
    for name in sorted(names, key=lambda name: name.startswith(CONFIG_PREFIX)):
        await target.put(name, await source.get(name))


@asynccontextmanager
async def open_vault_for_reading(
    config: Config, *, receiving: ByteRate | None = None
) -> AsyncIterator[Vault]:
    """Lend the configured vault to a command that only reads, from a container at a rate."""
    stores = open_stores(config, receiving=receiving)
    try:
        yield await open_vault_of(config, stores)
    finally:
        await stores.aclose()


def of_record(vault: Vault) -> Vault:
    """Return the vault of record itself: without the copy in front of it, or earlier versions."""
    store = vault.store.remote if isinstance(vault.store, LayeredBlobStore) else vault.store
    return replace(vault, store=store, distrust=no_other_layer)


def earlier_of(record: Vault) -> tuple[BlobStore, ...]:
    """Return the stores of versions that the vault of record may have kept."""
    store = record.store
    return store.earlier if isinstance(store, VersionedBlobStore) else ()


def host_name() -> str:
    """Return this host's name, for certificates and logs."""
    return socket.gethostname()
