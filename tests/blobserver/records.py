"""What the service holds: accounts, containers, blobs with their versions, and leases."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

# The well-known key of emulators: public, protects nothing.
EMULATOR_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(slots=True)
class Lease:
    """A lock on a blob or a container; `until` None with an id is an infinite one."""

    id: str = ""
    duration: int = 0  # seconds, -1 for ever
    until: datetime | None = None
    broken_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """Return the state's documented name."""
        if not self.id:
            return "available"
        if self.broken_at is not None:
            return "broken" if now >= self.broken_at else "breaking"
        if self.until is not None and now >= self.until:
            return "expired"
        return "leased"

    def is_held(self, now: datetime) -> bool:
        """Return whether writing needs this lease's id."""
        return self.state(now) in {"leased", "breaking"}


@dataclass(slots=True)
class Version:
    """One state of a blob: content that never changes, and properties that may."""

    id: str
    content: bytes
    md5: bytes
    created: datetime
    modified: datetime
    etag: str
    content_type: str = "application/octet-stream"
    cache_control: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    tier: str = "Hot"
    tier_inferred: bool = True
    tier_changed: datetime | None = None
    rehydrating_to: str = ""
    rehydrated_at: datetime | None = None
    locked_until: datetime | None = None
    lock_mode: str = ""  # unlocked or locked
    has_hold: bool = False
    deleted_at: datetime | None = None  # soft-deleted then


@dataclass(slots=True)
class Blob:
    """All that has stood under one name."""

    name: str
    current: Version | None = None
    older: dict[str, Version] = field(default_factory=dict)  # by version id, oldest first
    lease: Lease = field(default_factory=Lease)
    blocks: dict[str, bytes] = field(default_factory=dict)  # put and not committed

    @property
    def is_gone(self) -> bool:
        """Return whether nothing is left of it."""
        return self.current is None and not self.older and not self.blocks


@dataclass(slots=True)
class Container:
    """A name space of blobs."""

    name: str
    etag: str
    modified: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    lease: Lease = field(default_factory=Lease)
    blobs: dict[str, Blob] = field(default_factory=dict)
    default_lock: tuple[timedelta, str] | None = None  # period and mode, version-level WORM
    has_version_worm: bool = False
    has_hold: bool = False


@dataclass(slots=True)
class Account:
    """A storage account and its settings, which are not part of the data plane."""

    name: str
    keys: list[bytes] = field(default_factory=lambda: [base64.b64decode(EMULATOR_KEY)])
    containers: dict[str, Container] = field(default_factory=dict)
    deleting: dict[str, datetime] = field(default_factory=dict)  # name → when it may be reused
    versioning: bool = False
    soft_delete: timedelta | None = None
    is_hierarchical: bool = False
    firewall: Callable[[str], bool] = lambda _: True  # may this address come in?
    shared_key_allowed: bool = True
    # what a principal (by object id) may do, as letters of SAS permissions; None: everything
    roles: dict[str, str] = field(default_factory=dict)
    overwritten: int = 0  # puts that replaced something: a vault makes none
    revoked_before: datetime | None = None  # user delegation keys from before are void

    def delegation_key(self, facts: tuple[str, ...]) -> bytes:
        """Return the user delegation key that belongs to the facts that a SAS repeats."""
        return hmac.digest(b"delegation" + self.keys[0], "\n".join(facts).encode(), "sha256")

    def replace_keys(self) -> bytes:
        """Regenerate the account's keys: what was signed before is void. Returns the new one."""
        new = hashlib.sha512(b"rotated" + self.keys[0]).digest()
        self.keys = [new]
        return new
