"""Makes of an `AzureAccess` the credential that the Azure SDK wants."""

from collections.abc import Callable
from typing import Any

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from streamd.effects import Clock
from streamd.errors import ConfigInvalid
from streamd.storage.azure_access import AzureAccess, AzureAddress
from streamd.storage.azure_tokens import EarlyToken


def credential_for(
    access: AzureAccess,
    address: AzureAddress,
    transport: Callable[[], Any],
    clock: Clock,
    on_token: Callable[[int], None] = lambda _: None,
) -> Any:
    """Return a credential for `ContainerClient`.

    One that asks Entra ID does so through what `transport` returns, and tells `on_token` until when
    each token is good. Raises ConfigInvalid if something that this kind of identity needs is
    missing or malformed.
    """
    if access.auth == "sas":
        return AzureSasCredential(_secret(access).lstrip("?"))
    if access.auth == "shared-key":
        return AzureNamedKeyCredential(address.account, _secret(access))
    if access.auth == "connection-string":
        return _from_connection_string(_secret(access), address)
    make = _entra_credential(access, transport)
    return EarlyToken(make, place=access.auth, clock=clock, on_token=on_token)


def _entra_credential(access: AzureAccess, transport: Callable[[], Any]) -> Callable[[], Any]:
    from azure.identity import aio as identity  # half a second: only for those who need it

    if access.auth == "managed-identity":
        # Its endpoint is on this machine: neither our proxy nor our CA has to do with it.
        return lambda: identity.ManagedIdentityCredential(client_id=access.client_id, retry_total=0)
    if access.auth == "workload-identity":
        return lambda: identity.WorkloadIdentityCredential(
            tenant_id=access.tenant_id,
            client_id=access.client_id,
            transport=transport(),
            retry_total=0,
        )
    if access.auth == "service-principal":
        return _service_principal(access, transport)
    return lambda: identity.DefaultAzureCredential(
        managed_identity_client_id=access.client_id,
        workload_identity_client_id=access.client_id,
        workload_identity_tenant_id=access.tenant_id,
        transport=transport(),
        retry_total=0,
    )


def _service_principal(access: AzureAccess, transport: Callable[[], Any]) -> Callable[[], Any]:
    from azure.identity import aio as identity

    tenant, client = access.tenant_id, access.client_id
    if tenant is None or client is None:
        raise ConfigInvalid("a service principal needs vault.tenant_id and vault.client_id")
    if access.certificate_file is not None:
        return lambda: identity.CertificateCredential(
            tenant,
            client,
            access.certificate_file,
            password=access.secret,
            transport=transport(),
            retry_total=0,
        )
    secret = _secret(access)
    return lambda: identity.ClientSecretCredential(
        tenant, client, secret, transport=transport(), retry_total=0
    )


def _from_connection_string(text: str, address: AzureAddress) -> Any:
    """Return what the string says about identity; where the vault is, the URL alone says."""
    settings = dict(part.split("=", 1) for part in text.strip().split(";") if "=" in part)
    if "AccountKey" in settings:
        account = settings.get("AccountName", address.account)
        return AzureNamedKeyCredential(account, settings["AccountKey"])
    if "SharedAccessSignature" in settings:
        return AzureSasCredential(settings["SharedAccessSignature"].lstrip("?"))
    raise ConfigInvalid("the connection string holds neither AccountKey nor SharedAccessSignature")


def _secret(access: AzureAccess) -> str:
    secret = (access.secret or "").strip()
    if not secret:
        raise ConfigInvalid(f"vault.auth = {access.auth} needs its secret, and there is none")
    return secret
