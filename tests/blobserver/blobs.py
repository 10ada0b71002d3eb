"""What can be done with one blob."""

import base64
import re
import uuid
from datetime import datetime
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

from blobserver import content, locks, tiers
from blobserver.access import Grant
from blobserver.clock import ServiceClock
from blobserver.conditions import change_lease, check_conditions, check_lease
from blobserver.records import Account, Blob, Container, Version
from blobserver.wire import Answer, Refused, Request, http_date

_NAME_MAX = 1024


class BlobOperations:
    """The operations of one request's blob."""

    def __init__(
        self, request: Request, account: Account, container: Container, clock: ServiceClock
    ) -> None:
        self._request = request
        self._account = account
        self._container = container
        self._clock = clock
        self._now = clock.now()
        if len(request.blob) > _NAME_MAX:
            raise Refused(400, "InvalidResourceName")

    def answer(self, grant: Grant) -> Answer:
        """Do what is asked."""
        request = self._request
        method, what = request.method, request.option("comp")
        if method == "PUT" and not what:
            if request.header("x-ms-copy-source"):
                return self._copy(grant)
            return self._put(grant)
        if (method, what) in _NAMED:
            letters, name = _NAMED[method, what]
            grant.require(letters)
            answer: Answer = getattr(self, name)()
            return answer
        if method == "DELETE" and not what:
            return self._delete(grant)
        raise Refused(400, "InvalidQueryParameterValue", f"comp={what}")

    # -- writing ---------------------------------------------------------------------------------

    def _put(self, grant: Grant) -> Answer:
        request = self._request
        if request.header("x-ms-blob-type") != "BlockBlob":
            raise Refused(400, "InvalidHeaderValue", "x-ms-blob-type")
        self._check_writable(grant)
        md5 = content.check_body(request)
        return self._store(request.body, md5)

    def _store(self, body: bytes, md5: bytes) -> Answer:
        request = self._request
        version = content.new_version(request, body, md5, self._clock.tick(), self._now)
        locks.inherit(version, self._container, self._now)
        locks.ask_lock(request, version, self._container, self._now)
        self._replace(version)
        return content.stored(request, version, versioning=self._account.versioning)

    def _replace(self, version: Version) -> None:
        blob = self._container.blobs.setdefault(self._request.blob, Blob(self._request.blob))
        if blob.current is not None:
            self._account.overwritten += 1
            self._retire(blob, because_deleted=False)
        blob.current = version
        blob.blocks.clear()

    def _retire(self, blob: Blob, *, because_deleted: bool) -> None:
        """Make the current version an older one, or let it go if nothing keeps it."""
        version = blob.current
        assert version is not None
        if not self._account.versioning:
            locks.check_unlocked(version, self._container, self._now)
        blob.current = None
        if self._account.versioning:
            blob.older[version.id] = version
            return
        if self._account.soft_delete is not None and because_deleted:
            version.deleted_at = self._now
            blob.older[version.id] = version

    def _check_writable(self, grant: Grant) -> None:
        """Raise Refused unless this name may be written now."""
        blob = self._container.blobs.get(self._request.blob)
        current = None if blob is None else blob.current
        if current is None:
            grant.require("cw")
        elif not grant.may("w"):
            grant.require("c")
            raise Refused(
                403,
                "UnauthorizedBlobOverwrite",
                "This request is not authorized to perform blob overwrites.",
            )
        if blob is not None:
            check_lease(self._request, blob.lease, self._now, writes=True)
        check_conditions(self._request, current)
        if current is not None:
            tiers.settle(current, self._now)
            if current.tier == "Archive" and not self._account.versioning:
                tiers.check_online(current, self._now)
            if not self._account.versioning:
                locks.check_unlocked(current, self._container, self._now)

    def _put_block(self) -> Answer:
        request = self._request
        content.check_body(request)
        blob = self._container.blobs.setdefault(request.blob, Blob(request.blob))
        blob.blocks[request.option("blockid")] = request.body
        return Answer(201, {"x-ms-request-server-encrypted": "true"})

    def _put_block_list(self) -> Answer:
        self._check_writable(Grant("cw"))
        blob = self._container.blobs.get(self._request.blob)
        blocks = {} if blob is None else blob.blocks
        try:
            wanted = [row.text or "" for row in ET.fromstring(self._request.body)]
            body = b"".join(blocks[ident] for ident in wanted)
        except KeyError as error:
            raise Refused(400, "InvalidBlockList") from error
        return self._store(body, b"")

    def _copy(self, grant: Grant) -> Answer:
        """Copy within the account, at once: how a version becomes the current one again."""
        self._check_writable(grant)
        source = urlsplit(self._request.header("x-ms-copy-source"))
        path = unquote(source.path).strip("/")
        path = path.removeprefix(f"{self._account.name}/")
        container_name, _, name = path.partition("/")
        container = self._account.containers.get(container_name)
        blob = None if container is None else container.blobs.get(name)
        ident = re.search(r"versionid=([^&]+)", source.query)
        found = _version_of(blob, unquote(ident[1]) if ident else "")
        if found is None or found.deleted_at is not None:
            raise Refused(404, "CannotVerifyCopySource", "The specified blob does not exist.")
        tiers.check_online(found, self._now)
        version = content.new_version(
            self._request, found.content, found.md5, self._clock.tick(), self._now
        )
        version.metadata = version.metadata or dict(found.metadata)
        version.content_type = found.content_type
        locks.inherit(version, self._container, self._now)
        self._replace(version)
        answer = content.stored(self._request, version, versioning=self._account.versioning)
        answer.status = 202
        answer.headers |= {"x-ms-copy-id": str(uuid.uuid4()), "x-ms-copy-status": "success"}
        return answer

    # -- reading ---------------------------------------------------------------------------------

    def _get(self) -> Answer:
        blob, version = self._found(writes=False)
        tiers.check_online(version, self._now)
        return content.read(self._request, version, self._properties(blob, version))

    def _head(self) -> Answer:
        blob, version = self._found(writes=False)
        tiers.settle(version, self._now)
        headers = self._properties(blob, version)
        headers["Content-MD5"] = base64.b64encode(version.md5).decode()
        headers["Content-Length"] = str(len(version.content))
        if not version.md5:
            del headers["Content-MD5"]
        return Answer(200, headers)

    def _properties(self, blob: Blob, version: Version) -> dict[str, str]:
        return content.properties(blob, version, self._now, versioning=self._account.versioning)

    # -- deleting --------------------------------------------------------------------------------

    def _delete(self, grant: Grant) -> Answer:
        ident = self._request.option("versionid")
        grant.require("x" if ident else "d")
        blob, version = self._found(writes=True)
        if ident and version is not blob.current:
            locks.check_unlocked(version, self._container, self._now)
            if self._account.soft_delete is not None:
                version.deleted_at = self._now
            else:
                del blob.older[ident]
        elif ident:
            raise Refused(409, "OperationNotAllowedOnRootBlob")
        else:
            self._retire(blob, because_deleted=True)
        if blob.is_gone:
            del self._container.blobs[blob.name]
        return Answer(202, {"x-ms-delete-type-permanent": "false"})

    def _undelete(self) -> Answer:
        blob = self._container.blobs.get(self._request.blob)
        if blob is None:
            raise _not_found()
        expire_deleted(blob, self._account, self._now)
        deleted = [one for one in blob.older.values() if one.deleted_at is not None]
        for version in deleted:
            version.deleted_at = None
        if deleted and not self._account.versioning and blob.current is None:
            blob.current = blob.older.pop(deleted[-1].id)
        return Answer(200)

    # -- properties ------------------------------------------------------------------------------

    def _set_metadata(self) -> Answer:
        blob, version = self._found(writes=True)
        if not self._account.versioning:
            locks.check_unlocked(version, self._container, self._now)
        fresh = Version(
            **{name: getattr(version, name) for name in Version.__slots__}
            | {"id": self._clock.tick(), "metadata": self._request.metadata}
        )
        fresh.modified, fresh.etag = self._now, content.fresh_etag()
        if self._account.versioning:
            blob.older[version.id] = version
        blob.current = fresh
        headers = {"ETag": fresh.etag, "Last-Modified": http_date(fresh.modified)}
        if self._account.versioning:
            headers["x-ms-version-id"] = fresh.id
        return Answer(200, headers)

    def _set_tier(self) -> Answer:
        _, version = self._found(writes=False)
        return tiers.set_tier(self._request, version, self._now)

    def _set_policy(self) -> Answer:
        _, version = self._found(writes=False)
        return locks.set_policy(self._request, version, self._container, self._now)

    def _delete_policy(self) -> Answer:
        _, version = self._found(writes=False)
        return locks.delete_policy(version)

    def _set_hold(self) -> Answer:
        _, version = self._found(writes=False)
        return locks.set_hold(self._request, version, self._container)

    def _lease(self) -> Answer:
        blob, version = self._found(writes=False, leases=False)
        status, left = change_lease(self._request, blob.lease, self._now, str(uuid.uuid4()))
        headers = {"ETag": version.etag, "Last-Modified": http_date(version.modified)}
        if self._request.header("x-ms-lease-action").lower() == "break":
            headers["x-ms-lease-time"] = str(left)
        elif blob.lease.id:
            headers["x-ms-lease-id"] = blob.lease.id
        return Answer(status, headers)

    def _found(self, *, writes: bool, leases: bool = True) -> tuple[Blob, Version]:
        """Return what the request is about; raise Refused if it is not there, or not to be had."""
        blob = self._container.blobs.get(self._request.blob)
        version = _version_of(blob, self._request.option("versionid"))
        if blob is None or version is None or version.deleted_at is not None:
            raise _not_found()
        if leases:
            check_lease(self._request, blob.lease, self._now, writes=writes)
        check_conditions(self._request, version)
        return blob, version


