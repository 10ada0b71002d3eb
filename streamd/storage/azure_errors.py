"""What the answers of the Blob service mean to streamd.

A table of statuses and error codes, without the Azure SDK. The code of the service decides before
the status does; an answer without one comes from something in between, such as a proxy, and says
nothing about our objects.
"""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from streamd.errors import (
    BlobNotFound,
    ContainerMissing,
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
    "ConditionNotMet",
    "LeaseIdMissing",
    "BlobArchived",
    "BlobBeingRehydrated",
    "SnapshotsPresent",
}
_CONTAINER_MISSING: Final = {"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"}
_BLOB_MISSING: Final = {"BlobNotFound", "ResourceNotFound"}
_THROTTLED_CODES: Final = {"ServerBusy", "AccountRequestRateExceeded", "TooManyRequests"}
_DAMAGED: Final = {"InvalidRange"}
_THROTTLED: Final = {429, 503}
_REFUSED: Final = {401, 403, 407}  # 407 is a proxy's
_FORBIDDEN: Final = 403
_TIMED_OUT: Final = 408
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered instead of success; all None if nothing came back."""

    status: int | None = None
    code: str | None = None  # x-ms-error-code
    text: str = ""
    retry_after: str | None = None  # seconds or an HTTP date
    date: str | None = None  # the server's clock when it answered


def may_exist(answer: Answer) -> bool:
    """Return whether a create-only put may have been refused because the name is taken.

    Who may create but not overwrite is told 403 about an object that exists.
    """
    return answer.code in _EXISTS or answer.status == _FORBIDDEN


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the service: for messages, and for errors that name their object."""

    doing: str
    name: str  # empty if it was about the container
    container: str
    endpoint: str


def meaning(answer: Answer, asked: Asked) -> StreamdError:
    """Return the error to raise for `answer`."""
    what = f"{asked.doing} {asked.name or asked.container}: {_described(answer)}"
    return _by_code(answer, asked) or _by_status(answer, what, asked.endpoint)


def _by_code(answer: Answer, asked: Asked) -> StreamdError | None:
    name, container, code = asked.name, asked.container, answer.code
    if code in _CONTAINER_MISSING:
        return ContainerMissing(f"there is no container {container} ({code})", name=container)
    if code in _BLOB_MISSING and name:
        return BlobNotFound(f"there is no object {name}", name=name)
    if code in _DAMAGED:
        return VaultDamaged(f"{name} ends before the requested range", name=name)
    return None


def _by_status(answer: Answer, what: str, endpoint: str) -> StreamdError:
    status = answer.status or 0
    if status in _THROTTLED or answer.code in _THROTTLED_CODES:
        return StorageThrottled(what, retry_after_seconds=retry_after_seconds(answer))
    understood = _CLIENT_ERROR <= status < _SERVER_ERROR and status != _TIMED_OUT
    if status in _REFUSED or (understood and answer.code is not None):
        return StorageRefused(what, status=status, code=answer.code)
    return VaultUnreachable(what, endpoint=endpoint)


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
