"""Entra ID and the metadata service of a virtual machine, as far as the SDK asks them.

Tokens are unsigned: the Blob service here, and Azurite with `--oauth basic`, take them. Everything
may be broken by setting `failure`.
"""

import base64
import json
import ssl
import time
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

from aiohttp import web

TENANT = "11111111-2222-3333-4444-555555555555"
_AUDIENCE = "https://storage.azure.com"


class Entra:
    """A token endpoint for every kind of identity. `asked` is what came in, newest last."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, lifetime_seconds: int = 3600) -> None:
        self.port = 0
        self.lifetime_seconds = lifetime_seconds
        self.failure: web.Response | None = None
        self.status_of_failure = 0
        self.asked: list[dict[str, str]] = []
        self.principals: dict[str, str] = {}  # client id → object id, in the token
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Return scheme, host and port."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def token(self, client: str = "client") -> str:
        """Return a token for the Blob service."""
        now = int(time.time())
        claims = {
            "aud": _AUDIENCE,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now - 60,
            "exp": now + self.lifetime_seconds,
            "oid": self.principals.get(client, client),
            "tid": TENANT,
            "appid": client,
        }
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
        return ".".join([*(one.rstrip(b"=").decode() for one in encoded), "c2ln"])

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        form = parse_qs((await request.read()).decode())
        facts = {name: values[0] for name, values in form.items()}
        facts |= dict(request.query)
        facts["path"] = request.path
        self.asked.append(facts)
        if self.status_of_failure:
            return web.json_response(
                {"error": "temporarily_unavailable", "error_description": "by script"},
                status=self.status_of_failure,
            )
        if request.path.endswith("/openid-configuration"):
            return self._configuration()
        if "discovery/instance" in request.path:
            return web.json_response({"tenant_discovery_endpoint": "", "metadata": []})
        if request.path.startswith("/metadata/identity"):
            return self._metadata_service(request, facts)
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": self.lifetime_seconds,
                "ext_expires_in": self.lifetime_seconds,
                "access_token": self.token(facts.get("client_id", "client")),
            }
        )

    def _configuration(self) -> web.Response:
        base = f"{self.url}/{TENANT}"
        return web.json_response(
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "issuer": f"{base}/v2.0",
            }
        )

    def _metadata_service(self, request: web.BaseRequest, facts: dict[str, str]) -> web.Response:
        if request.headers.get("Metadata") != "true":
            return web.json_response({"error": "invalid_request"}, status=400)
        client = facts.get("client_id", "system")
        return web.json_response(
            {
                "access_token": self.token(client),
                "client_id": client,
                "expires_in": str(self.lifetime_seconds),
                "expires_on": str(int(time.time()) + self.lifetime_seconds),
                "resource": facts.get("resource", ""),
                "token_type": "Bearer",
            }
        )
