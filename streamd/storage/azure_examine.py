"""Looking at a container as an operator would: which rights we have, tried one by one, and how the
account is set.

For `streamd doctor`. Every right is tried by using it on an object of its own below `doctor/`,
because what a role or a token says and what the service does are not always the same.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from streamd.errors import BlobConflict, BlobNotFound, StorageRefused, StreamdError
from streamd.storage.port import BlobInfo, BlobName, Bytes

_T = TypeVar("_T")
PROBE_PREFIX: Final = "doctor/"
_CONTENT: Final = b"written by streamd doctor; may be deleted\n"


class Asking(Protocol):
    """The part of AzureBlobStore that this needs: the port, and requests that are not in it."""

    async def put(self, name: BlobName, data: Bytes) -> None:
        """Create an object; see the port."""

    async def get(self, name: BlobName, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return a range; see the port."""

    @property
    def prefix(self) -> str:
        """What every name begins with in the container."""

    def scan(self, prefix: str) -> Any:
        """List; see the port."""

    async def delete(self, name: BlobName) -> None:
        """Delete; see the port."""

    async def token(self, scope: str) -> str | None:
        """Return a token for another service; None if we prove who we are by a key or a SAS."""

    async def ask(self, doing: str, request: Callable[[Any, Any], Awaitable[_T]]) -> _T:
        """Make a request with the SDK's clients of container and account."""


@dataclass(slots=True)
class Tried:
    """How using a right went: `error` is what the service said instead."""

    has: bool | None
    error: StreamdError | None = None


@dataclass(slots=True)
class ContainerFacts:
    """What was found. None: it could not be looked at with these rights."""

    reached: StreamdError | None = None
    skew_seconds: float | None = None  # our clock minus the service's
    rights: dict[str, Tried] = field(default_factory=dict)
    versioning: bool | None = None
    hierarchical: bool | None = None
    kind: str = ""  # of the account, and its redundancy
    soft_delete_days: int | None = None  # 0: off
    version_locks: bool | None = None  # version-level immutability is possible
    has_policy: bool | None = None  # an immutability policy of the container
    has_hold: bool | None = None


async def examine(store: Asking, token: str, now: Callable[[], float]) -> ContainerFacts:
    """Look at everything. `token` makes the probe's name unique; `now` is the host's clock."""
    facts = ContainerFacts()
    try:
        await store.ask("look at", lambda c, _: _properties(c, facts, now))
    except StorageRefused:
        pass  # the properties of the container need more than the objects do
    except StreamdError as error:
        facts.reached = error
        return facts
    await _try_rights(store, BlobName(f"{PROBE_PREFIX}{token}"), facts, now)
    await _account(store, facts)
    return facts


async def _properties(container: Any, facts: ContainerFacts, now: Callable[[], float]) -> None:
    found = await container.get_container_properties(raw_response_hook=_clock(facts, now))
    facts.has_policy = bool(found.has_immutability_policy)
    facts.has_hold = bool(found.has_legal_hold)
    facts.version_locks = bool(found.immutable_storage_with_versioning_enabled)


def _clock(facts: ContainerFacts, now: Callable[[], float]) -> Callable[[Any], None]:
    """Return a hook that compares our clock with the one in the answer."""
    from email.utils import parsedate_to_datetime  # nobody else here needs it

    def hook(response: Any) -> None:
        date = response.http_response.headers.get("Date")
        if date:
            facts.skew_seconds = now() - parsedate_to_datetime(date).timestamp()

    return hook


async def _try_rights(
    store: Asking, name: BlobName, facts: ContainerFacts, now: Callable[[], float]
) -> None:
    async def listed() -> None:
        found: list[BlobInfo] = [info async for info in store.scan(name)]
        if facts.rights["create"].has and not found:
            raise BlobNotFound(f"{name} is not listed", name=name)

    async def overwrite(container: Any, _: Any) -> None:
        blob = container.get_blob_client(f"{store.prefix}{name}")
        await blob.upload_blob(_CONTENT, overwrite=True)

    async def create(container: Any, _: Any) -> None:
        blob = container.get_blob_client(f"{store.prefix}{name}")
        made = await blob.upload_blob(
            _CONTENT, overwrite=False, raw_response_hook=_clock(facts, now)
        )
        facts.versioning = bool(made.get("version_id"))

    rights = facts.rights
    rights["create"] = await _try(lambda: store.ask("put", create))
    rights["read"] = await _try(lambda: store.get(name))
    rights["list"] = await _try(listed)
    rights["keep"] = await _try(lambda: _must_conflict(store, name))
    rights["overwrite"] = await _try(lambda: store.ask("put", overwrite))
    rights["delete"] = await _try(lambda: store.delete(name))
    if not rights["create"].has:  # then these tried nothing
        for right in ("read", "keep", "overwrite", "delete"):
            rights[right].has = None


async def _must_conflict(store: Asking, name: BlobName) -> None:
    """Raise unless a create-only put of other bytes is refused."""
    try:
        await store.put(name, _CONTENT + b"other")
    except (BlobConflict, StorageRefused):
        return
    raise BlobConflict(f"{name} was replaced by a create-only put", name=name)


async def _try(use: Callable[[], Awaitable[object]]) -> Tried:
    try:
        await use()
    except StorageRefused as error:
        return Tried(has=False, error=error)
    except BlobNotFound as error:
        return Tried(has=None, error=error)
    except StreamdError as error:
        return Tried(has=None, error=error)
    return Tried(has=True)


async def _account(store: Asking, facts: ContainerFacts) -> None:
    async def information(container: Any, _: Any) -> None:
        found = await container.get_account_information()
        facts.kind = f"{found.get('account_kind')}, {found.get('sku_name')}"
        hierarchical = found.get("is_hns_enabled")
        facts.hierarchical = None if hierarchical is None else bool(hierarchical)

    async def properties(_: Any, service: Any) -> None:
        found = await service.get_service_properties()
        policy = found.get("delete_retention_policy")
        if policy is not None:
            facts.soft_delete_days = int(policy.days or 0) if policy.enabled else 0

    await _try(lambda: store.ask("look at", information))
    await _try(lambda: store.ask("look at", properties))


def utc_seconds() -> float:
    """Return this host's clock, in seconds since the epoch."""
    return datetime.now(UTC).timestamp()  # noqa: TID251 - what is to be judged is this very clock
