"""Opening what a process on this host writes to: its state directory, its catalog, its vault.

The lock on the state directory comes first. A damaged catalog, or one that is behind the vault, is
set aside and rebuilt; what the last process had sealed and not put is put. After that the journal
and the catalog agree, whatever happened before. `open_site` is that and no more, for a retention
run beside which nothing is captured: loading what captures would take a seventh of its time.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from streamd.catalog import dirty, objects
from streamd.catalog.db import Catalog, CatalogDamaged, check_pages, get_bytes, put_value
from streamd.catalog.journal import load_head
from streamd.catalog.objects import ObjectState
from streamd.config.model import Config
from streamd.daemon.compose import Stores, open_stores, open_vault_of
from streamd.effects import Clock, Entropy
from streamd.errors import AlreadyRunning, DiskFull
from streamd.format import layout
from streamd.format.keys import KeyChain, Role
from streamd.format.vault_config import check_supported
from streamd.maintenance.site import Site
from streamd.observe.logging import get_logger
from streamd.storage.port import BlobName
from streamd.vault.vault import Vault
from streamd.vault.writer import VaultWriter

CHECKED_BYTES_MAX: Final = 512 << 20  # of a catalog that is looked through at every start
CLEAN_KEY: Final = "clean"  # in the catalog's meta: the last daemon stopped in good order
LOCK_NAME: Final = "lock"
DAMAGED_SUFFIX: Final = ".damaged"
MetaKeys = dict[int, bytes]  # generation -> private key
_LOG: Final = get_logger("host")


@asynccontextmanager
async def open_site(config: Config, *, clock: Clock, entropy: Entropy) -> AsyncIterator[Site]:
    """Open a directory vault and this host's catalog for maintenance, and lend them.

    The lock keeps a daemon from starting meanwhile. Raises AlreadyRunning and what opening raises.
    """
    lock = take_lock(config.daemon.state)
    try:
        stores = open_stores(config, clock=clock)
        assert stores.remote is None, "what is in front of a container needs an uploader"
        try:
            await stores.local.sweep_tmp()
            vault = await open_vault_of(config, stores)
            check_supported(vault.config, vault.config.features.write)
            catalog = await open_catalog(config.daemon.state, vault, stores, clock)
            try:
                await catalog.mind_role(may_read=vault.keys.host.is_full)
                await finish_puts(catalog, stores, ObjectState.VAULT)
                await catalog.write(dirty.release_all)
                writer = VaultWriter(vault, clock, entropy)
                yield Site(
                    vault=vault,
                    catalog=catalog,
                    writer=writer,
                    clock=clock,
                    put_state=ObjectState.VAULT,
                )
            finally:
                await catalog.aclose()
        finally:
            await stores.aclose()
    finally:
        os.close(lock)


def lend_keys(vault: Vault, meta_keys: MetaKeys | None) -> Vault:
    """Return the vault as one who has these private META keys sees it, or as it is.

    With them a write-only host can read names and indexes, but no content. They are forgotten with
    what is returned.
    """
    if not meta_keys:
        return vault
    lent = KeyChain(vault.keys.host)
    lent.public = vault.keys.public
    lent.lend(Role.META, meta_keys)
    return Vault(vault.store, lent, vault.config, vault.verify_keys)


def take_lock(state: str) -> int:
    """Lock the state directory for this process. Raises AlreadyRunning."""
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(state, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskFull(f"{state}: {error.strerror}", path=state) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise AlreadyRunning(f"another streamd holds {state}", path=state) from error
    return lock


async def open_catalog(state: str, vault: Vault, stores: Stores, clock: Clock) -> Catalog:
    """Open the catalog; set it aside and rebuild it when it cannot be trusted."""
    try:
        catalog = await _whole_catalog(state)
    except CatalogDamaged as damage:
        _LOG.error("catalog-damaged", what=str(damage))
        return await _rebuilt(state, vault, stores, clock)
    identity = vault.identity + vault.keys.writer
    known = await catalog.read(get_bytes, "identity")
    if known == identity and not await _is_behind(catalog, vault, stores):
        return catalog
    if not known and not await _has_journal(vault, stores):
        await catalog.write(put_value, "identity", identity)
        return catalog
    _LOG.warning("catalog-rebuilt", reason="another vault's" if known else "empty or behind")
    await catalog.aclose()
    return await _rebuilt(state, vault, stores, clock)


async def _whole_catalog(state: str) -> Catalog:
    """Open the catalog, and look at every page of it.

    A very large one is looked at only after a stop that was not in good order. Raises
    CatalogDamaged.
    """
    catalog = Catalog(state)
    try:
        await catalog.read(check_pages, unless=CLEAN_KEY, above_bytes=CHECKED_BYTES_MAX)
    except BaseException:
        await catalog.aclose()
        raise
    return catalog


async def _has_journal(vault: Vault, stores: Stores) -> bool:
    prefix = layout.epoch_prefix(vault.keys.domain, vault.keys.writer)
    async for _ in stores.reading.scan(prefix):
        return True
    return False


async def _is_behind(catalog: Catalog, vault: Vault, stores: Stores) -> bool:
    """Say whether the local vault has a segment that the catalog does not know.

    Cannot happen by a crash, for the catalog is written first; it can when the state directory was
    put back to an older copy. Then the journal is right.
    """
    head = await catalog.read(load_head)
    keys = vault.keys
    unput = {row.name for row, _ in await catalog.read(objects.unput)}
    prefix = f"{layout.journal_prefix(keys.domain, keys.writer)}"
    newest = None
    async for info in stores.local.scan(f"{prefix}{head.epoch:08x}/"):
        newest = layout.parse_segment_name(info.name) or newest
    if newest is not None and newest >= head.next_position:
        return layout.segment_name(keys.domain, keys.writer, newest) not in unput
    name = BlobName(layout.epoch_name(keys.domain, keys.writer, head.epoch + 1))
    async for info in stores.local.scan(name):
        return info.name not in unput
    return False


async def _rebuilt(state: str, vault: Vault, stores: Stores, clock: Clock) -> Catalog:
    for name in sorted(os.listdir(state)):
        if name.startswith("catalog.sqlite") and not name.endswith(DAMAGED_SUFFIX):
            path = os.path.join(state, name)
            os.replace(path, path + DAMAGED_SUFFIX)
    from streamd.maintenance.rebuild import rebuild

    await rebuild(vault, state, remote=stores.remote, local=stores.local, clock=clock)
    catalog = Catalog(state)
    await catalog.write(put_value, "identity", vault.identity + vault.keys.writer)
    return catalog


async def finish_puts(catalog: Catalog, stores: Stores, state: ObjectState) -> None:
    """Put again what was sealed before the last process ended, the same bytes in the same order.

    `state` is how far an object has come when it is in the directory.
    """
    pending = await catalog.read(objects.unput)
    for row, data in pending:
        await stores.local.put(BlobName(row.name), data)
        await catalog.write(objects.mark_put, row.number, state)
    if pending:
        _LOG.info("recovered", objects=len(pending))
