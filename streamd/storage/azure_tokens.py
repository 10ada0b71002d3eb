"""Tokens of Entra ID, renewed when half of their life is over.

A token that is renewed at the last moment turns every hiccup of the token service into an outage.
Renewed at half-time, an hour's token bridges half an hour without it. Each renewal is a new
credential, so that what it reads (a certificate, a federated token) is read again, too.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import AzureError, ClientAuthenticationError

from streamd.effects import MICROSECONDS, Clock
from streamd.errors import (
    ConfigInvalid,
    CredentialExpired,
    CredentialRejected,
    IdentityUnavailable,
    StreamdError,
)
from streamd.storage.azure_errors import without_secrets

_FETCH_SECONDS: Final = 12.0  # below the deadline of a request
_AGAIN_SECONDS: Final = 30.0  # after a renewal that failed while the old token is good
_LAST_SECONDS: Final = 30.0  # of a token are not used: a request takes its time
_SERVER_ERROR, _TOO_MANY = 500, 429
_SECRET_EXPIRED: Final = ("AADSTS7000222", "AADSTS700024", "AADSTS700082")
_SILENT: Final = ("no response", "timed out", "Connection refused", "unreachable")


class EarlyToken:
    """A credential for the SDK. `make` returns one of the SDK's; `on_token` hears of expiries."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        place: str,
        clock: Clock,
        on_token: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._place = place
        self._clock = clock
        self._on_token = on_token
        self._lock = asyncio.Lock()
        self._scopes: tuple[str, ...] = ()
        self._token: AccessTokenInfo | None = None
        self._renew_at = 0.0

    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        """Return a token that is good for a while; called by the SDK for every request."""
        async with self._lock:
            now = self._clock.now_us() / MICROSECONDS
            token = self._token
            asked = bool(options and options.get("claims"))
            if self._scopes not in {(), scopes}:
                return await self._fetch(scopes, options)  # for another service, and rarely
            self._scopes = scopes
            if token is not None and now < self._renew_at and not asked:
                return token
            try:
                fresh = await self._fetch(scopes, options)
            except StreamdError:
                if token is None or asked or now >= token.expires_on - _LAST_SECONDS:
                    raise
                self._renew_at = now + _AGAIN_SECONDS
                return token
            self._renew_at = now + (fresh.expires_on - now) / 2
            self._token = AccessTokenInfo(
                fresh.token,
                fresh.expires_on,
                token_type=fresh.token_type,
                refresh_on=int(self._renew_at),
            )
            self._on_token(int(fresh.expires_on) * MICROSECONDS)
            return self._token

    async def get_token(self, *scopes: str, claims: str | None = None, **_: Any) -> AccessToken:
        """Return the same as `get_token_info`, for older parts of the SDK."""
        token = await self.get_token_info(*scopes, options={"claims": claims} if claims else None)
        return AccessToken(token.token, token.expires_on)

    async def close(self) -> None:
        """Nothing is open between two renewals."""

    async def _fetch(self, scopes: tuple[str, ...], options: Any) -> AccessTokenInfo:
        try:
            credential = self._make()
        except ValueError as error:
            raise ConfigInvalid(f"{self._place}: {without_secrets(str(error))}") from error
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                token: AccessTokenInfo = await credential.get_token_info(*scopes, options=options)
                return token
        except ClientAuthenticationError as error:
            raise _meaning(error, self._place) from error
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            what = f"no token for vault.auth = {self._place}: {error.strerror}: {error.filename}"
            facts: dict[str, object] = {"place": str(error.filename), "status": None, "code": None}
            raise CredentialRejected(what, **facts) from error
        except (AzureError, OSError, TimeoutError) as error:
            raise _unavailable(error, self._place) from error
        finally:
            await credential.close()


def _meaning(error: ClientAuthenticationError, place: str) -> StreamdError:
    status = getattr(error.response, "status_code", None)
    text = str(error.message or "")
    if status is not None and (status >= _SERVER_ERROR or status == _TOO_MANY):
        return _unavailable(error, place)
    if status is None and place == "managed-identity" and any(word in text for word in _SILENT):
        return _unavailable(error, place)
    what = f"no token for vault.auth = {place}: {without_secrets(text)}"
    facts: dict[str, object] = {"place": f"vault.auth = {place}", "status": status, "code": None}
    if any(code in text for code in _SECRET_EXPIRED):
        return CredentialExpired(what, **facts)
    return CredentialRejected(what, **facts)


def _unavailable(error: BaseException, place: str) -> IdentityUnavailable:
    text = without_secrets(str(error)) or type(error).__name__
    who = "the metadata service of this machine" if place == "managed-identity" else "Entra ID"
    return IdentityUnavailable(f"no token for vault.auth = {place}: {text}", endpoint=who)