_NAMED = {
    ("GET", ""): ("r", "_get"),
    ("HEAD", ""): ("r", "_head"),
    ("PUT", "block"): ("cw", "_put_block"),
    ("PUT", "blocklist"): ("cw", "_put_block_list"),
    ("PUT", "undelete"): ("w", "_undelete"),
    ("PUT", "metadata"): ("w", "_set_metadata"),
    ("PUT", "tier"): ("w", "_set_tier"),
    ("PUT", "lease"): ("wd", "_lease"),
    ("PUT", "immutabilityPolicies"): ("i", "_set_policy"),
    ("DELETE", "immutabilityPolicies"): ("i", "_delete_policy"),
    ("PUT", "legalhold"): ("i", "_set_hold"),
}


def expire_deleted(blob: Blob, account: Account, now: datetime) -> None:
    """Forget what was soft-deleted longer ago than the account keeps it."""
    for version in list(blob.older.values()):
        kept = account.soft_delete
        if version.deleted_at is not None and (kept is None or now - version.deleted_at >= kept):
            del blob.older[version.id]


def _version_of(blob: Blob | None, ident: str) -> Version | None:
    if blob is None:
        return None
    if ident and (blob.current is None or ident != blob.current.id):
        return blob.older.get(ident)
    return blob.current


def _not_found() -> Refused:
    return Refused(404, "BlobNotFound", "The specified blob does not exist.")
