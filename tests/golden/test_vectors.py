"""The bytes of the format are final: every vector reads as ever, and is written as ever."""

import json
from typing import Any

import pytest
from golden import make_vectors
from golden.invalid import invalid_objects
from golden.materials import VECTORS
from golden.specimens import READERS, specimens

from streamd import errors
from streamd.format import crypto

MANIFEST: dict[str, Any] = json.loads((VECTORS / "manifest.json").read_text("utf-8"))
VALID = {row["file"]: row for row in MANIFEST["valid"]}
INVALID = {row["file"]: row for row in MANIFEST["invalid"]}
SAME_ENCODERS = MANIFEST["encoders"] == make_vectors.versions()


@pytest.mark.parametrize("file", VALID)
def test_a_valid_object_reads_as_it_always_did(file: str) -> None:
    row = VALID[file]
    assert READERS[row["reader"]]((VECTORS / file).read_bytes(), row["name"]) == row["expected"]


@pytest.mark.parametrize("file", VALID)
def test_an_object_is_written_as_it_always_was(file: str) -> None:
    """Compressors may differ by version: then the bytes may, and what they say may not."""
    row, made = VALID[file], specimens()[file]
    if SAME_ENCODERS:
        assert made.data == (VECTORS / file).read_bytes()
        assert crypto.digest(made.data).hex() == row["blake3"]
        assert made.name == row["name"]
    READERS[row["reader"]](made.data, made.name)


@pytest.mark.parametrize("file", INVALID)
def test_an_invalid_object_is_refused_with_the_error_it_deserves(file: str) -> None:
    row = INVALID[file]
    error = getattr(errors, row["error"])
    with pytest.raises(error) as caught:
        READERS[row["reader"]]((VECTORS / file).read_bytes(), row["name"])
    assert caught.type is error


def test_every_invalid_object_is_committed() -> None:
    made = {f"invalid/{each.file}": each for each in invalid_objects()}
    assert made.keys() == INVALID.keys()
    assert len(made) >= 20
    if SAME_ENCODERS:
        for file, each in made.items():
            assert each.data == (VECTORS / file).read_bytes(), file


@pytest.mark.parametrize("part", ["keys", "derivations", "cuts", "content_tree"])
def test_what_is_derived_is_what_it_always_was(part: str) -> None:
    assert json.loads(json.dumps(getattr(make_vectors, PARTS[part])())) == MANIFEST[part]


PARTS = {
    "keys": "keys_used",
    "derivations": "derivations",
    "cuts": "cuts",
    "content_tree": "content_tree",
}


def test_nothing_else_lies_among_the_vectors() -> None:
    there = {str(p.relative_to(VECTORS)) for p in VECTORS.rglob("*") if p.is_file()}
    assert there == VALID.keys() | INVALID.keys() | {"manifest.json", "sessions.json"}
