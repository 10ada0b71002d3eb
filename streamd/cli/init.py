"""`streamd init`: create the vault, its keys, this host's key file and the recovery kit."""

import os
from typing import TYPE_CHECKING, Annotated

import msgspec

from streamd.cli import context
from streamd.cli.declare import option
from streamd.errors import ExitCode, KeyFileInvalid, UsageInvalid

if TYPE_CHECKING:
    from streamd.config.model import Config
    from streamd.format.keys import HostKey
    from streamd.storage.port import BlobStore


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. Never a secret: `code` says where the recovery code is."""

    vault: str
    url: str
    key_file: str
    kit: str
    code: str = ""  # terminal, the kit, or a path


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where the kit and its code go; `code_file` empty: to the terminal or into the kit."""

    kit: str
    code_file: str
    shows_code: bool

    @property
    def code(self) -> str:
        """Where the code is, in words."""
        return self.code_file or ("terminal" if self.shows_code else self.kit)


def command(
    *,
    kit: Annotated[
        str | None,
        option("--kit", help="Where to write the recovery kit (default: beside the key file)."),
    ] = None,
    code_file: Annotated[
        str | None,
        option("--code-file", metavar="FILE", help="Where to write the kit's recovery code."),
    ] = None,
    code_in_kit: Annotated[
        bool, option("--code-in-kit", help="Write the recovery code into the kit itself.")
    ] = False,
    join: Annotated[
        bool,
        option("--join", help="Add this host to the vault that --kit (an old one) opens."),
    ] = False,
) -> ExitCode:
    """Create the vault, the key file of this host and the recovery kit.

    The kit's recovery code is shown on the terminal; without one it stands in the kit, unless
    --code-file names a place of its own. Nothing is left of a vault whose kit could not be proven.
    With --join, --kit and --code-file are those of the vault that is there.
    Example: streamd init --kit /root/streamd-recovery.kit
    """
    if join:
        from streamd.cli import join as joining

        return joining.join(kit, code_file)
    config = context.load_config()
    places = _places(config, kit, code_file, code_in_kit=code_in_kit)
    context.emit(context.run_async(_create(config, places)), _text)
    return ExitCode.OK


def _places(
    config: "Config", kit: str | None, code_file: str | None, *, code_in_kit: bool
) -> Places:
    if code_file and code_in_kit:
        raise UsageInvalid("say either --code-file FILE or --code-in-kit")
    kit_path = os.path.abspath(kit or f"{config.vault.key_file}.kit")
    code_path = os.path.abspath(code_file) if code_file else ""
    for path, what in ((kit_path, "a recovery kit"), (code_path, "a recovery code")):
        if path and os.path.lexists(path):
            raise UsageInvalid(f"{path} exists: {what} is never overwritten")
    if kit_path == code_path:
        raise UsageInvalid("the kit and its code go into different files, or say --code-in-kit")
    shows_code = not code_path and not code_in_kit and context.has_terminal()
    return Places(kit=kit_path, code_file=code_path, shows_code=shows_code)


def _text(report: Report) -> str:
    code = {
        "terminal": "was shown above: it is nowhere else",
        report.kit: "is in the kit: the kit alone opens the vault",
    }.get(report.code, f"is in {report.code}: move it away from the kit")
    return (
        f"vault {report.vault} created at {report.url}\n"
        f"key file       {report.key_file}  (this host can protect and restore)\n"
        f"recovery kit   {report.kit}  (proven: it opens the vault)\n"
        f"recovery code  {code}\n"
        "Move the recovery kit off this machine now: print it, or put it into a safe."
    )


