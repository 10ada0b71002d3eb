"""What the answers of the Blob service mean to streamd.

A table of statuses and error codes, without the Azure SDK. The code of the service decides before
the status does; an answer without one comes from something in between, such as a proxy, and says
nothing about our objects. Codes and their meanings:
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
"""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from streamd.effects import MICROSECONDS
from streamd.errors import (
    BlobNotFound,
    ClockSkewed,
    ContainerMissing,
    CredentialExpired,
    CredentialRejected,
    FirewallRefused,
    ObjectLocked,
    ProxyRefused,
    RightMissing,
    StorageRefused,
    StorageThrottled,
    StreamdError,
    VaultDamaged,
    VaultUnreachable,
)

_TEXT_MAX: Final = 200
_SECRETS: Final = re.compile(r"(?i)\b(sig|se|skoid|AccountKey|SharedAccessSignature)=[^&\s;'\"]+")
_EXISTS: Final = {
    "BlobAlreadyExists",
    "BlobImmutableDueToPolicy",  # it is there, and locked: as it should be
    "BlobImmutableDueToLegalHold",
    "ConditionNotMet",
    "LeaseIdMissing",
    "BlobArchived",
    "BlobBeingRehydrated",
    "SnapshotsPresent",
    "UnauthorizedBlobOverwrite",  # who may create but not overwrite, of a name that is taken
}
# of a principal that may add but not overwrite, and of a SAS as the emulator has it
_MAY_EXIST: Final = {"AuthorizationPermissionMismatch", "AuthorizationFailure"}
_CONTAINER_MISSING: Final = {"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"}
_BLOB_MISSING: Final = {"BlobNotFound", "ResourceNotFound"}
_LOCKED: Final = {  # code → why it stays, as the metric says it
    "BlobImmutableDueToPolicy": "immutable",
    "BlobImmutableDueToLegalHold": "hold",
    "ContainerImmutable": "immutable",
    "LeaseIdMissing": "hold",  # somebody has leased it, so that it stays
}
_THROTTLED_CODES: Final = {"ServerBusy", "AccountRequestRateExceeded", "TooManyRequests"}
_DAMAGED: Final = {"InvalidRange"}
_REJECTED: Final = {
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
    "KeyBasedAuthenticationNotPermitted",
    "AccountIsDisabled",
}
_RIGHT_MISSING: Final = {
    "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions",
    "AuthorizationResourceTypeMismatch",
    "AuthorizationServiceMismatch",
    "AuthorizationProtocolMismatch",
}
_FIREWALL: Final = {
    "AuthorizationFailure",
    "AuthorizationSourceIPMismatch",
    "PublicAccessNotPermitted",
}
_EMULATOR_REJECTED: Final = "failed to authenticate"  # Azurite says AuthorizationFailure to that
_EXPIRED_WORDS: Final = ("expired", "Expiry [", "not valid in the specified time frame")
_THROTTLED: Final = {429, 503}
_UNAUTHORIZED, _FORBIDDEN, _PROXY_AUTH = 401, 403, 407
_REFUSED: Final = {_UNAUTHORIZED, _FORBIDDEN}
_TIMED_OUT: Final = 408
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
SKEW_SECONDS_MAX: Final = 300  # the service itself allows 15 minutes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered instead of success; all None if nothing came back."""

    status: int | None = None
    code: str | None = None  # x-ms-error-code
    text: str = ""
    retry_after: str | None = None  # seconds or an HTTP date
    date: str | None = None  # the server's clock when it answered


