"""Access tiers, and how long it takes to get something back from the archive."""

from datetime import datetime, timedelta

from blobserver.records import Version
from blobserver.wire import Answer, Refused, Request

_TIERS = ("Hot", "Cool", "Cold", "Archive")
_REHYDRATION = {"standard": timedelta(hours=15), "high": timedelta(hours=1)}


def tier_of_put(request: Request) -> tuple[str, bool]:
    """Return the tier of a new blob, and whether it is the account's default."""
    asked = request.header("x-ms-access-tier")
    return (_named(asked), False) if asked else ("Hot", True)


def settle(version: Version, now: datetime) -> None:
    """Let a rehydration end whose time has come."""
    if version.rehydrated_at is not None and now >= version.rehydrated_at:
        version.tier, version.tier_changed = version.rehydrating_to, version.rehydrated_at
        version.rehydrating_to, version.rehydrated_at = "", None


def check_online(version: Version, now: datetime) -> None:
    """Raise Refused if the content cannot be read now."""
    settle(version, now)
    if version.tier != "Archive":
        return
    if version.rehydrated_at is not None:
        raise Refused(409, "BlobBeingRehydrated", "This blob is being rehydrated.")
    raise Refused(409, "BlobArchived", "This operation is not permitted on an archived blob.")


def set_tier(request: Request, version: Version, now: datetime) -> Answer:
    """Change the tier; out of the archive it takes hours."""
    settle(version, now)
    wanted = _named(request.header("x-ms-access-tier"))
    priority = request.header("x-ms-rehydrate-priority").lower() or "standard"
    if version.tier == "Archive" and wanted != "Archive":
        if version.rehydrated_at is not None:
            if priority != "high":
                raise Refused(409, "BlobBeingRehydrated", "This blob is being rehydrated.")
            version.rehydrated_at = min(version.rehydrated_at, now + _REHYDRATION["high"])
            return Answer(202)
        version.rehydrating_to = wanted
        version.rehydrated_at = now + _REHYDRATION.get(priority, _REHYDRATION["standard"])
        return Answer(202)
    if version.rehydrated_at is not None:
        raise Refused(409, "BlobBeingRehydrated", "This blob is being rehydrated.")
    version.tier, version.tier_inferred, version.tier_changed = wanted, False, now
    return Answer(200)


def archive_status(version: Version) -> str:
    """Return how a rehydration under way is called, or an empty text."""
    if not version.rehydrating_to:
        return ""
    return f"rehydrate-pending-to-{version.rehydrating_to.lower()}"


def _named(text: str) -> str:
    for tier in _TIERS:
        if tier.lower() == text.lower():
            return tier
    raise Refused(400, "InvalidHeaderValue", "x-ms-access-tier")
