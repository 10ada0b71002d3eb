"""Faults by script: what goes wrong with which request, how often.

A fault applies to the requests that it matches, until its `times` are used up; faults are tried in
the order in which they were added, and several may hit one request: the pace of a bad link, and a
reset on top of it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import unescape

from blobserver.wire import Answer, Request

Kind = Literal[
    "latency",  # wait `seconds` before anything else
    "bandwidth",  # bodies pass at `rate` bytes per second, each way
    "line",  # the bodies of all requests together pass at `rate`, each way, like on one line
    "status",  # answer with `status` and `code` instead; `commits` does it nevertheless
    "reset-before",  # the connection breaks before anything happened
    "reset-during",  # it breaks in the middle of the request's body
    "reset-after",  # it happened, but nobody is told
    "truncate",  # half of the answer's body, then the connection breaks
    "short",  # half of the answer's body, with a length that says so: a lying cache
    "corrupt",  # one bit of the answer's body is another
    "swap",  # another object's content
    "html",  # a proxy's page with status 200
    "blackhole",  # no answer, ever, and the connection stays
    "late-commit",  # status 500, and `seconds` later it has happened
    "twice",  # it happens twice, as when something on the way repeats requests
    "stale-list",  # a list as it was when the fault was added
    "duplicate-rows",  # each row of a list twice
    "missing-rows",  # every other row of a list is not there
    "hidden-rows",  # the rows of the blobs in `names` are not there
    "lost-marker",  # a page that says it is the last one
]
_BLOB_ROW = re.compile(rb"<Blob>.*?</Blob>", re.DOTALL)
_MARKER = re.compile(rb"<NextMarker>[^<]*</NextMarker>")


def any_request(_: Request) -> bool:
    """Match every request."""
    return True


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: Kind
    times: int | None = 1  # None: until it is cleared
    match: Callable[[Request], bool] = any_request
    seconds: float = 0.0
    rate: float = 0.0
    status: int = 503
    code: str = "ServerBusy"
    retry_after: str | None = None
    commits: bool = False
    names: frozenset[str] = frozenset()
    kept: dict[str, Answer] = field(default_factory=dict)  # lists as they were
    hits: int = 0
    line_began_at: float = 0.0  # by the clock of the loop: when the first of it was sent
    line_free_at: float = 0.0  # until then the line is taken


class FaultScript:
    """The faults in force. May be changed from any thread, at any time."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Begin with `fault`."""
        self._faults = [*self._faults, fault]
        return fault

    def clear(self) -> None:
        """Let everything go well again."""
        self._faults = []

    def of(self, request: Request) -> Iterator[Fault]:
        """Yield what goes wrong with `request`, and count it."""
        for fault in self._faults:
            if fault.match(request) and (fault.times is None or fault.hits < fault.times):
                fault.hits += 1
                yield fault


def operation(*names: str) -> Callable[[Request], bool]:
    """Return a match for put, get, head, list, delete: the calls that a vault makes."""

    def matches(request: Request) -> bool:
        return operation_of(request) in names

    return matches


def operation_of(request: Request) -> str:
    """Return what `request` is: put, get, head, delete, list, container or other."""
    what = request.option("comp")
    if request.blob and not what:
        return request.method.lower()
    if what == "list":
        return "list"
    return "container" if request.container and not request.blob else "other"


def changed_list(answer: Answer, fault: Fault) -> Answer:
    """Return a list with what `fault` does to it."""
    body, kind = answer.body, fault.kind
    if kind == "lost-marker":
        body = _MARKER.sub(b"<NextMarker/>", body)
    elif kind == "duplicate-rows":
        body = _BLOB_ROW.sub(lambda row: row[0] * 2, body)
    elif kind == "missing-rows":
        rows = iter(range(len(body)))
        body = _BLOB_ROW.sub(lambda row: row[0] if next(rows) % 2 == 0 else b"", body)
    elif kind == "hidden-rows":
        body = _BLOB_ROW.sub(lambda row: b"" if _name_of(row[0]) in fault.names else row[0], body)
    return Answer(answer.status, answer.headers, body)


def _name_of(row: bytes) -> str:
    return unescape(row.partition(b"<Name>")[2].partition(b"</Name>")[0].decode())


def flipped(body: bytes) -> bytes:
    """Return `body` with one bit in its middle changed."""
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
