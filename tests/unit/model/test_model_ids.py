"""Identifiers print one way and read back one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamd.model.ids import from_text, to_text


@given(st.binary(max_size=40))
def test_bytes_come_back_from_their_text(raw: bytes) -> None:
    text = to_text(raw)
    assert from_text(text) == raw
    assert text == text.lower()
    assert "=" not in text


@pytest.mark.parametrize("text", ["a", "0", "aa=", "MZXW", "ab", "\u0131" * 8, "ä" * 8, "aaaaaaa "])
def test_a_second_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base32|ASCII"):
        from_text(text)
