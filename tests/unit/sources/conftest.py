"""A file system source over a temporary directory, with chunking that is easy to predict."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamd.effects import SystemClock
from streamd.sources.filesystem.rules import ExcludeRules
from streamd.sources.filesystem.source import FilesystemSource
from streamd.sources.port import Piece, ReadRequest


class ZeroByteCutter:
    """Cuts after every 0xFF byte, a content-defined chunker that a test can steer."""

    def cut(self, buffer: memoryview, *, final: bool) -> list[int]:
        sizes, start = [], 0
        data = bytes(buffer)
        while (at := data.find(b"\xff", start)) >= 0:
            sizes.append(at + 1 - start)
            start = at + 1
        if final and start < len(data):
            sizes.append(len(data) - start)
        return sizes


def chunk_id(view: memoryview) -> bytes:
    return hashlib.sha256(view).digest()


class Tree:
    """A root on disk and ways to ask a source about it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = os.fsencode(root)

    def source(self, rules: Sequence[str] = (), **options) -> FilesystemSource:
        return FilesystemSource(
            "test",
            options.pop("roots", (self.path,)),
            rules=ExcludeRules(rules),
            cutter=ZeroByteCutter(),
            hasher=chunk_id,
            clock=SystemClock(),
            **options,
        )

    def request(self, name: str = "f", source: FilesystemSource | None = None) -> ReadRequest:
        source = source or self.source()
        path = os.path.join(self.path, os.fsencode(name))
        directory, base = os.path.split(path)
        return ReadRequest(path, source.examine(directory, [base]).entries[base])


def content(arena: memoryview, pieces: Sequence[Piece]) -> bytes:
    """Return the bytes that pieces stand for, after checking their ids."""
    parts = []
    for piece in pieces:
        if piece.id is None:
            parts.append(bytes(piece.size))
        else:
            data = arena[piece.offset : piece.offset + piece.size]
            assert chunk_id(data) == piece.id
            parts.append(bytes(data))
    return b"".join(parts)


@pytest.fixture
def tree(tmp_path) -> Tree:
    (tmp_path / "tree").mkdir()
    return Tree(tmp_path / "tree")


@pytest.fixture(scope="module")
def tree_of() -> type[Tree]:
    return Tree


@pytest.fixture
def contents():
    return content