async def _create(config: "Config", places: Places) -> Report:
    from streamd.config.private_files import write_private
    from streamd.daemon.compose import copy_control_objects, open_stores
    from streamd.effects import SystemClock, SystemEntropy
    from streamd.errors import VaultExists
    from streamd.format.keys import encode_host_key
    from streamd.format.kit import encode_kit
    from streamd.format.layout import CONFIG_PREFIX
    from streamd.format.slots import new_recovery_code
    from streamd.model.ids import to_text
    from streamd.vault.vault import (
        open_vault,
        prepare_vault,
        put_config,
        put_keys,
        with_recovery_code,
    )

    clock, entropy = SystemClock(), SystemEntropy()
    path = config.vault.key_file
    if config.vault.directory is None:
        from streamd.daemon.remote import prepare_container

        await prepare_container(config)
    stores = open_stores(config, create=True)
    record = stores.remote if stores.remote is not None else stores.local
    try:
        async for _ in record.scan(CONFIG_PREFIX):
            raise VaultExists(f"there is a vault at {config.vault.url} already")
        code = new_recovery_code(entropy)
        _register(code)
        host_key = with_recovery_code(_first_key(path), code, clock=clock, entropy=entropy)
        write_private(path, encode_host_key(host_key))
        prepared = prepare_vault(
            host_key, host_name=context.host_name(), now_us=clock.now_us(), entropy=entropy
        )
        kit = msgspec.structs.replace(
            prepared.kit, url=config.vault.url, code=code if places.code == places.kit else ""
        )
        try:
            write_kit(places, encode_kit(kit), code)
            await put_keys(record, prepared)
            await prove(record, places, code, host_key)
        except BaseException:
            _discard(places)  # it opens nothing; the next attempt writes another
            raise
        await put_config(record, prepared)  # what makes a vault of it
        if stores.remote is not None:
            await copy_control_objects(stores.remote, stores.local)
        await open_vault(record, host_key, url=config.vault.url)
    finally:
        await stores.aclose()
    return Report(
        vault=to_text(host_key.vault),
        url=config.vault.url,
        key_file=path,
        kit=places.kit,
        code=places.code,
    )


def _first_key(path: str) -> "HostKey":
    """Return the keys of the vault to be: new ones, or those of an attempt that died half-way."""
    from streamd.daemon.compose import load_host_key
    from streamd.effects import SystemEntropy
    from streamd.format.crypto import best_kem
    from streamd.vault.vault import new_host_key

    if not os.path.lexists(path):
        return new_host_key(best_kem(), SystemEntropy())
    host_key = load_host_key(path)
    if not host_key.is_full:
        raise KeyFileInvalid(f"{path} belongs to another vault", path=path)
    return host_key


def write_kit(places: Places, kit: bytes, code: str) -> None:
    """Write the kit, and bring its code to where it was asked for. Raises SecretUnreadable."""
    from streamd.config.private_files import write_private

    write_private(places.kit, kit)
    if places.code_file:
        write_private(places.code_file, code.encode() + b"\n")
    if places.shows_code:
        show_code(code)


def _discard(places: Places) -> None:
    for path in (places.kit, places.code_file):
        if path and os.path.lexists(path):
            os.unlink(path)


def _register(code: str) -> None:
    from streamd.observe.logging import register_secret

    register_secret(code)


def show_code(code: str) -> None:
    """Show a recovery code to the person at the terminal, and go on when it is written down."""
    from rich.console import Console
    from rich.prompt import Prompt

    console = Console(stderr=True)
    console.print("Recovery code of the kit (write it down, it is shown once):", highlight=False)
    console.print(f"\n    {code}\n", style="bold", highlight=False)
    last = code.rsplit("-", 1)[1]
    while True:
        typed = Prompt.ask("Type its last four characters when you have it", console=console)
        if typed.strip().upper() == last:
            return


async def prove(record: "BlobStore", places: Places, code: str, host_key: "HostKey") -> None:
    """Open the ring with the kit as it was written to the disk. Raises what opening raises."""
    from streamd.daemon.unlocking import KeyOffer, unlock_with
    from streamd.errors import KitInvalid

    in_kit = places.code == places.kit
    offer = KeyOffer(
        kit=places.kit, code_file=places.code_file or None, ask=None if in_kit else lambda _: code
    )
    opened = await unlock_with(record, offer)
    if opened.content.private != host_key.private:
        raise KitInvalid("the recovery kit does not open the keys of this vault", path=places.kit)