def may_exist(answer: Answer) -> bool:
    """Return whether a create-only put may have been refused because the name is taken."""
    return answer.code in _EXISTS or answer.code in _MAY_EXIST


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of the service, and as whom: for messages, and to tell refusals apart."""

    doing: str
    name: str  # empty if it was about the container
    container: str
    endpoint: str
    place: str = "vault.auth"  # where an operator finds our credential
    now_us: int = 0  # our clock
    begins_us: int | None = None  # when the credential becomes valid, if it says so
    expires_us: int | None = None


def meaning(answer: Answer, asked: Asked) -> StreamdError:
    """Return the error to raise for `answer`."""
    what = f"{asked.doing} {asked.name or asked.container}: {_described(answer)}"
    return (
        _by_code(answer, asked) or _refusal(answer, what, asked) or _by_status(answer, what, asked)
    )


def _by_code(answer: Answer, asked: Asked) -> StreamdError | None:
    name, container, code = asked.name, asked.container, answer.code
    if code in _CONTAINER_MISSING:
        return ContainerMissing(f"there is no container {container} ({code})", name=container)
    if code in _BLOB_MISSING and name:
        return BlobNotFound(f"there is no object {name}", name=name)
    if code is not None and code in _LOCKED and asked.doing == "delete":
        return ObjectLocked(f"{name} must not be deleted yet: {code}", reason=_LOCKED[code])
    if code in _DAMAGED:
        return VaultDamaged(f"{name} ends before the requested range", name=name)
    return None


def _refusal(answer: Answer, what: str, asked: Asked) -> StreamdError | None:
    """Return which kind of "no" it is: the credential, a right, the firewall, the proxy."""
    status, code = answer.status, answer.code
    if status == _PROXY_AUTH:
        return ProxyRefused(what, proxy="the proxy wants a password")
    facts: dict[str, object] = {"status": status, "code": code, "doing": asked.doing}
    facts |= {"endpoint": asked.endpoint, "place": asked.place}
    if code in _RIGHT_MISSING:
        return RightMissing(what, **facts)
    rejected = code in _REJECTED or (status == _UNAUTHORIZED and code is not None)
    if code in _FIREWALL:
        if _EMULATOR_REJECTED not in answer.text:
            return FirewallRefused(what, **facts)
        rejected = True
    return _rejection(answer, what, asked, facts) if rejected else None


def _rejection(
    answer: Answer, what: str, asked: Asked, facts: dict[str, object]
) -> CredentialRejected:
    """Return why a credential is not taken: the clocks differ, it is over, or it is wrong."""
    theirs = server_time_us(answer)
    skew = None if theirs is None else (asked.now_us - theirs) / MICROSECONDS
    if skew is not None and asked.now_us and abs(skew) > SKEW_SECONDS_MAX:
        side = "ahead of" if skew > 0 else "behind"
        return ClockSkewed(f"{what}: this clock is {abs(skew):.0f} s {side} the storage's", **facts)
    reference = asked.now_us if theirs is None else theirs
    if asked.begins_us is not None and reference < asked.begins_us:
        early = (asked.begins_us - reference) / MICROSECONDS
        return ClockSkewed(
            f"{what}: the SAS begins in {early:.0f} s by the storage's clock", **facts
        )
    expired = asked.expires_us is not None and reference >= asked.expires_us
    if expired or any(word in answer.text for word in _EXPIRED_WORDS):
        return CredentialExpired(what, **facts)
    return CredentialRejected(what, **facts)


def server_time_us(answer: Answer) -> int | None:
    """Return what the server's clock said when it answered; None if it did not tell."""
    try:
        return int(parsedate_to_datetime(answer.date or "").timestamp()) * MICROSECONDS
    except (ValueError, TypeError):
        return None


def _by_status(answer: Answer, what: str, asked: Asked) -> StreamdError:
    status = answer.status or 0
    if status in _THROTTLED or answer.code in _THROTTLED_CODES:
        return StorageThrottled(what, retry_after_seconds=retry_after_seconds(answer))
    understood = _CLIENT_ERROR <= status < _SERVER_ERROR and status != _TIMED_OUT
    if status in _REFUSED or (understood and answer.code is not None):
        return StorageRefused(what, status=status, code=answer.code)
    error = VaultUnreachable(what, endpoint=asked.endpoint)
    error.retry_after_seconds = retry_after_seconds(answer)
    return error


def retry_after_seconds(answer: Answer) -> float | None:
    """Return how long the service asks us to wait, by its own clock; None if it does not."""
    if answer.retry_after is None:
        return None
    try:
        return max(0.0, float(answer.retry_after))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(answer.retry_after)
        return max(0.0, (until - parsedate_to_datetime(answer.date or "")).total_seconds())
    except (ValueError, TypeError):
        return None


def without_secrets(text: str) -> str:
    """Return the first line of `text`, shortened, with signatures and keys blotted out."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return _SECRETS.sub(r"\1=…", line)[:_TEXT_MAX]


def _described(answer: Answer) -> str:
    parts = [str(answer.status or ""), answer.code or "", without_secrets(answer.text)]
    return " ".join(part for part in parts if part) or "no answer"
