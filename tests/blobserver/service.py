"""The service: finds out who asks about what, and has it done."""

import uuid
from datetime import timedelta
from xml.etree import ElementTree as ET

from blobserver.access import Grant, grant_of
from blobserver.blobs import BlobOperations
from blobserver.clock import ServiceClock
from blobserver.conditions import change_lease, check_lease
from blobserver.content import fresh_etag
from blobserver.listing import list_blobs
from blobserver.records import Account, Container
from blobserver.wire import Answer, Refused, Request, element, http_date, parsed_date

_BUSY_DELETING = timedelta(seconds=30)


class BlobService:
    """Accounts and a clock. Independent of HTTP: requests in, answers out."""

    def __init__(self, *accounts: Account) -> None:
        self.clock = ServiceClock()
        self.accounts = {one.name: one for one in accounts or (Account("devstoreaccount1"),)}

    @property
    def account(self) -> Account:
        """Return the first account."""
        return next(iter(self.accounts.values()))

    def answer(self, request: Request) -> Answer:
        """Do what is asked, and say how it went; refusals are answers, too."""
        try:
            answer = self._answer(request)
        except Refused as refused:
            answer = refused.answer()
        answer.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
        answer.headers.setdefault("x-ms-version", request.header("x-ms-version") or "2025-11-05")
        answer.headers.setdefault("Date", http_date(self.clock.now()))
        answer.headers.setdefault("Server", "Windows-Azure-Blob/1.0 blobserver/1.0")
        client = request.header("x-ms-client-request-id")
        if client:
            answer.headers["x-ms-client-request-id"] = client
        return answer

    def _answer(self, request: Request) -> Answer:
        account = self.accounts.get(request.account)
        if account is None:
            raise Refused(400, "InvalidUri", "There is no such account.")
        grant = grant_of(request, account, self.clock)
        if request.option("comp") == "properties" and request.option("restype") == "account":
            return _account_facts(account)
        if not request.container:
            return self._about_account(request, account, grant)
        if request.blob:
            operations = BlobOperations(request, account, _container(account, request), self.clock)
            return operations.answer(grant)
        return self._about_container(request, account, grant)

    # -- the account -----------------------------------------------------------------------------

    def _about_account(self, request: Request, account: Account, grant: Grant) -> Answer:
        what = (request.method, request.option("restype"), request.option("comp"))
        if what == ("GET", "", "list"):
            grant.require("l")
            return self._list_containers(request, account)
        if what == ("GET", "service", "properties"):
            grant.require("r")
            return _service_properties(account)
        if what == ("POST", "service", "userdelegationkey"):
            return self._delegation_key(request, account, grant)
        raise Refused(400, "InvalidQueryParameterValue")

    def _list_containers(self, request: Request, account: Account) -> Answer:
        prefix = request.option("prefix")
        rows = "".join(
            f"<Container>{element('Name', one.name)}<Properties>"
            f"{element('Last-Modified', http_date(one.modified))}{element('Etag', one.etag)}"
            "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
            "</Properties></Container>"
            for name, one in sorted(account.containers.items())
            if name.startswith(prefix)
        )
        return Answer.document(
            f'<EnumerationResults ServiceEndpoint="">{element("Prefix", prefix)}'
            f"<Containers>{rows}</Containers><NextMarker/></EnumerationResults>"
        )

    def _delegation_key(self, request: Request, account: Account, grant: Grant) -> Answer:
        if not grant.principal:
            raise Refused(403, "AuthenticationFailed", "Only Entra ID gives delegation keys.")
        fields = {row.tag: row.text or "" for row in ET.fromstring(request.body)}
        start = parsed_date(fields.get("Start", "")) or self.clock.now()
        end = parsed_date(fields.get("Expiry", ""))
        if end is None or not start < end <= start + timedelta(days=7):
            raise Refused(400, "InvalidXmlNodeValue", "Expiry")
        begins, ends = (f"{one:%Y-%m-%dT%H:%M:%SZ}" for one in (start, end))
        version = request.header("x-ms-version")
        facts = (grant.principal, "tenant", begins, ends, "b", version)
        names = (
            "SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService",
            "SignedVersion",
        )  # fmt: skip
        rows = "".join(element(name, fact) for name, fact in zip(names, facts, strict=True))
        import base64

        value = base64.b64encode(account.delegation_key(facts)).decode()
        return Answer.document(
            f"<UserDelegationKey>{rows}{element('Value', value)}</UserDelegationKey>"
        )

    # -- a container -----------------------------------------------------------------------------

    def _about_container(self, request: Request, account: Account, grant: Grant) -> Answer:
        what = (request.method, request.option("comp"))
        if request.option("restype") != "container":
            raise Refused(400, "InvalidUri")
        if what == ("PUT", ""):
            grant.require("cw")
            return self._create(request, account)
        container = _container(account, request)
        now = self.clock.now()
        if what == ("GET", "list"):
            grant.require("l")
            return list_blobs(request, account, container, now)
        if what in {("GET", ""), ("HEAD", "")}:
            grant.require("r")
            return Answer(200, _container_headers(container, now))
        if what == ("DELETE", ""):
            grant.require("d")
            return self._delete(request, account, container)
        if what == ("PUT", "metadata"):
            grant.require("w")
            container.metadata, container.etag = request.metadata, fresh_etag()
            return Answer(200, _container_headers(container, now))
        if what == ("PUT", "lease"):
            grant.require("wd")
            status, left = change_lease(request, container.lease, now, str(uuid.uuid4()))
            headers = _container_headers(container, now)
            headers |= {"x-ms-lease-id": container.lease.id, "x-ms-lease-time": str(left)}
            return Answer(status, headers)
        raise Refused(400, "InvalidQueryParameterValue")

    def _create(self, request: Request, account: Account) -> Answer:
        name, now = request.container, self.clock.now()
        if name in account.containers:
            raise Refused(409, "ContainerAlreadyExists", "The specified container already exists.")
        if account.deleting.get(name, now) > now:
            raise Refused(409, "ContainerBeingDeleted", "The container is being deleted.")
        container = Container(name, fresh_etag(), now, request.metadata)
        account.containers[name] = container
        return Answer(201, _container_headers(container, now))

    def _delete(self, request: Request, account: Account, container: Container) -> Answer:
        check_lease(request, container.lease, self.clock.now(), writes=True)
        if container.has_hold or any(
            version.locked_until is not None or version.has_hold
            for blob in container.blobs.values()
            for version in [*blob.older.values(), *filter(None, [blob.current])]
        ):
            raise Refused(409, "ContainerImmutable", "The container holds immutable blobs.")
        del account.containers[container.name]
        account.deleting[container.name] = self.clock.now() + _BUSY_DELETING
        return Answer(202)


