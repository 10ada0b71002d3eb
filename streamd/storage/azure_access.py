"""Where an Azure vault is and how we prove who we are there: values, without the Azure SDK."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from streamd.effects import MICROSECONDS
from streamd.errors import ConfigInvalid

AuthKind = Literal[
    "default",
    "managed-identity",
    "workload-identity",
    "service-principal",
    "sas",
    "shared-key",
    "connection-string",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureAccess:
    """All that is needed to reach one container.

    `secret` is what `auth` calls for: the SAS token, the account's key, the connection string, or
    the service principal's secret; the others need none. It never shows in a representation.
    """

    url: str  # https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX
    auth: AuthKind = "default"
    client_id: str | None = None
    tenant_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    certificate_file: str | None = None  # a service principal's, instead of a secret
    create_container: bool = False
    ca_file: str | None = None  # PEM, instead of the system's authorities
    proxy: str | None = field(default=None, repr=False)  # may carry a password
    place: str = "vault.auth"  # where an operator finds the credential
    certificate_expires_us: int | None = None

    @property
    def begins_us(self) -> int | None:
        """When a SAS becomes valid; None if it says nothing, or it is none."""
        return None if self._sas is None else sas_moment_us(self._sas, "st")

    @property
    def expires_us(self) -> int | None:
        """When a SAS ends; None if it says nothing, or it is none."""
        return None if self._sas is None else sas_moment_us(self._sas, "se")

    @property
    def _sas(self) -> str | None:
        if self.auth == "sas":
            return self.secret
        if self.auth == "connection-string" and self.secret is not None:
            _, _, token = self.secret.partition("SharedAccessSignature=")
            return token.partition(";")[0] or None
        return None


class AzureAddress(NamedTuple):
    """The parts of a vault's URL."""

    account_url: str
    account: str
    container: str
    prefix: str  # empty, or ends with a slash
    host: str


def parse_url(url: str) -> AzureAddress:
    """Take the URL of a vault apart; raise ConfigInvalid if it names no container.

    An address or a bare host carries the account in the path, as emulators do.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    base = f"{parts.scheme}://{parts.netloc}"
    account = host.partition(".")[0]
    if is_path_style(host) and segments:
        account, *segments = segments
        base = f"{base}/{account}"
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigInvalid("vault.url is not encrypted: write https://")
    if parts.scheme not in ("http", "https") or not host or not segments or parts.query:
        raise ConfigInvalid("vault.url names no container: https://ACCOUNT.…/CONTAINER/PREFIX")
    prefix = "".join(f"{segment}/" for segment in segments[1:])
    return AzureAddress(base, account, segments[0], prefix, parts.netloc)


def is_path_style(host: str) -> bool:
    """Return whether the account of this host stands in the path instead of the name."""
    if "." not in host:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, so that nothing needs to be encrypted."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sas_moment_us(token: str, name: str) -> int | None:
    """Return the start (`st`) or the expiry (`se`) that a SAS token states, in microseconds.

    None if it states none: then a stored access policy does, or it begins at once.
    """
    stated = parse_qs(token.strip().lstrip("?")).get(name)
    if stated is None:
        return None
    try:
        moment = datetime.fromisoformat(stated[0])
    except ValueError:
        return None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * MICROSECONDS
