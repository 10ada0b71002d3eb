"""A running process follows changes of keys: its own key file, and what the vault shows.

Others change keys: `streamd key` on this host, which then asks for a reload, or on another one. The
newest signed configuration says which public keys are in force, so it is looked at now and then.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from streamd.daemon.compose import copy_control_objects, load_host_key
from streamd.errors import StreamdError
from streamd.observe.logging import get_logger
from streamd.vault.documents import newest_config
from streamd.vault.vault import follow

if TYPE_CHECKING:
    from streamd.daemon.host import Host

FOLLOW_SECONDS: Final = 3600.0  # a session key is used for a day at most: this is far below
_LOG: Final = get_logger("keys")


async def follow_keys(host: "Host") -> None:
    """Take up what changed in the key file and in the vault; a failure changes nothing.

    New data is sealed to new keys from the next session on, which is the next object.
    """
    keys = host.vault.keys
    before = (keys.public.generation, keys.host.is_full, keys.host.signing_key)
    for step in (_fetch, _follow_vault, _follow_file):
        try:
            await step(host)
        except (
            StreamdError
        ) as error:  # the others do not depend on it: `streamd key` came here first
            _LOG.warning("keys-not-followed", reason=error.code, what=str(error))
    await host.catalog.mind_role(may_read=keys.host.is_full)
    after = (keys.public.generation, keys.host.is_full, keys.host.signing_key)
    if before != after:
        _LOG.info(
            "keys-followed",
            generation=keys.public.generation,
            is_full=keys.host.is_full,
            new_signing_key=before[2] != after[2],
        )
    describe_keys(host)


def describe_keys(host: "Host") -> None:
    """Show in the metrics what this host may do with the vault."""
    generation = host.vault.keys.public.generation
    host.meters.metrics.set_keys(role=role_of(host), generation=generation)


def role_of(host: "Host") -> str:
    """Return what this host may do with the vault: full or write-only."""
    return "full" if host.vault.keys.host.is_full else "write-only"


async def _follow_file(host: "Host") -> None:
    """Take up this host's key file, after the certificate of its signing key is known."""
    path = host.config.vault.key_file
    changed = await asyncio.to_thread(load_host_key, path)
    keys = host.vault.keys
    if (changed.vault, changed.domain, changed.writer) != (keys.vault, keys.domain, keys.writer):
        _LOG.error("keys-not-followed", reason="key-file-invalid", what=f"{path} is another host's")
        return
    keys.adopt(changed)


async def _fetch(host: "Host") -> None:
    """Bring the control objects of the container into the local copy, where they are read."""
    if host.stores.remote is not None:
        await copy_control_objects(host.stores.remote, host.stores.local)


async def _follow_vault(host: "Host") -> None:
    stores = host.stores
    config = await newest_config(stores.local, host.vault.keys.host.public.admin)
    if config is not None:
        await follow(host.vault, stores.local, config)


async def keep_following(host: "Host") -> None:
    """Follow about once an hour, until cancelled."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        await follow_keys(host)
