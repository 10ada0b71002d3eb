"""`streamd init --join`: add this host to a vault that is there."""

import os

import msgspec

from streamd.cli import context, key
from streamd.config.model import Config
from streamd.daemon import keyholder
from streamd.daemon.unlocking import KeyOffer
from streamd.errors import ExitCode, KeyFileInvalid, UsageInvalid
from streamd.model.ids import to_text


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `init --join --json` prints."""

    vault: str
    url: str
    key_file: str
    domain: str
    host: str
    role: str
    edition: int  # of the key ring in force


def join(kit: str | None, code_file: str | None) -> ExitCode:
    """Add this host to the vault that the kit opens. Raises UsageInvalid without a kit."""
    if kit is None:
        raise UsageInvalid("--join needs --kit FILE: the recovery kit of the vault to join")
    config = context.load_config()
    report = context.run_async(_join(config, key.offer_of(kit, code_file)))
    context.emit(report, _text)
    return ExitCode.OK


async def _join(config: Config, offer: KeyOffer) -> Report:
    path = config.vault.key_file
    async with key.holding(config, offer) as holder:
        if holder.host is None and _exists(path):
            raise KeyFileInvalid(f"{path} belongs to another vault", path=path)
        host = await keyholder.join(holder, context.host_name())
        return Report(
            vault=to_text(host.vault),
            url=config.vault.url,
            key_file=path,
            domain=to_text(host.domain),
            host=context.host_name(),
            role="write-only",
            edition=holder.content.private.edition,
        )


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _text(report: Report) -> str:
    return (
        f"this host has joined the vault {report.vault} at {report.url}\n"
        f"key file  {report.key_file}  (this host can protect; it reads with --kit,"
        " or after streamd key host-role full)\n"
        f"The kit reads its history with --host {report.host}, or --host {report.domain}."
    )
