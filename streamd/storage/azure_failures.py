"""What it means when no answer came at all: TLS, proxy, name resolution, silence."""

import ssl
from collections.abc import Iterator
from typing import Final

import aiohttp

from streamd.errors import (
    ProxyRefused,
    StreamdError,
    TlsExpired,
    TlsFailed,
    TlsUntrusted,
    TlsWrongName,
    VaultUnreachable,
)
from streamd.storage.azure_errors import without_secrets

# X509_V_ERR_… of OpenSSL
_NOT_VALID_NOW: Final = {9, 10}
_OTHER_NAME: Final = {62, 63, 64}
_PROXY_BUSY: Final = 500  # from here on it is the proxy's own trouble, and may pass
_DEPTH_MAX: Final = 12


def failure(error: BaseException, what: str, endpoint: str) -> StreamdError:
    """Return what to raise for `error`, which came instead of an answer."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_code"):
            return _certificate(cause, what, endpoint)
    for cause in causes:
        if isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status < _PROXY_BUSY:
            said = f"{what}: the proxy answers {cause.status} {without_secrets(cause.message)}"
            return ProxyRefused(said, proxy=f"status {cause.status}")
        if isinstance(cause, aiohttp.ClientConnectorSSLError):
            return TlsFailed(f"{what}: {_text(cause)}", endpoint=endpoint)
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            said = f"{what}: the name {cause.host} cannot be resolved"
            return VaultUnreachable(said, endpoint=endpoint)
        if isinstance(cause, aiohttp.ClientProxyConnectionError):
            said = f"{what}: the proxy {cause.host}:{cause.port} cannot be reached"
            return VaultUnreachable(said, endpoint=endpoint)
    return VaultUnreachable(f"{what}: {_text(error)}", endpoint=endpoint)


def kind_of(error: BaseException) -> str:
    """Return what happened instead of an answer, as the metric's `code` has it."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            return "407"
        if isinstance(cause, TimeoutError):
            return "timeout"
        if isinstance(cause, aiohttp.ClientPayloadError):
            return "cut"
    return "connect"


def _certificate(error: ssl.SSLCertVerificationError, what: str, endpoint: str) -> TlsFailed:
    said = f"{what}: {without_secrets(error.verify_message or str(error))}"
    if error.verify_code in _NOT_VALID_NOW:
        return TlsExpired(said, endpoint=endpoint)
    if error.verify_code in _OTHER_NAME:
        return TlsWrongName(said, endpoint=endpoint)
    return TlsUntrusted(said, endpoint=endpoint)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what led to it, however each library keeps that."""
    found: list[BaseException] = [error]
    for one in found:
        yield one
        if len(found) > _DEPTH_MAX:
            return
        for name in (
            "inner_exception",
            "certificate_error",
            "os_error",
            "__cause__",
            "__context__",
        ):
            inner = getattr(one, name, None)
            if isinstance(inner, BaseException) and inner not in found:
                found.append(inner)


def _text(error: BaseException) -> str:
    return without_secrets(str(error)) or type(error).__name__
