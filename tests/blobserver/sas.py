"""Shared access signatures: of the service, of the account, and of a user delegation key.

https://learn.microsoft.com/rest/api/storageservices/create-service-sas and its neighbours. The
formats are those of version 2020-12-06 and later; older ones are refused.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from datetime import datetime

from blobserver.clock import ServiceClock
from blobserver.records import Account
from blobserver.signing import signature
from blobserver.wire import Refused, Request, parsed_date

_OLDEST = "2020-12-06"
_DELEGATION = ("skoid", "sktid", "skt", "ske", "sks", "skv")
_TENANTS_SINCE = "2025-07-05"  # from here two more fields of a delegated user are signed


def check_sas(request: Request, account: Account, clock: ServiceClock) -> str:
    """Return the permissions that the token grants; raise Refused if it is none for `request`."""
    given = {name: request.option(name) for name in request.query}
    if given.get("sv", "") < _OLDEST:
        raise _failed("the signature's version is not supported")
    if "ss" in given:
        _check_account_sas(given, request, account)
    else:
        _check_service_sas(given, request, account, clock)
    _check_circumstances(given, request, clock)
    return given.get("sp", "")


def _check_account_sas(given: Mapping[str, str], request: Request, account: Account) -> None:
    names = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
    text = "\n".join([account.name, *(given.get(name, "") for name in names), ""])
    _check_signature(given, text, account.keys)
    if "b" not in given["ss"]:
        raise Refused(403, "AuthorizationServiceMismatch")
    kind = "o" if request.blob else "c" if request.container else "s"
    if kind == "c" and request.option("comp") == "list" and request.option("restype"):
        kind = "c"
    if kind not in given.get("srt", ""):
        raise Refused(403, "AuthorizationResourceTypeMismatch")


def _check_service_sas(
    given: Mapping[str, str], request: Request, account: Account, clock: ServiceClock
) -> None:
    resource = given.get("sr", "")
    if not request.container or resource not in {"b", "c"}:
        raise _failed("the signature is not for this resource")
    path = f"/blob/{account.name}/{request.container}"
    if resource == "b":
        path += f"/{request.blob}"
    if "skoid" in given:
        keys = [_delegation_key(given, account, clock)]
        middle = _delegated(given)
        tail = ["", ""]
    else:
        keys, middle, tail = account.keys, [given.get("si", "")], []
    fields = [
        given.get("sp", ""), given.get("st", ""), given.get("se", ""), path, *middle,
        given.get("sip", ""), given.get("spr", ""), given.get("sv", ""), resource, "",
        given.get("ses", ""), *tail,
        *(given.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct")),
    ]  # fmt: skip
    _check_signature(given, "\n".join(fields), keys, also=_shorter(fields, tail))


def _shorter(fields: list[str], tail: list[str]) -> list[str]:
    """Return what older SDKs sign with a delegation key: no headers, no query parameters."""
    if not tail:
        return []
    return ["\n".join([*fields[: -5 - len(tail)], *fields[-5:]])]


def _delegated(given: Mapping[str, str]) -> list[str]:
    fields = [given.get(name, "") for name in (*_DELEGATION, "saoid", "suoid", "scid")]
    if given.get("sv", "") >= _TENANTS_SINCE:
        fields += [given.get("skdutid", ""), given.get("sduoid", "")]
    return fields


def _delegation_key(given: Mapping[str, str], account: Account, clock: ServiceClock) -> bytes:
    start, end = parsed_date(given.get("skt", "")), parsed_date(given.get("ske", ""))
    if start is None or end is None or not start <= clock.wall() < end:
        raise _failed("the user delegation key is not valid now")
    if account.revoked_before is not None and start < account.revoked_before:
        raise _failed("the user delegation key was revoked")
    return account.delegation_key(tuple(given.get(name, "") for name in _DELEGATION))


def _check_signature(
    given: Mapping[str, str], text: str, keys: list[bytes], also: list[str] | None = None
) -> None:
    expected = [signature(key, each) for key in keys for each in (text, *(also or ()))]
    if not any(hmac.compare_digest(each, given.get("sig", "")) for each in expected):
        raise _failed("Signature did not match.")


def _check_circumstances(given: Mapping[str, str], request: Request, clock: ServiceClock) -> None:
    now = clock.wall()
    start, end = _moment(given, "st"), _moment(given, "se")
    if end is None or now >= end:
        raise _failed(f"Signature not valid in the specified time frame: Expiry [{end}]")
    if start is not None and now < start:
        raise _failed(f"Signature not valid in the specified time frame: Start [{start}]")
    if given.get("spr") == "https" and not request.is_secure:
        raise Refused(403, "AuthorizationProtocolMismatch")
    allowed = given.get("sip", "")
    if allowed:
        first, _, last = allowed.partition("-")
        peer = ipaddress.ip_address(request.peer)
        if not ipaddress.ip_address(first) <= peer <= ipaddress.ip_address(last or first):
            raise Refused(403, "AuthorizationSourceIPMismatch")


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    return parsed_date(given[name]) if given.get(name) else None


def _failed(detail: str) -> Refused:
    return Refused(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header"
        f" is formed correctly including the signature. {detail}",
    )
