"""`streamd init`: create the vault, its keys, this host's key file and the recovery kit."""

import os
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streamd.cli import context
from streamd.errors import ExitCode, KeyFileInvalid, SecretUnreadable, UsageInvalid

if TYPE_CHECKING:
    from streamd.config.model import Config

_PRIVATE = 0o600


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Never a secret: the recovery code is in the kit only."""

    vault: str
    url: str
    key_file: str
    kit: str


def command(
    kit: Annotated[
        str | None,
        typer.Option(
            "--kit", help="Where to write the recovery kit (default: beside the key file)."
        ),
    ] = None,
) -> ExitCode:
    """Create the vault, the key file of this host and the recovery kit.

    Example: streamd init --kit /root/streamd-recovery.kit
    """
    config = context.load_config()
    kit_path = os.path.abspath(kit or f"{config.vault.key_file}.kit")
    if os.path.lexists(kit_path):
        raise UsageInvalid(f"{kit_path} exists: a recovery kit is never overwritten")
    context.emit(context.run_async(_create(config, kit_path)), _text)
    return ExitCode.OK


def _text(report: Report) -> str:
    return (
        f"vault {report.vault} created at {report.url}\n"
        f"key file      {report.key_file}  (this host can protect and restore)\n"
        f"recovery kit  {report.kit}  (its code opens the key ring in the vault)\n"
        "Move the recovery kit off this machine now: print it, or put it into a safe."
    )


async def _create(config: "Config", kit_path: str) -> Report:
    from streamd.daemon.compose import (
        copy_control_objects,
        host_name,
        load_host_key,
        open_stores,
        prepare_container,
    )
    from streamd.effects import SystemClock, SystemEntropy
    from streamd.errors import VaultExists
    from streamd.format.crypto import Kem
    from streamd.format.keys import encode_host_key
    from streamd.format.layout import CONFIG_PREFIX
    from streamd.format.ring import new_recovery_code
    from streamd.model.ids import to_text
    from streamd.vault.vault import create_vault, new_host_key, open_vault

    clock, entropy = SystemClock(), SystemEntropy()
    path = config.vault.key_file
    if config.vault.directory is None:
        await prepare_container(config)
    stores = open_stores(config, create=True)
    record = stores.remote if stores.remote is not None else stores.local
    try:
        async for _ in record.scan(CONFIG_PREFIX):
            raise VaultExists(f"there is a vault at {config.vault.url} already")
        if _exists(path):
            host_key = load_host_key(path)  # an attempt that died before the vault was there
            if not host_key.is_full:
                raise KeyFileInvalid(f"{path} belongs to another vault", path=path)
        else:
            host_key = new_host_key(Kem.MLKEM768_X25519, entropy)
            _write_private(path, encode_host_key(host_key))
        code = new_recovery_code(entropy)
        _write_private(kit_path, _kit_text(config.vault.url, to_text(host_key.vault), code))
        try:
            await create_vault(
                record,
                host_name=host_name(),
                clock=clock,
                entropy=entropy,
                host_key=host_key,
                recovery_code=code,
            )
        except BaseException:
            os.unlink(kit_path)  # its code opens nothing; the next attempt writes another
            raise
        if stores.remote is not None:
            await copy_control_objects(stores.remote, stores.local)
        await open_vault(record, host_key, url=config.vault.url)
    finally:
        await stores.aclose()
    return Report(vault=to_text(host_key.vault), url=config.vault.url, key_file=path, kit=kit_path)


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _kit_text(url: str, vault: str, code: str) -> bytes:
    return (
        "streamd recovery kit\n"
        "Keep this away from the protected host.\n"
        "The code below opens the key ring in the vault.\n\n"
        f"format: 1\nvault: {vault}\nurl: {url}\nrecovery-code: {code}\n"
    ).encode()


def _write_private(path: str, data: bytes) -> None:
    """Create `path`, readable by us alone, durable. Raises SecretUnreadable."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        new = f"{path}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SecretUnreadable(f"{path} cannot be written: {error.strerror}", path=path) from error
