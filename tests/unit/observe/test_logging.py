"""Logs are one line each, bounded, and never hold a secret."""

import io
import json
import logging as stdlib
from collections.abc import Iterator

import pytest

from streamd.observe import logging

MARKER = "s3cret-MARKER-s3cret"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logging.configure(json=True, level="info", stream=stream)
    logging.register_secret(MARKER)
    yield stream
    logging.forget_secrets()
    logging.configure(level="warning")


def test_a_line_is_json_with_its_facts(lines: io.StringIO) -> None:
    logging.get_logger("vault").info("put", size_bytes=3, path=b"/a\xff")
    logging.get_logger("vault").debug("unheard")
    (line,) = map(json.loads, lines.getvalue().splitlines())
    assert (line["event"], line["level"], line["component"]) == ("put", "info", "vault")
    assert line["size_bytes"] == 3
    assert line["path"] == "/a\\xff"
    assert line["timestamp"].endswith("Z")


def test_a_secret_is_never_written(lines: io.StringIO) -> None:
    log = logging.get_logger("azure")
    log.error(MARKER, plain=MARKER, inner={"k": [MARKER, {MARKER: 1}]}, raw=MARKER.encode())
    log.error("object", thing=ValueError(MARKER), number=1)
    try:
        raise RuntimeError(f"url?sig={MARKER}")
    except RuntimeError:
        log.exception("failed")
    stdlib.getLogger("foreign").warning("with %s", MARKER)
    written = lines.getvalue()
    assert MARKER not in written
    assert written.count("[secret]") >= 7
    assert len(written.splitlines()) == 4


def test_long_values_are_cut(lines: io.StringIO) -> None:
    logging.get_logger("x").info("long", text="a" * 10_000, items=list(range(5_000)))
    line = json.loads(lines.getvalue())
    assert len(line["text"]) < 2_100
    assert line["text"].endswith("… (10000 characters)")
    assert len(line["items"]) < 2_100


def test_what_libraries_log_has_the_same_form(lines: io.StringIO) -> None:
    stdlib.getLogger("library").warning("odd %d", 3)
    stdlib.getLogger("library").info("unheard")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"]) == ("odd 3", "warning")


def test_a_short_word_is_not_taken_for_a_secret(lines: io.StringIO) -> None:
    logging.register_secret("a")
    logging.get_logger("x").info("banana")
    assert "banana" in lines.getvalue()


def test_a_terminal_gets_readable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = Terminal()
    logging.configure(stream=stream)
    logging.get_logger("x").info("hello", answer=42)
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    stream = Terminal()
    logging.configure(stream=stream)
    logging.get_logger("x").info("hello")
    assert json.loads(stream.getvalue())["event"] == "hello"
    logging.configure(level="warning")
