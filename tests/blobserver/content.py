"""What a put stores, and what a get returns: checks of the bytes, ranges, headers."""

import base64
import hashlib
import re
import uuid
from datetime import datetime

from blobserver.crc64 import crc64
from blobserver.locks import lock_headers
from blobserver.records import Blob, Version
from blobserver.tiers import archive_status, tier_of_put
from blobserver.wire import Answer, Refused, Request, http_date

_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_RANGE_MD5_MAX = 4 << 20
_CRC_ALWAYS_MAX = 16 << 10  # ours is slow; the service sends one with every answer
_NOT_SATISFIABLE = 416


def check_body(request: Request) -> bytes:
    """Return the MD5 of the body; raise Refused if it is not what the client says it sent."""
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    for header in ("Content-MD5", "x-ms-blob-content-md5"):
        claimed = request.header(header)
        if claimed and header == "Content-MD5" and base64.b64decode(claimed) != digest:
            raise Refused(400, "Md5Mismatch", "The MD5 value specified did not match.")
    claimed = request.header("x-ms-content-crc64")
    if claimed and base64.b64decode(claimed) != crc64(request.body):
        raise Refused(400, "Crc64Mismatch", "The CRC64 value specified did not match.")
    return digest


def new_version(request: Request, content: bytes, md5: bytes, ident: str, now: datetime) -> Version:
    """Return a version made of what a put brought."""
    tier, inferred = tier_of_put(request)
    stated = request.header("x-ms-blob-content-md5")
    return Version(
        id=ident,
        content=content,
        md5=base64.b64decode(stated) if stated else md5,
        created=now,
        modified=now,
        etag=fresh_etag(),
        content_type=_property(request, "type") or "application/octet-stream",
        cache_control=_property(request, "cache-control", ""),
        content_encoding=_property(request, "encoding"),
        content_language=_property(request, "language"),
        content_disposition=_property(request, "disposition"),
        metadata=request.metadata,
        tier=tier,
        tier_inferred=inferred,
        tier_changed=now if not inferred else None,
    )


def _property(request: Request, name: str, middle: str = "content-") -> str:
    own = request.header(f"x-ms-blob-{middle}{name}")
    return own or (request.header(f"{middle}{name}") if name == "type" else "")


def fresh_etag() -> str:
    """Return an ETag that no other has."""
    return f'"0x{uuid.uuid4().hex[:15].upper()}"'


def stored(request: Request, version: Version, *, versioning: bool) -> Answer:
    """Return the answer to a put."""
    headers = {
        "ETag": version.etag,
        "Last-Modified": http_date(version.modified),
        "Content-MD5": base64.b64encode(version.md5).decode(),
        "x-ms-request-server-encrypted": "true",
    }
    if request.header("x-ms-content-crc64") or len(version.content) <= _CRC_ALWAYS_MAX:
        headers["x-ms-content-crc64"] = base64.b64encode(crc64(version.content)).decode()
    if versioning:
        headers["x-ms-version-id"] = version.id
    return Answer(201, headers)


def properties(blob: Blob, version: Version, now: datetime, *, versioning: bool) -> dict[str, str]:
    """Return the headers of a HEAD, without its length."""
    lease = blob.lease.state(now)
    headers = {
        "ETag": version.etag,
        "Last-Modified": http_date(version.modified),
        "x-ms-creation-time": http_date(version.created),
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-state": lease,
        "x-ms-lease-status": "locked" if blob.lease.is_held(now) else "unlocked",
        "x-ms-server-encrypted": "true",
        "x-ms-access-tier": version.tier,
        "Accept-Ranges": "bytes",
        "Content-Type": version.content_type,
    }
    if lease == "leased":
        headers["x-ms-lease-duration"] = "infinite" if blob.lease.duration < 0 else "fixed"
    if version.tier_inferred:
        headers["x-ms-access-tier-inferred"] = "true"
    if version.tier_changed is not None:
        headers["x-ms-access-tier-change-time"] = http_date(version.tier_changed)
    if archive_status(version):
        headers["x-ms-archive-status"] = archive_status(version)
    for name in ("cache_control", "content_encoding", "content_language", "content_disposition"):
        if getattr(version, name):
            headers[name.replace("_", "-").title()] = getattr(version, name)
    if versioning:
        headers["x-ms-version-id"] = version.id
        if version is blob.current:
            headers["x-ms-is-current-version"] = "true"
    headers.update({f"x-ms-meta-{name}": value for name, value in version.metadata.items()})
    return headers | lock_headers(version)


def read(request: Request, version: Version, headers: dict[str, str]) -> Answer:
    """Return the content, or the range of it that was asked for."""
    whole = base64.b64encode(version.md5).decode()
    asked = request.header("x-ms-range") or request.header("Range")
    match = _RANGE.match(asked)
    if match is None:
        headers["Content-MD5"] = whole
        return Answer(200, headers, version.content)
    start, end, size = int(match[1]), match[2], len(version.content)
    if start >= size:
        raise Refused(
            _NOT_SATISFIABLE,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
            Content_Range=f"bytes */{size}",
        )
    last = min(int(end), size - 1) if end else size - 1
    part = version.content[start : last + 1]
    if request.header("x-ms-range-get-content-md5").lower() == "true":
        if len(part) > _RANGE_MD5_MAX:
            raise Refused(400, "InvalidHeaderValue", "x-ms-range-get-content-md5")
        digest = hashlib.md5(part, usedforsecurity=False).digest()
        headers["Content-MD5"] = base64.b64encode(digest).decode()
    headers["x-ms-blob-content-md5"] = whole
    headers["Content-Range"] = f"bytes {start}-{last}/{size}"
    return Answer(206, headers, part)
