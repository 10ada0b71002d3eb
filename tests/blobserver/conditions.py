"""If-Match and its relatives, and the ids of leases."""

from datetime import datetime, timedelta

from blobserver.records import Lease, Version
from blobserver.wire import Refused, Request, parsed_date


def check_conditions(request: Request, version: Version | None) -> None:
    """Raise Refused unless the request's conditions hold for what is there.

    A read that finds nothing new is 304; a create-only put of a name that is taken is 409, as the
    service has it, and any other condition that fails is 412.
    """
    reads = request.method in {"GET", "HEAD"}
    wanted, unwanted = request.header("If-Match"), request.header("If-None-Match")
    if wanted and (version is None or wanted not in {"*", version.etag}):
        raise _failed()
    if unwanted and version is not None and unwanted in {"*", version.etag}:
        if reads:
            raise Refused(304, "ConditionNotMet")
        if unwanted == "*":
            raise Refused(409, "BlobAlreadyExists", "The specified blob already exists.")
        raise _failed()
    _check_times(request, version, reads=reads)


def _check_times(request: Request, version: Version | None, *, reads: bool) -> None:
    if version is None:
        return
    modified = version.modified.replace(microsecond=0)
    since = parsed_date(request.header("If-Modified-Since"))
    if since is not None and modified <= since:
        raise Refused(304, "ConditionNotMet") if reads else _failed()
    until = parsed_date(request.header("If-Unmodified-Since"))
    if until is not None and modified > until:
        raise _failed()


def _failed() -> Refused:
    return Refused(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )


def check_lease(request: Request, lease: Lease, now: datetime, *, writes: bool) -> None:
    """Raise Refused if a lease forbids the request, or the one that it names is not there."""
    given = request.header("x-ms-lease-id")
    held = lease.is_held(now)
    if held and writes and not given:
        raise Refused(
            412, "LeaseIdMissing", "There is currently a lease and no lease ID was specified."
        )
    if given and held and given != lease.id:
        raise Refused(412, "LeaseIdMismatchWithBlobOperation")
    if given and not held:
        lost = lease.id == given
        raise Refused(412, "LeaseLost" if lost else "LeaseNotPresentWithBlobOperation")


def change_lease(request: Request, lease: Lease, now: datetime, fresh_id: str) -> tuple[int, int]:
    """Do what `x-ms-lease-action` asks; return the status and the seconds left of a broken one."""
    action = request.header("x-ms-lease-action").lower()
    given = request.header("x-ms-lease-id")
    state = lease.state(now)
    if action == "acquire":
        _acquire(request, lease, now, fresh_id)
        return 201, 0
    if action == "break":
        return 202, _break(request, lease, now)
    if state == "available" or (action != "release" and state == "broken"):
        raise Refused(409, "LeaseNotPresentWithLeaseOperation")
    if given != lease.id:
        raise Refused(409, "LeaseIdMismatchWithLeaseOperation")
    if action == "renew":
        lease.until = None if lease.duration < 0 else now + timedelta(seconds=lease.duration)
        return 200, 0
    if action == "change":
        lease.id = request.header("x-ms-proposed-lease-id")
        return 200, 0
    if action == "release":
        lease.id, lease.until, lease.broken_at = "", None, None
        return 200, 0
    raise Refused(400, "InvalidHeaderValue", "x-ms-lease-action")


def _acquire(request: Request, lease: Lease, now: datetime, fresh_id: str) -> None:
    proposed = request.header("x-ms-proposed-lease-id") or fresh_id
    if lease.is_held(now) and proposed != lease.id:
        raise Refused(409, "LeaseAlreadyPresent", "There is already a lease present.")
    duration = int(request.header("x-ms-lease-duration") or -1)
    if duration != -1 and not 15 <= duration <= 60:
        raise Refused(400, "InvalidHeaderValue", "x-ms-lease-duration")
    lease.id, lease.duration, lease.broken_at = proposed, duration, None
    lease.until = None if duration < 0 else now + timedelta(seconds=duration)


def _break(request: Request, lease: Lease, now: datetime) -> int:
    if lease.state(now) == "available":
        raise Refused(409, "LeaseNotPresentWithLeaseOperation")
    asked = request.header("x-ms-lease-break-period")
    left = 0 if lease.until is None else max(0, int((lease.until - now).total_seconds()))
    wait = min(int(asked), left) if asked and lease.until else int(asked or left)
    if lease.broken_at is None:
        lease.broken_at = now + timedelta(seconds=wait)
    return max(0, int((lease.broken_at - now).total_seconds()))
