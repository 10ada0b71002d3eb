"""The Azure store over TLS, and the identities that Entra ID vouches for."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import trustme
from azurite import Azurite, azurite  # noqa: F401 - a fixture
from fault_proxy import FaultProxy

from streamd.effects import SystemClock
from streamd.errors import ConfigInvalid, CredentialRejected, TlsUntrusted
from streamd.storage.azure import AzureBlobStore
from streamd.storage.azure_access import AzureAccess, parse_url
from streamd.storage.azure_credentials import credential_for
from streamd.storage.azure_tokens import EarlyToken
from streamd.storage.azure_transport import SlicingTransport
from streamd.storage.port import BlobName

pytestmark = pytest.mark.asyncio
A = BlobName("p/aa/1")
URL = "https://acc.blob.core.windows.net/cont"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest_asyncio.fixture
async def proxy(azurite: Azurite, authority: trustme.CA) -> AsyncIterator[FaultProxy]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with FaultProxy(f"http://127.0.0.1:{azurite.port}", tls=tls) as proxy:
        yield proxy


@pytest.fixture
def access(
    azurite: Azurite, proxy: FaultProxy, authority: trustme.CA, tmp_path: Path
) -> AzureAccess:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    access = azurite.access()
    url = access.url.replace(f"http://127.0.0.1:{azurite.port}", proxy.url)
    return replace(access, url=url, ca_file=str(tmp_path / "ca.pem"))


@pytest.mark.azurite
async def test_one_connection_carries_many_requests(access: AzureAccess, proxy: FaultProxy) -> None:
    store = AzureBlobStore(access)
    await store.ensure_container()
    content = bytes(range(256)) * 65536
    for number in range(4):
        await store.put(BlobName(f"p/{number}"), content)
        assert await store.get(BlobName(f"p/{number}")) == content
    assert len({seen.peer for seen in proxy.seen}) == 1
    await store.aclose()


@pytest.mark.azurite
async def test_an_unknown_authority_is_not_trusted(
    access: AzureAccess, proxy: FaultProxy, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    for ca_file in (None, str(tmp_path / "other.pem")):
        store = AzureBlobStore(replace(access, ca_file=ca_file))
        with pytest.raises(TlsUntrusted, match=r"(?i)certificate"):
            await store.put(A, b"x")
        await store.aclose()
    assert proxy.seen == []


async def test_a_missing_authority_file_does_not_mean_the_systems(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    for ca_file in ("/does/not/exist.pem", str(tmp_path / "junk.pem")):
        store = AzureBlobStore(AzureAccess(url=URL, auth="sas", secret="sig=x", ca_file=ca_file))
        with pytest.raises(ConfigInvalid, match="ca_file"):
            await store.put(A, b"x")
        await store.aclose()


@pytest.mark.parametrize(
    ("access", "kind"),
    [
        (AzureAccess(url=URL), "DefaultAzureCredential"),
        (AzureAccess(url=URL, auth="managed-identity"), "ManagedIdentityCredential"),
        (AzureAccess(url=URL, auth="managed-identity", client_id="c"), "ManagedIdentityCredential"),
        (
            AzureAccess(url=URL, auth="workload-identity", client_id="c", tenant_id="t"),
            "WorkloadIdentityCredential",
        ),
        (
            AzureAccess(
                url=URL, auth="service-principal", client_id="c", tenant_id="t", secret="s"
            ),
            "ClientSecretCredential",
        ),
        (AzureAccess(url=URL, auth="sas", secret="sig=x"), "AzureSasCredential"),
        (AzureAccess(url=URL, auth="shared-key", secret="eA=="), "AzureNamedKeyCredential"),
        (
            AzureAccess(url=URL, auth="connection-string", secret="SharedAccessSignature=sig=x"),
            "AzureSasCredential",
        ),
    ],
)
async def test_each_kind_of_identity_becomes_its_credential(
    access: AzureAccess, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    async with aiohttp.ClientSession() as session:

        def transport() -> SlicingTransport:
            return SlicingTransport(
                session=session, proxy=None, connect_seconds=1, silence_seconds=1
            )

        credential = credential_for(access, parse_url(access.url), transport, SystemClock())
        if isinstance(credential, EarlyToken):
            credential = credential._make()
            await credential.close()
    assert type(credential).__name__ == kind


async def test_an_identity_that_is_not_available_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "absent"))
    access = AzureAccess(url=URL, auth="workload-identity", client_id="c", tenant_id="t")
    store = AzureBlobStore(access)
    with pytest.raises(CredentialRejected, match="absent"):
        await store.put(A, b"x")
    await store.aclose()
