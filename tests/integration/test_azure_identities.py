"""Every identity against a token service and a metadata service on loopback, and what renews it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from azurite import Azurite, azurite_tls  # noqa: F401 - a fixture
from blobserver.entra import TENANT, Entra
from blobserver.faults import Fault
from blobserver.server import BlobServer
from certificates import Authority, authority  # noqa: F401 - a fixture
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from integration.remote_stack import RemoteStack, shared_key, until

from streamd.daemon.credentials import certificate_end_us
from streamd.errors import (
    CredentialRejected,
    IdentityUnavailable,
    RightMissing,
    SecretUnreadable,
    StreamdError,
)
from streamd.storage.azure_access import AzureAccess
from streamd.storage.port import BlobName
from streamd.storage.uplink import CredentialFiles, Uplink

pytestmark = pytest.mark.asyncio
A, B = BlobName("p/aa"), BlobName("p/bb")


@pytest_asyncio.fixture
async def server(authority: Authority) -> AsyncIterator[BlobServer]:
    async with BlobServer(tls=authority.server()) as server:
        yield server


@pytest_asyncio.fixture
async def entra(authority: Authority, monkeypatch) -> AsyncIterator[Entra]:
    async with Entra(tls=authority.server()) as entra:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", entra.url)
        yield entra


def as_identity(server: BlobServer, authority: Authority, auth, **changes) -> AzureAccess:
    return shared_key(
        server, auth=auth, secret=changes.pop("secret", None), ca_file=authority.ca_file, **changes
    )


async def works(access: AzureAccess) -> None:
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        await stack.store.put(A, b"x")
        await stack.store.put(B, b"y")
        assert await stack.store.get(A) == b"x"


def certificate_file(authority: Authority, folder: Path) -> Path:
    """Return a certificate with its key in one file; PKCS 8, as the SDK wants it."""
    certificate, key = authority.files(is_rsa=True)
    private = load_pem_private_key(key.read_bytes(), None)
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "principal.pem"
    path.write_bytes(text + certificate.read_bytes())
    return path


async def test_a_service_principal_proves_itself_by_secret_or_certificate(
    server: BlobServer, entra: Entra, authority: Authority, tmp_path: Path
) -> None:
    common = {"tenant_id": TENANT, "client_id": "app"}
    await works(as_identity(server, authority, "service-principal", secret="s", **common))
    assert entra.asked[-1]["client_id"] == "app"
    assert entra.asked[-1]["client_secret"] == "s"
    path = certificate_file(authority, tmp_path)
    access = as_identity(
        server, authority, "service-principal", certificate_file=str(path), **common
    )
    await works(access)
    assert "client_assertion" in entra.asked[-1]
    assert len([asked for asked in entra.asked if asked["path"].endswith("/token")]) == 2


async def test_a_workload_identity_shows_its_federated_token(
    server: BlobServer, entra: Entra, authority: Authority, tmp_path: Path, monkeypatch
) -> None:
    token = tmp_path / "token"
    token.write_text("federated")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    access = as_identity(server, authority, "workload-identity", tenant_id=TENANT, client_id="pod")
    await works(access)
    assert entra.asked[-1]["client_assertion"] == "federated"


@pytest.mark.parametrize("client", [None, "second"])
async def test_a_managed_identity_is_asked_of_the_machine(
    server: BlobServer, authority: Authority, monkeypatch, client: str | None
) -> None:
    async with Entra() as machine:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", machine.url)
        await works(as_identity(server, authority, "managed-identity", client_id=client))
        assert machine.asked[-1]["path"] == "/metadata/identity/oauth2/token"
        assert machine.asked[-1].get("client_id") == client
        assert machine.asked[-1]["resource"].rstrip("/") == "https://storage.azure.com"


async def test_the_default_chain_finds_what_the_environment_says(
    server: BlobServer, entra: Entra, authority: Authority, monkeypatch
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", "env")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "s")
    await works(as_identity(server, authority, "default"))
    assert entra.asked[-1]["client_id"] == "env"


@pytest.mark.azurite
async def test_azurite_takes_the_token_too(
    azurite_tls: Azurite, entra: Entra, authority: Authority
) -> None:
    access = AzureAccess(
        url=azurite_tls.access().url,
        auth="service-principal",
        tenant_id=TENANT,
        client_id="app",
        secret="s",
        ca_file=authority.ca_file,
        create_container=True,
    )
    await works(access)


async def test_without_entra_the_last_token_serves_and_then_uploads_pause_with_their_alarm(
    server: BlobServer, entra: Entra, authority: Authority
) -> None:
    """T-N6: a day without Entra ID. tests/unit/storage/test_azure_tokens.py has the half-time."""
    access = as_identity(
        server, authority, "service-principal", secret="s", tenant_id=TENANT, client_id="app"
    )
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        entra.status_of_failure = 503
        fetched = len(entra.asked)
        for number in range(5):
            await stack.store.put(BlobName(f"p/bridged{number}"), b"1")
        assert len(entra.asked) == fetched, "a token was asked for again"
        await stack.plain.renew(access)  # as if the token had ended: there is none
        for _ in range(30):
            with pytest.raises(IdentityUnavailable, match="no token"):
                await stack.governed.put(BlobName("p/late"), b"1")
        assert len(entra.asked) - fetched <= 3, "a storm on Entra ID"
        assert stack.governor.circuit.cause == "credential"
        assert stack.told.errors == ["identity-unavailable"]
        entra.status_of_failure = 0
        await stack.store.put(BlobName("p/late"), b"1")
        assert stack.told.tokens[-1] > time.time() * 1e6


async def test_a_principal_whose_secret_is_wrong_is_rejected(
    server: BlobServer, entra: Entra, authority: Authority
) -> None:
    entra.status_of_failure = 401
    access = as_identity(
        server, authority, "service-principal", secret="TOPSECRET", tenant_id=TENANT,
        client_id="app",
    )  # fmt: skip
    async with RemoteStack(access) as stack:
        with pytest.raises(CredentialRejected) as caught:
            await stack.plain.put(A, b"x")
    assert "TOPSECRET" not in f"{caught.value} {caught.value.advice()}"


async def test_a_role_that_is_taken_away_pauses_and_given_back_resumes(
    server: BlobServer, entra: Entra, authority: Authority
) -> None:
    access = as_identity(
        server, authority, "service-principal", secret="s", tenant_id=TENANT, client_id="app"
    )
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        server.service.account.roles["app"] = "rl"
        with pytest.raises(RightMissing):
            await stack.store.put(A, b"x")
        assert stack.governor.circuit.cause == "right"
        server.service.account.roles["app"] = "racwdl"
        await stack.governor.opened()
        await stack.store.put(A, b"x")


async def test_a_token_that_the_storage_does_not_take_is_replaced(
    server: BlobServer, entra: Entra, authority: Authority
) -> None:
    access = as_identity(
        server, authority, "service-principal", secret="s", tenant_id=TENANT, client_id="app"
    )
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        server.faults.add(Fault("status", 1, status=401, code="InvalidAuthenticationInfo"))
        with pytest.raises(CredentialRejected):
            await stack.governed.put(A, b"x")
        fetched = len(entra.asked)
        await stack.governor.opened()
        await stack.governed.put(A, b"x")
        assert len(entra.asked) > fetched


async def test_nobody_at_home_is_not_a_wrong_credential(
    server: BlobServer, authority: Authority, monkeypatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    access = as_identity(server, authority, "managed-identity")
    async with RemoteStack(access) as stack:
        with pytest.raises(IdentityUnavailable, match="no token"):
            await stack.plain.put(A, b"x")


# -- files -------------------------------------------------------------------------------------


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []

    def credential_read(self, access: AzureAccess) -> None:
        self.said.append(str(access.secret))

    def credential_unreadable(self, error: StreamdError) -> None:
        self.said.append(error.code)


async def test_a_file_that_cannot_be_read_leaves_the_old_credential_in_use(
    server: BlobServer, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    access = shared_key(server, ca_file=authority.ca_file)
    file.write_text(access.secret or "")

    def read() -> AzureAccess:
        text = file.read_text()
        if not text:
            raise SecretUnreadable(f"{file}: empty", path=str(file))
        return shared_key(server, secret=text, ca_file=authority.ca_file)

    told = Told()
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        uplink = Uplink(
            stack.plain, stack.governed, stack.governor, CredentialFiles((str(file),), read), told
        )
        await uplink.renew()
        assert told.said == []
        file.write_text("")
        for _ in range(3):
            await uplink.renew()
        assert told.said == ["secret-unreadable"], "it is said once"
        await stack.store.put(A, b"x")
        file.write_text(access.secret or "")
        await uplink.renew()
        assert told.said[1:] == [access.secret]
        await stack.store.put(B, b"x")


async def test_renewing_again_and_again_leaves_no_connection_behind(
    server: BlobServer, authority: Authority
) -> None:
    access = shared_key(server, ca_file=authority.ca_file)
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        for number in range(20):
            await stack.store.put(BlobName(f"p/{number}"), b"x")
            await stack.plain.renew(access)
        assert len(stack.plain._retired) <= 1
        assert [info async for info in stack.store.scan("")]


async def test_a_service_that_is_back_is_found_without_anything_to_send(
    server: BlobServer, authority: Authority, monkeypatch
) -> None:
    import asyncio

    from streamd.storage import uplink as module

    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.1)
    access = shared_key(server, ca_file=authority.ca_file)
    async with RemoteStack(access) as stack:
        await stack.plain.ensure_container()
        server.service.account.firewall = lambda _: False
        with pytest.raises(StreamdError):
            await stack.governed.put(A, b"x")
        server.service.account.firewall = lambda _: True
        hidden = server.service.account.containers.pop("cont")
        stack.governor.hurry()
        with pytest.raises(StreamdError):
            await stack.governed.put(A, b"x")
        server.service.account.containers["cont"] = hidden
        files = CredentialFiles((), lambda: access)
        uplink = Uplink(stack.plain, stack.governed, stack.governor, files, Told())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(uplink.run())
            await until(lambda: stack.governor.circuit.state == "closed", 30)
            running.cancel()


async def test_a_certificate_says_when_it_ends(authority: Authority, tmp_path: Path) -> None:
    path = certificate_file(authority, tmp_path)
    assert certificate_end_us(str(path)) > time.time() * 1e6
    (tmp_path / "junk").write_text("junk")
    for name in ("junk", "absent"):
        with pytest.raises(SecretUnreadable):
            certificate_end_us(str(tmp_path / name))
