"""Version-level WORM and legal holds.

https://learn.microsoft.com/azure/storage/blobs/immutable-version-level-worm-policies
A version is protected while its period runs or a hold lies on it. A name is not: overwriting and
deleting the current version only make it an older one.
"""

from datetime import datetime

from blobserver.records import Container, Version
from blobserver.wire import Answer, Refused, Request, http_date, parsed_date


def inherit(version: Version, container: Container, now: datetime) -> None:
    """Give a new version the container's default policy, locked or unlocked as that one is."""
    if container.default_lock is not None:
        period, mode = container.default_lock
        version.locked_until, version.lock_mode = now + period, mode


def ask_lock(request: Request, version: Version, container: Container, now: datetime) -> None:
    """Give a new version what its put asks for; explicit policies begin unlocked or locked."""
    if request.header("x-ms-immutability-policy-until-date"):
        set_policy(request, version, container, now)
    if request.header("x-ms-legal-hold").lower() == "true":
        _need_worm(container)
        version.has_hold = True


def check_unlocked(version: Version, container: Container, now: datetime) -> None:
    """Raise Refused if `version` must stay as it is."""
    if version.has_hold or container.has_hold:
        raise Refused(409, "BlobImmutableDueToLegalHold")
    if version.locked_until is not None and now < version.locked_until:
        raise Refused(
            409,
            "BlobImmutableDueToPolicy",
            "This operation is not permitted as the blob is immutable due to a policy.",
        )


def set_policy(request: Request, version: Version, container: Container, now: datetime) -> Answer:
    """Set, lock or extend the policy of one version."""
    _need_worm(container)
    until = parsed_date(request.header("x-ms-immutability-policy-until-date"))
    mode = request.header("x-ms-immutability-policy-mode").lower() or "unlocked"
    if until is None or until <= now or mode not in {"unlocked", "locked"}:
        raise Refused(400, "InvalidHeaderValue", "x-ms-immutability-policy-until-date")
    if version.lock_mode == "locked":
        shortens = version.locked_until is not None and until < version.locked_until
        if shortens or mode != "locked":
            raise Refused(409, "BlobImmutableDueToPolicy", "A locked policy can only be extended.")
    version.locked_until, version.lock_mode = until, mode
    return Answer(200, lock_headers(version))


def delete_policy(version: Version) -> Answer:
    """Take an unlocked policy away."""
    if version.lock_mode == "locked":
        raise Refused(409, "BlobImmutableDueToPolicy", "A locked policy cannot be deleted.")
    version.locked_until, version.lock_mode = None, ""
    return Answer(200)


def set_hold(request: Request, version: Version, container: Container) -> Answer:
    """Put a legal hold on a version, or take it away."""
    _need_worm(container)
    version.has_hold = request.header("x-ms-legal-hold").lower() == "true"
    return Answer(200, {"x-ms-legal-hold": str(version.has_hold).lower()})


def lock_headers(version: Version) -> dict[str, str]:
    """Return what a HEAD tells about the locks."""
    headers = {}
    if version.locked_until is not None:
        headers["x-ms-immutability-policy-until-date"] = http_date(version.locked_until)
        headers["x-ms-immutability-policy-mode"] = version.lock_mode
    if version.has_hold:
        headers["x-ms-legal-hold"] = "true"
    return headers


def _need_worm(container: Container) -> None:
    if not container.has_version_worm:
        raise Refused(
            400,
            "VersionLevelImmutabilityNotEnabled",
            "Immutable storage with versioning is not enabled on this container.",
        )
