"""Reading a vault with a recovery kit or another slot, on any machine: no configuration is needed.

`cli.lazy` gives the options to every command that only reads; `context` remembers them.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streamd.cli import context
from streamd.cli.context import Unlock
from streamd.errors import KitInvalid

if TYPE_CHECKING:
    from streamd.config.model import Config
    from streamd.daemon.unlocking import KeyOffer
    from streamd.storage.rate import ByteRate
    from streamd.vault.vault import Vault


def config_for(unlock: Unlock, path: str) -> "Config":
    """Return the configuration in `path`, or one that names nothing but the vault.

    The vault is where --vault says, else where the configuration says, else where the kit says.
    Raises ConfigInvalid, KitInvalid.
    """
    from streamd.config.load import load

    if unlock.vault is None and os.path.exists(path):
        return load(path)
    url = unlock.vault
    if url is None:
        if unlock.kit is None:
            return load(path)  # raises: there is none
        url = _kit_url(unlock.kit)
    base = load(path) if os.path.exists(path) else None
    return _config_at(url, base)


def _kit_url(path: str) -> str:
    from streamd.daemon.unlocking import read_kit

    url = read_kit(path).url
    if not url:
        raise KitInvalid(f"{path} does not say where the vault is: add --vault URL", path=path)
    return url


def _config_at(url: str, base: "Config | None") -> "Config":
    from streamd.config.model import Config, VaultConfig
    from streamd.errors import UsageInvalid

    try:
        config = Config(vault=VaultConfig(url=url))
    except ValueError as error:
        raise UsageInvalid(f"{url} is no address of a vault: {error}") from error
    if base is None:
        return config
    if base.vault.url == url:
        return base
    return config.but(timezone=base.timezone, policies=base.policies)


def offer() -> "KeyOffer":
    """Return what the command line offers to open the vault with."""
    from streamd.daemon.unlocking import KeyOffer

    unlock = context.invocation().unlock
    return KeyOffer(
        kit=unlock.kit,
        code_file=unlock.code_file,
        passphrase_file=unlock.passphrase_file,
        key_file=unlock.slot_key_file,
        host=unlock.host,
        ask=ask if context.has_terminal() else None,
    )


def ask(question: str) -> str:
    """Ask the person at the terminal for a secret, without showing it."""
    import getpass

    return getpass.getpass(question)


@asynccontextmanager
async def open_vault(
    config: "Config", *, receiving: "ByteRate | None" = None
) -> AsyncIterator["Vault"]:
    """Lend the vault to a command that only reads, with the keys that the command line names."""
    from streamd.daemon.unlocking import open_vault_unlocked

    async with open_vault_unlocked(config, offer(), receiving=receiving) as vault:
        yield vault
