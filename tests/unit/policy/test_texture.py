"""What the beginning of a file looks like: data, random bytes, or nothing at all."""

import base64
import random
import zlib
from pathlib import Path

import pytest

from streamd.policy import texture as module
from streamd.policy.texture import SAMPLE_BYTES, SAMPLE_BYTES_MIN, Texture, texture

PROSE = Path(module.__file__).read_bytes()


def drawn(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [SAMPLE_BYTES_MIN, 700, 2048, SAMPLE_BYTES])
def test_encrypted_bytes_look_random_nearly_always(size: int) -> None:
    found = [texture(drawn(size, seed)) for seed in range(500)]
    assert found.count(Texture.RANDOM) >= 495


@pytest.mark.parametrize(
    "sample",
    [
        PROSE[:SAMPLE_BYTES],
        base64.b64encode(drawn(3000)),
        "Größe und Länge, außer über Öl: œuvre. ".encode() * 100,
        "漢字仮名交じり文は日本語の表記法である。".encode() * 60,
        bytes(range(256)) * 2 + bytes(3000),  # a table with many zeros
        b"".join(bytes([7, 200, n % 9, n % 256, 65, 66, 67, 68]) for n in range(500)),  # and few
        drawn(SAMPLE_BYTES_MIN - 1),  # too little to tell
        b"\x89PNG\r\n\x1a\n" + drawn(4000),
        b"PK\x03\x04" + drawn(4000),
        zlib.compress(drawn(4000)),
        b"\x00\x00\x00\x20ftypheic" + drawn(4000),
        b"\xe9" + b"short, and not English",
        b"",
    ],
)
def test_data_and_known_formats_are_plain(sample: bytes) -> None:
    assert texture(sample[:SAMPLE_BYTES]) is Texture.PLAIN


def test_what_runs_on_this_machine_is_plain() -> None:
    for path in ["/bin/ls", "/bin/bash", *Path("/usr/lib/python3").rglob("*.py")][:50]:
        assert texture(Path(path).read_bytes()[:SAMPLE_BYTES]) is Texture.PLAIN, path


@pytest.mark.parametrize("byte", [b"\x00", b"A", b"\xff"])
@pytest.mark.parametrize("size", [SAMPLE_BYTES_MIN, SAMPLE_BYTES])
def test_one_byte_over_and_over_is_blank(byte: bytes, size: int) -> None:
    assert texture(byte * size) is Texture.BLANK


def test_of_a_small_file_only_zeros_are_blank() -> None:
    assert texture(b"\x00") is Texture.BLANK
    assert texture(b"1") is texture(b"\xff\xff") is Texture.PLAIN
