"""Shared Key: what a client signs, and whether it did.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

import base64
import hmac
from datetime import timedelta

from blobserver.clock import ServiceClock
from blobserver.records import Account
from blobserver.wire import Refused, Request, parsed_date

_SIGNED = (
    "Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type",
    "Date", "If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
)  # fmt: skip
_SKEW = timedelta(minutes=15)


def signature(key: bytes, text: str) -> str:
    """Return the HMAC of `text`, as it stands in headers and SAS tokens."""
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()


def check_shared_key(request: Request, account: Account, clock: ServiceClock) -> None:
    """Raise Refused unless one of the account's keys signed `request` just now."""
    scheme, _, claimed = request.header("Authorization").partition(" ")
    name, _, given = claimed.partition(":")
    if scheme != "SharedKey" or name != account.name:
        raise _failed("the Authorization header is malformed")
    if not account.shared_key_allowed:
        raise Refused(
            403,
            "KeyBasedAuthenticationNotPermitted",
            "Key based authentication is not permitted on this storage account.",
        )
    date = parsed_date(request.header("x-ms-date") or request.header("Date"))
    if date is None or abs(date - clock.wall()) > _SKEW:
        raise _failed("Request date header too old")
    text = _string_to_sign(request, account)
    if not any(hmac.compare_digest(signature(key, text), given) for key in account.keys):
        raise _failed("The MAC signature found in the HTTP request is not the same")


def _failed(detail: str) -> Refused:
    return Refused(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header"
        f" is formed correctly including the signature. {detail}",
    )


def _string_to_sign(request: Request, account: Account) -> str:
    lines = [request.method]
    for name in _SIGNED:
        value = request.header(name)
        lines.append("" if name == "Content-Length" and value == "0" else value)
    own = sorted(
        (name.lower(), value.strip())
        for name, value in request.headers.items()
        if name.lower().startswith("x-ms-")
    )
    lines += [f"{name}:{value}" for name, value in own]
    lines.append(f"/{account.name}{request.raw_path}")
    lines += [f"{name.lower()}:{value}" for name, value in sorted(request.query.items())]
    return "\n".join(lines)
