"""What goes in and out of the service, as values: requests, answers, refusals, and their texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from xml.sax.saxutils import escape

Headers = Mapping[str, str]  # case does not matter to whoever reads it


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whoever carried it."""

    method: str
    account: str
    container: str  # empty: about the account
    blob: str  # empty: about the container
    raw_path: str  # as it was on the wire, for signatures
    query: Mapping[str, str]  # decoded
    headers: Headers
    body: bytes = b""
    is_secure: bool = False
    peer: str = "127.0.0.1"

    def option(self, name: str) -> str:
        """Return a parameter of the query, or an empty text."""
        return self.query.get(name, "")

    def header(self, name: str) -> str:
        """Return a header, or an empty text."""
        return self.headers.get(name, "")

    @property
    def metadata(self) -> dict[str, str]:
        """Return what the client wants to be kept beside the content."""
        return {
            name[10:]: value
            for name, value in self.headers.items()
            if name.lower().startswith("x-ms-meta-")
        }


@dataclass(slots=True)
class Answer:
    """What the service says."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def document(cls, text: str, status: int = 200) -> "Answer":
        """Return an answer that is an XML document."""
        body = b"\xef\xbb\xbf" + f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
        return cls(status, {"Content-Type": "application/xml"}, body)


class Refused(Exception):
    """The service says no: a status, a code of the documented list, and a sentence."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message or code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self) -> Answer:
        """Return what is sent instead of success."""
        text = (
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            "</Error>"
        )
        answer = Answer.document(text, self.status)
        answer.headers.update(self.headers)
        answer.headers["x-ms-error-code"] = self.code
        return answer


def http_date(moment: datetime) -> str:
    """Return `moment` as HTTP headers show it, to the second."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def element(name: str, content: object) -> str:
    """Return an XML element with text in it."""
    return f"<{name}>{escape(str(content))}</{name}>"


def parsed_date(text: str) -> datetime | None:
    """Read an ISO 8601 time or an HTTP date; None if it is neither."""
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text.strip())
        except (ValueError, TypeError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None
