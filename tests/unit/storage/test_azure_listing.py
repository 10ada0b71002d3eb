"""A page of a listing is read as the service sends it, and nothing else is taken for one."""

import base64
import threading
import time
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.storage.azure_listing import Page, Row, parse_page

DATE, DATE_US = "Wed, 12 Aug 2026 20:32:10 GMT", 1_786_566_730_000_000


def blob(name: str, *, size: int = 5, more: str = "", properties: str = "") -> str:
    return (
        f"<Blob><Name>{escape(name)}</Name>{more}<Properties>"
        f"<Creation-Time>{DATE}</Creation-Time><Last-Modified>{DATE}</Last-Modified>"
        f"<Etag>0x8</Etag><Content-Length>{size}</Content-Length>"
        f"<Content-Type>application/octet-stream</Content-Type>{properties}"
        "</Properties><OrMetadata /></Blob>"
    )


def page(*blobs: str, marker: str = "", before: str = "") -> bytes:
    return (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?>{before}'
        '<EnumerationResults ServiceEndpoint="https://a/" ContainerName="c">'
        f"<Prefix>p/</Prefix><MaxResults>5000</MaxResults><Blobs>{''.join(blobs)}</Blobs>"
        f"<NextMarker>{marker}</NextMarker></EnumerationResults>"
    ).encode()


def test_a_row_has_name_size_time_and_hash() -> None:
    md5 = base64.b64encode(bytes(range(16))).decode()
    found = parse_page(page(blob("p/a", properties=f"<Content-MD5>{md5}</Content-MD5>")))
    assert found == Page([Row("p/a", 5, DATE_US, bytes(range(16)))], "")


def test_versions_are_told_apart() -> None:
    old = "<VersionId>2026-08-12T20:32:10.1Z</VersionId>"
    new = "<VersionId>2026-08-12T20:32:11.2Z</VersionId><IsCurrentVersion>true</IsCurrentVersion>"
    rows = parse_page(page(blob("a", more=old), blob("a", more=new))).rows
    assert [(row.version[-4:], row.is_current) for row in rows] == [("0.1Z", False), ("1.2Z", True)]


def test_a_name_that_xml_cannot_hold_comes_encoded() -> None:
    body = page(blob("x")).replace(b"<Name>x<", b'<Name Encoded="true">a%EF%BF%BEb%25<')
    assert parse_page(body).rows[0].name == "a\ufffeb%"


@given(
    st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]), min_size=1)),
    st.integers(0, 1 << 62),
)
def test_any_name_and_size_survive(names: list[str], size: int) -> None:
    found = parse_page(page(*(blob(name, size=size) for name in names), marker="next!"))
    assert [(row.name, row.size_bytes) for row in found.rows] == [(name, size) for name in names]
    assert found.marker == "next!"


GOOD = page(blob("p/a"), blob("p/b"), marker="m")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        b"<html>",
        b'{"value": []}',
        GOOD[:-30],
        GOOD.replace(b"<Content-Length>5", b"<Content-Length>five"),
        GOOD.replace(b"<Last-Modified>", b"<Modified>").replace(b"</Last-M", b"</M"),
        GOOD.replace(DATE.encode(), b"yesterday"),
        GOOD.replace(b"</Etag>", b"</Etag><Content-MD5>!</Content-MD5>"),
        page(blob("a"), before='<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>'),
    ],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_page(body)


@given(st.integers(0, len(GOOD) - 1))
def test_a_listing_that_is_cut_anywhere_is_refused(end: int) -> None:
    with pytest.raises(ValueError, match="the answer is no listing"):
        parse_page(GOOD[:end])


def test_others_get_their_turn_while_a_long_page_is_read() -> None:
    body = page(*(blob(f"d/{number:064}") for number in range(5000)))
    turns, ended = 0, threading.Event()

    def read() -> None:
        assert len(parse_page(body).rows) == 5000
        ended.set()

    reading = threading.Thread(target=read)
    reading.start()
    while not ended.is_set():
        time.sleep(0.001)
        turns += 1
    reading.join()
    assert turns >= 3
