"""Facts read well, and names cannot trick a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.cli import render


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.34, "0.3 s"),
        (3, "3 s"),
        (59.7, "1 min"),
        (125, "2 min 5 s"),
        (7200, "2 h"),
        (273_600, "3 d 4 h"),
        (-5, "-5 s"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_sizes_rates_and_lags() -> None:
    assert render.size(0) == "0 B"
    assert render.size(1536) == "1.5 KiB"
    assert render.rate(5 << 20) == "5.0 MiB/s"
    assert render.count(1_234_567) == "1,234,567"
    assert render.lag(3) == "lag 3 s"
    assert render.lag(None) == "lag unknown"
    assert render.ago(0, 125_000_000) == "2 min 5 s ago"
    assert render.mode(0o100644) == "-rw-r--r--"


def test_names_are_printable() -> None:
    assert render.name("grün.txt".encode()) == "grün.txt"
    assert render.name(b"a\xffb") == "a\\xffb"
    assert render.name(b"\x1b[31m\n") == "\\x1b[31m\\x0a"
    assert render.name(b"a\\xff") == "a\\\\xff"


@given(st.binary(), st.binary())
def test_different_names_never_look_the_same(one: bytes, other: bytes) -> None:
    assert (render.name(one) == render.name(other)) == (one == other)
    assert render.name(one).isprintable()


def test_a_table_is_aligned_and_cut_nowhere() -> None:
    text = render.table(("name", "size"), [("a" * 300, "1"), ("[bold]", "20")], right="-r")
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith(" 1")
    assert lines[2].startswith("[bold]")
    assert len(lines[1]) == len(lines[2])
