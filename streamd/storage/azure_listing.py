"""A page of a listing, asked for and read without the SDK's models.

The SDK makes models of every row, on the event loop: measured, 2.2 s of processor time and 40 MiB
for a page of 5,000 names, in which nobody else gets a turn. Here the page is read by a parser that
keeps a few fields of a row, in a thread, in pieces that let others have the interpreter: 0.03 s on
the loop.
"""

import base64
import binascii
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote
from xml.parsers import expat

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from streamd.effects import MICROSECONDS

PAGE: Final = 5000  # names in one answer, the service's maximum
_ROOT: Final = "EnumerationResults"
_PIECE_BYTES: Final = 64 << 10
_OK: Final = 200
_WANTED: Final = {
    "Name",
    "VersionId",
    "IsCurrentVersion",
    "Last-Modified",
    "Content-Length",
    "Content-MD5",
    "NextMarker",
}


class Row(NamedTuple):
    """One object, or one version of it, with its full name."""

    name: str
    size_bytes: int
    modified_us: int
    md5: bytes = b""
    version: str = ""  # empty if versions were not asked for, or the container keeps none
    is_current: bool = True


class Page(NamedTuple):
    """Rows in the order of the service, and where the next page begins: empty for the last."""

    rows: list[Row]
    marker: str


async def ask_page(
    container: Any, prefix: str, marker: str, *, version: str, versions: bool = False
) -> bytes:
    """Return a page as the service sends it. `version` is that of the protocol.

    Raises HttpResponseError, and what the transport raises.
    """
    options = {"restype": "container", "comp": "list", "maxresults": str(PAGE)}
    options |= {"prefix": prefix} if prefix else {}
    options |= {"marker": marker} if marker else {}
    options |= {"include": "versions"} if versions else {}
    request = HttpRequest(
        "GET",
        container.url,
        params=options,
        headers={"x-ms-version": version, "Accept": "application/xml"},
    )
    # a stream, or a policy of the SDK makes a tree of the answer
    answer = await container._client._client.send_request(  # noqa: SLF001 - the SDK's only way
        request, stream=True
    )
    try:
        body: bytes = await answer.read()
    finally:
        await answer.close()
    if answer.status_code != _OK:
        raise HttpResponseError(message=_message(body), response=answer)
    return body


def parse_page(body: bytes) -> Page:
    """Return what a page says. Blocking. Raises ValueError if it is none."""
    reader = _PageReader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        for start in range(0, len(body), _PIECE_BYTES):
            parser.Parse(body[start : start + _PIECE_BYTES], False)
        parser.Parse(b"", True)
    except (expat.ExpatError, KeyError, OverflowError, binascii.Error) as error:
        raise ValueError(f"the answer is no listing: {error}") from error
    return Page(reader.rows, reader.marker)


class _PageReader:
    """Takes the elements of a page one by one."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.marker = ""
        self._depth = 0
        self._field = ""
        self._text: list[str] = []
        self._row: dict[str, str] = {}
        self._moments: dict[str, int] = {}  # many objects are of the same second

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self._depth and name != _ROOT:
            raise ValueError(f"the answer is {name[:40]} and no listing")
        self._depth += 1
        self._field = name if name in _WANTED else ""
        self._text.clear()
        if name == "Name" and attributes.get("Encoded") == "true":
            self._row["encoded"] = "true"

    def text(self, text: str) -> None:
        if self._field:
            self._text.append(text)

    def end(self, name: str) -> None:
        self._depth -= 1
        if name == self._field:
            self._row[name] = "".join(self._text)
        elif name == "Blob":
            self.rows.append(self._made())
            self._row = {}
        if name == "NextMarker":
            self.marker = self._row.pop(name, "")
        self._field = ""

    def _made(self) -> Row:
        row, date = self._row, self._row["Last-Modified"]
        if date not in self._moments:
            self._moments[date] = int(parsedate_to_datetime(date).timestamp()) * MICROSECONDS
        name = row["Name"]
        version = row.get("VersionId", "")
        return Row(
            name=unquote(name) if "encoded" in row else name,
            size_bytes=int(row["Content-Length"]),
            modified_us=self._moments[date],
            md5=base64.b64decode(row.get("Content-MD5", ""), validate=True),
            version=version,
            is_current=not version or row.get("IsCurrentVersion") == "true",
        )


def _no_doctype(*_: object) -> None:
    raise ValueError("the answer is a document of its own kind, and no listing")


def _message(body: bytes) -> str:
    """Return what the service says about an error, or the beginning of whatever it is."""
    text = body[:4096].decode("utf-8", "replace")
    said = text.partition("<Message>")[2].partition("</Message>")[0]
    detail = text.partition("<AuthenticationErrorDetail>")[2].partition("<")[0]
    return " ".join(filter(None, (said.strip(), detail.strip()))) or text
