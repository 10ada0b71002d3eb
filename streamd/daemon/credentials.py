"""From the configuration to an `AzureAccess`: what an identity needs is read, again and again."""

from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from streamd.config.host import read_secret, secret_path
from streamd.config.model import Config, SecretSource, VaultConfig
from streamd.effects import MICROSECONDS
from streamd.errors import SecretUnreadable
from streamd.observe.logging import register_secret
from streamd.storage.azure_access import AzureAccess
from streamd.storage.uplink import CredentialFiles

# for each way to authenticate with a secret: which one
_KINDS: Final = {
    "sas": "sas",
    "shared-key": "shared_key",
    "connection-string": "connection_string",
    "service-principal": "client_secret",
}


def access_of(config: Config) -> AzureAccess:
    """Return who we are at the container. Raises SecretUnreadable, ConfigInvalid."""
    vault = config.vault
    named = _named(vault)
    certificate = vault.certificate_file if vault.auth == "service-principal" else None
    return AzureAccess(
        url=vault.url,
        auth=vault.auth,
        client_id=vault.client_id,
        tenant_id=vault.tenant_id,
        secret=None if named is None else _read(named),
        certificate_file=certificate,
        certificate_expires_us=None if certificate is None else certificate_end_us(certificate),
        create_container=vault.create_container,
        ca_file=vault.ca_file,
        proxy=_proxy(vault),
        place=_place(vault, named),
    )


def credential_files(config: Config) -> CredentialFiles:
    """Return the files to look at now and then."""
    vault = config.vault
    sources = [_named(vault), vault.named_secret("proxy_password")]
    paths = [secret_path(one) for one in sources if one is not None]
    paths += [path for path in (vault.certificate_file, vault.ca_file) if path is not None]
    return CredentialFiles(tuple(paths), lambda: access_of(config))


def certificate_end_us(path: str) -> int:
    """Return when the certificate in a PEM file ends. Raises SecretUnreadable."""
    from cryptography import x509  # of use for one kind of identity only

    try:
        with open(path, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}", path=path) from error
    except ValueError as error:
        raise SecretUnreadable(f"{path}: holds no certificate in PEM", path=path) from error
    return int(certificate.not_valid_after_utc.timestamp()) * MICROSECONDS


def _named(vault: VaultConfig) -> SecretSource | None:
    return vault.named_secret(_KINDS[vault.auth]) if vault.auth in _KINDS else None


def _read(source: SecretSource) -> str:
    secret = read_secret(source).get_secret_value()
    register_secret(secret)
    return secret


def _proxy(vault: VaultConfig) -> str | None:
    """Return the URL of the proxy with its password, which is a secret of its own."""
    named = vault.named_secret("proxy_password")
    if vault.proxy is None or named is None:
        return vault.proxy
    parts = urlsplit(vault.proxy)
    user, _, host = parts.netloc.rpartition("@")
    password = _read(named)
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def _place(vault: VaultConfig, named: SecretSource | None) -> str:
    if vault.auth == "service-principal" and vault.certificate_file is not None:
        return vault.certificate_file
    if named is None:
        return f"vault.auth = {vault.auth}"
    return secret_path(named)