def _container(account: Account, request: Request) -> Container:
    found = account.containers.get(request.container)
    if found is None:
        raise Refused(404, "ContainerNotFound", "The specified container does not exist.")
    return found


def _container_headers(container: Container, now: object) -> dict[str, str]:
    headers = {
        "ETag": container.etag,
        "Last-Modified": http_date(container.modified),
        "x-ms-lease-status": "locked" if container.lease.id else "unlocked",
        "x-ms-lease-state": "leased" if container.lease.id else "available",
        "x-ms-has-immutability-policy": str(container.default_lock is not None).lower(),
        "x-ms-has-legal-hold": str(container.has_hold).lower(),
        "x-ms-immutable-storage-with-versioning-enabled": str(container.has_version_worm).lower(),
    }
    return headers | {f"x-ms-meta-{name}": value for name, value in container.metadata.items()}


def _account_facts(account: Account) -> Answer:
    return Answer(
        200,
        {
            "x-ms-sku-name": "Standard_LRS",
            "x-ms-account-kind": "StorageV2",
            "x-ms-is-hns-enabled": str(account.is_hierarchical).lower(),
        },
    )


def _service_properties(account: Account) -> Answer:
    kept = account.soft_delete
    policy = "<Enabled>false</Enabled>"
    if kept is not None:
        policy = f"<Enabled>true</Enabled>{element('Days', max(1, kept.days))}"
    return Answer.document(
        "<StorageServiceProperties><Logging><Version>1.0</Version><Delete>false</Delete>"
        "<Read>false</Read><Write>false</Write><RetentionPolicy><Enabled>false</Enabled>"
        "</RetentionPolicy></Logging><Cors/><DefaultServiceVersion>2025-11-05"
        f"</DefaultServiceVersion><DeleteRetentionPolicy>{policy}</DeleteRetentionPolicy>"
        "<StaticWebsite><Enabled>false</Enabled></StaticWebsite></StorageServiceProperties>"
    )
