"""T-N9: certificates, proxies, redirects: each failure has its own error, and none is worked around."""

import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
import trustme
from aiohttp import web
from blobserver.server import BlobServer
from certificates import Authority, authority  # noqa: F401 - a fixture
from connect_proxy import ConnectProxy
from integration.remote_stack import RemoteStack, shared_key

from streamd.errors import (
    ProxyRefused,
    StreamdError,
    TlsExpired,
    TlsFailed,
    TlsUntrusted,
    TlsWrongName,
    VaultUnreachable,
)
from streamd.storage.azure_access import AzureAccess
from streamd.storage.port import BlobName

pytestmark = pytest.mark.asyncio
A = BlobName("p/aa")


@pytest_asyncio.fixture
async def server(authority: Authority) -> AsyncIterator[BlobServer]:
    async with BlobServer(tls=authority.server()) as server:
        yield server


def access_to(server: BlobServer, authority: Authority, **changes) -> AzureAccess:
    return shared_key(server, ca_file=authority.ca_file, **changes)


async def failure_of(access: AzureAccess) -> StreamdError:
    async with RemoteStack(access) as stack:
        with pytest.raises(StreamdError) as caught:
            await stack.plain.put(A, b"x")
        with pytest.raises(type(caught.value)):
            await stack.governed.put(A, b"x")
        assert caught.value.advice()
        assert stack.told.codes.total() >= 2
    return caught.value


# -- certificates ------------------------------------------------------------------------------


async def test_each_fault_of_a_certificate_is_an_error_of_its_own(
    authority: Authority,
) -> None:
    stranger = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    for tls, expected in (
        (stranger, TlsUntrusted),
        (authority.server(expired=True), TlsExpired),
        (authority.server("other.example"), TlsWrongName),
    ):
        async with BlobServer(tls=tls) as server:
            assert type(await failure_of(access_to(server, authority))) is expected
            assert server.seen == [], "something was sent all the same"


async def test_what_does_not_speak_tls_is_not_spoken_to_without_it(authority: Authority) -> None:
    async with BlobServer() as plain:
        access = access_to(plain, authority)
        access = replace(access, url=access.url.replace("http:", "https:"))
        assert type(await failure_of(access)) is TlsFailed
        assert plain.seen == []


async def test_a_redirect_to_where_nothing_is_encrypted_is_not_followed(
    authority: Authority,
) -> None:
    async with BlobServer() as plain:

        async def away(request: web.BaseRequest) -> web.Response:
            return web.Response(status=302, headers={"Location": f"{plain.url}{request.path_qs}"})

        runner = web.ServerRunner(web.Server(away))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server()).start()
        port = runner.addresses[0][1]
        access = access_to(plain, authority)
        access = replace(access, url=access.url.replace(plain.url, f"https://127.0.0.1:{port}"))
        async with RemoteStack(access) as stack:
            with pytest.raises(VaultUnreachable):
                await stack.plain.put(A, b"x")
            with pytest.raises(VaultUnreachable):
                await stack.plain.get(A)
        await runner.cleanup()
        assert plain.seen == []


async def test_an_authority_of_ones_own_is_enough(server: BlobServer, authority: Authority) -> None:
    async with RemoteStack(access_to(server, authority)) as stack:
        await stack.plain.ensure_container()
        await stack.store.put(A, os.urandom(3 << 20))
        assert len(await stack.store.get(A)) == 3 << 20


# -- proxies -----------------------------------------------------------------------------------


async def test_everything_passes_by_connect_with_the_password(
    server: BlobServer, authority: Authority
) -> None:
    body = os.urandom(2 << 20)
    async with ConnectProxy(user="me", password="p@ss/w:rd") as proxy:
        url = f"http://me:p%40ss%2Fw%3Ard@127.0.0.1:{proxy.port}"
        async with RemoteStack(access_to(server, authority, proxy=url)) as stack:
            await stack.plain.ensure_container()
            await stack.store.put(A, body)
            assert await stack.store.get(A) == body
        assert set(proxy.asked) == {f"127.0.0.1:{server.port}"}
        assert proxy.refused == 0


async def test_a_proxy_that_wants_a_password_or_forbids_the_way_is_said_so(
    server: BlobServer, authority: Authority
) -> None:
    async with ConnectProxy(user="me", password="secret") as proxy:
        for credential in ("", "me:wrong@"):
            url = f"http://{credential}127.0.0.1:{proxy.port}"
            error = await failure_of(access_to(server, authority, proxy=url))
            assert type(error) is ProxyRefused
            assert "407" in str(error)
            assert "wrong" not in f"{error} {error.advice()}"
    async with ConnectProxy(status=403) as proxy:
        error = await failure_of(
            access_to(server, authority, proxy=f"http://127.0.0.1:{proxy.port}")
        )
        assert type(error) is ProxyRefused
    assert server.seen == []


async def test_a_proxy_that_is_away_is_waited_for(server: BlobServer, authority: Authority) -> None:
    async with ConnectProxy(status=502) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        assert type(await failure_of(access_to(server, authority, proxy=url))) is VaultUnreachable
    error = await failure_of(access_to(server, authority, proxy="http://127.0.0.1:9"))
    assert type(error) is VaultUnreachable
    assert "proxy" in str(error)


async def test_the_environments_proxy_counts_for_names_and_not_for_this_machine(
    server: BlobServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ConnectProxy(user="env", password="secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://env:secret@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with RemoteStack(access_to(server, authority)) as stack:
            await stack.plain.ensure_container()
        assert proxy.asked == []
        access = access_to(server, authority, url="https://account.blob.invalid/cont")
        async with RemoteStack(access) as stack:
            with pytest.raises(StreamdError):
                await stack.plain.put(A, b"x")
        assert set(proxy.asked) == {"account.blob.invalid:443"}
