"""Lists of blobs, page by page."""

import base64
from collections.abc import Iterator
from datetime import datetime

from blobserver.blobs import expire_deleted
from blobserver.records import Account, Blob, Container, Version
from blobserver.tiers import archive_status, settle
from blobserver.wire import Answer, Refused, Request, element, http_date

_PAGE_MAX = 5000


def list_blobs(request: Request, account: Account, container: Container, now: datetime) -> Answer:
    """Return one page of what is in `container`."""
    prefix, delimiter = request.option("prefix"), request.option("delimiter")
    limit = _limit(request)
    include = set(filter(None, request.option("include").split(",")))
    marker = request.option("marker")
    start = _read_marker(marker) if marker else ""
    rows: list[str] = []
    after = ""
    for name, row in _rows(account, container, now, prefix, delimiter, include):
        if name < start:
            continue
        if len(rows) >= limit and name != after:
            return _page(request, prefix, delimiter, limit, rows, _marker(name))
        rows.append(row)
        after = name
    return _page(request, prefix, delimiter, limit, rows, "")


def _limit(request: Request) -> int:
    asked = request.option("maxresults")
    try:
        limit = int(asked or _PAGE_MAX)
    except ValueError as error:
        raise Refused(400, "InvalidQueryParameterValue", "maxresults") from error
    if limit <= 0:
        raise Refused(400, "OutOfRangeQueryParameterValue", "maxresults")
    return min(limit, _PAGE_MAX)


def _rows(
    account: Account,
    container: Container,
    now: datetime,
    prefix: str,
    delimiter: str,
    include: set[str],
) -> Iterator[tuple[str, str]]:
    """Yield the sorted name and XML of every row, blobs and the prefixes that stand for many."""
    last_group = ""
    names = sorted(container.blobs, key=_hierarchical if account.is_hierarchical else None)
    for name in names:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            group = prefix + rest[: rest.index(delimiter) + len(delimiter)]
            blob = container.blobs[name]
            if group != last_group and (blob.current is not None or "versions" in include):
                last_group = group
                yield group, f"<BlobPrefix>{element('Name', group)}</BlobPrefix>"
            continue
        for version in _listed(container.blobs[name], account, now, include):
            yield name, _row(container.blobs[name], version, now, include, account)


def _hierarchical(name: str) -> list[str]:
    """Return the order of accounts with directories: a name's parts, not its characters."""
    return name.split("/")


def _listed(blob: Blob, account: Account, now: datetime, include: set[str]) -> Iterator[Version]:
    expire_deleted(blob, account, now)
    for version in blob.older.values():
        if version.deleted_at is not None:
            if "deleted" in include:
                yield version
        elif "versions" in include:
            yield version
    if blob.current is not None:
        yield blob.current


def _row(blob: Blob, version: Version, now: datetime, include: set[str], account: Account) -> str:
    settle(version, now)
    held = blob.lease.is_held(now)
    parts = [element("Name", blob.name)]
    if version.deleted_at is not None:
        parts.append(element("Deleted", "true"))
    if "versions" in include and account.versioning:
        parts.append(element("VersionId", version.id))
        if version is blob.current:
            parts.append(element("IsCurrentVersion", "true"))
    details = [
        element("Creation-Time", http_date(version.created)),
        element("Last-Modified", http_date(version.modified)),
        element("Etag", version.etag.strip('"')),
        element("Content-Length", len(version.content)),
        element("Content-Type", version.content_type),
        element("BlobType", "BlockBlob"),
        element("AccessTier", version.tier),
        element("LeaseStatus", "locked" if held else "unlocked"),
        element("LeaseState", blob.lease.state(now)),
        element("ServerEncrypted", "true"),
    ]
    if version.md5:
        details.append(element("Content-MD5", base64.b64encode(version.md5).decode()))
    if version.tier_inferred:
        details.append(element("AccessTierInferred", "true"))
    if archive_status(version):
        details.append(element("ArchiveStatus", archive_status(version)))
    if version.deleted_at is not None:
        details.append(element("DeletedTime", http_date(version.deleted_at)))
        assert account.soft_delete is not None
        left = account.soft_delete - (now - version.deleted_at)
        details.append(element("RemainingRetentionDays", max(0, left.days)))
    if "immutabilitypolicy" in include and version.locked_until is not None:
        details.append(element("ImmutabilityPolicyUntilDate", http_date(version.locked_until)))
        details.append(element("ImmutabilityPolicyMode", version.lock_mode))
    if "legalhold" in include and version.has_hold:
        details.append(element("LegalHold", "true"))
    parts.append(f"<Properties>{''.join(details)}</Properties>")
    if "metadata" in include:
        pairs = "".join(element(name, value) for name, value in version.metadata.items())
        parts.append(f"<Metadata>{pairs}</Metadata>")
    return f"<Blob>{''.join(parts)}</Blob>"


def _page(
    request: Request, prefix: str, delimiter: str, limit: int, rows: list[str], marker: str
) -> Answer:
    text = (
        f'<EnumerationResults ServiceEndpoint="https://{request.account}.blob.core.windows.net/"'
        f' ContainerName="{request.container}">{element("Prefix", prefix)}'
        f"{element('MaxResults', limit)}{element('Delimiter', delimiter) if delimiter else ''}"
        f"<Blobs>{''.join(rows)}</Blobs>{element('NextMarker', marker)}</EnumerationResults>"
    )
    return Answer.document(text)


def _marker(name: str) -> str:
    return base64.urlsafe_b64encode(f"1!{name}".encode()).decode()


def _read_marker(marker: str) -> str:
    try:
        return base64.urlsafe_b64decode(marker).decode().removeprefix("1!")
    except ValueError as error:
        raise Refused(400, "InvalidQueryParameterValue", "marker") from error
