"""Somebody takes everything that a write-only host has, and gets nothing out of the vault with it.

The thief tries whatever looks like a key: every 32 or 96 bytes in a row in any file, in any field
of the key file, in any cell of the catalog; as session key, private key and key of the ring. The
same thief opens everything with what a full host has, so the attack is a real one.
"""

import base64
import binascii
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plain_host import PlainHost

from streamd.errors import StreamdError, VaultDamaged
from streamd.format import crypto, envelope, pack
from streamd.format.crypto import Kem
from streamd.format.envelope import Kind
from streamd.format.frame import frame_aad, frame_cipher
from streamd.format.keys import KeyChain, KeySource, Role, decode_host_key
from streamd.format.pack import FrameHolder

CONTENT = b"the content that nobody may read " * 40
DELETED = "name-that-only-the-past-knows"
LIVE = "name-of-the-live-tree"
WINDOW, SEED, CELL_MAX = 32, 96, 1400  # the longest field is a public key of 1216 bytes
SEALED = {Role.META, Role.DATA}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


class Host(PlainHost):
    """A host with a key file, a state directory, a configuration and its copy of the vault."""

    def __init__(self, root: Path, kit: Path) -> None:
        # the live tree is not what the theft is about
        super().__init__(root, tree=root.parent / "tree")
        self.kit = kit

    def run(self, *arguments: str) -> int:
        code = super().run(*arguments)
        assert code == 0, arguments
        return code


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host", tmp_path / "away.kit")
    (made.tree / DELETED).write_bytes(CONTENT + b"past")
    (made.tree / LIVE).write_bytes(CONTENT)
    (made.tree / "large").write_bytes(CONTENT * 300)
    made.run("init", "--kit", str(made.kit))
    made.run("capture")
    (made.tree / DELETED).unlink()
    made.run("capture")
    return made


# -- what looks like a key -------------------------------------------------------------------------


def _fields(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _fields(name)
            yield from _fields(each)
    elif isinstance(value, list):
        for each in value:
            yield from _fields(each)
    elif isinstance(value, str):
        yield value.encode()
        for decode in (base64.b64decode, bytes.fromhex):
            try:
                yield decode(value)
            except (binascii.Error, ValueError):
                continue


def _cells(path: Path) -> Iterator[bytes]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    tables = [
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table}"):
            for cell in row:
                if isinstance(cell, str | bytes):
                    yield cell.encode() if isinstance(cell, str) else cell
    connection.close()


def loot(host: Host) -> list[bytes]:
    """Return every string of bytes on the host that may hold a key."""
    found: list[bytes] = []
    for path in sorted(p for p in host.root.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if host.vault in path.parents and path.suffix != ".json":
            continue  # what the storage has anyway
        found.append(data)
        if data[:6] == b"SQLite":
            found += [cell for cell in _cells(path) if len(cell) <= CELL_MAX]
        elif data[:1] == b"{":
            found += list(_fields(json.loads(data)))
    return found


def windows(strings: Iterable[bytes], size: int) -> set[bytes]:
    return {text[i : i + size] for text in strings for i in range(len(text) - size + 1)}


# -- the thief -------------------------------------------------------------------------------------


@dataclass
class Thief:
    """Tries keys on every object of the vault, and remembers what opened."""

    host: Host
    opened: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        key = decode_host_key(self.host.key_file.read_bytes(), "host.key")
        self.chain = KeyChain(key)
        self.segments, self.packs, self.rings = [], [], []
        for path in sorted(p for p in self.host.vault.rglob("*") if p.is_file()):
            data = path.read_bytes()
            if data[8:9] == b"J":
                self.segments.append((path.name, envelope.parse(data, Kind.SEGMENT)))
            elif data[8:9] == b"P":
                self.packs.append((path.name, data, self._index(data)))
            elif data[8:9] == b"K":
                self.rings.append((path.name, envelope.parse(data, Kind.RING)))

    def _index(self, data: bytes) -> FrameHolder:
        return pack.decode_pack_index(data, self.chain.secret_for)  # the domain secret reads it

    def sources(self) -> Iterator[tuple[str, KeySource]]:
        for name, parsed in self.segments:
            for source in parsed.header.ks:
                yield name, source
        for name, _, holder in self.packs:
            for origin in holder.origins:
                yield name, origin.source

    def try_sessions(self, secrets: Iterable[bytes]) -> None:
        """Try 32 bytes as the key of a section, of a frame, of the ring."""
        for secret in secrets:
            for name, parsed in (*self.segments, *self.rings):
                tag = "j" if parsed.kind is Kind.SEGMENT else "k"
                try:
                    parsed.plain(tag, lambda _, secret=secret: secret)
                except VaultDamaged:
                    continue
                self.opened.add(name)
            for name, data, holder in self.packs:
                row = holder.table.frames[0]
                at = holder.frames_at + row.offset
                cipher = frame_cipher(secret, holder.origins[row.origin].salt)
                ids = holder.table.ids_of(row)
                try:
                    crypto.decrypt(
                        cipher,
                        row.ordinal,
                        data[at : at + row.stored_size],
                        frame_aad(
                            self.chain.vault + self.chain.domain, row.codec, row.plain_size, ids
                        ),
                    )
                except VaultDamaged:
                    continue
                self.opened.add(name)

    def try_private_keys(self, keys: Iterable[bytes]) -> None:
        """Try private keys on the newest sealed session key of each role."""
        newest = {s.role: (name, s) for name, s in self.sources() if s.role in SEALED}
        assert newest.keys() == SEALED
        for key in keys:
            for name, source in newest.values():
                info = (
                    b"streamd/v1/session|"
                    + self.chain.vault
                    + bytes((source.role,))
                    + source.generation.to_bytes(4, "big")
                    + source.session
                )
                try:
                    found = crypto.open_sealed(Kem(source.kem), key, source.sealed, info)
                except StreamdError:
                    continue
                self.opened.add(f"session of {name}")
                self.try_sessions([found])


def test_everything_a_write_only_host_has_decrypts_nothing(host: Host) -> None:
    host.run("key", "host-role", "write-only", "--kit", str(host.kit))
    (host.tree / "late").write_bytes(CONTENT + b"late")
    host.run("capture")
    strings = loot(host)
    for secret in (CONTENT[:33], DELETED.encode()):
        assert not any(secret in text for text in strings), "left lying about in the clear"
    assert any(LIVE.encode() in text for text in strings), "the catalog knows the live tree"
    thief = Thief(host)
    assert thief.segments
    assert thief.packs
    thief.try_sessions(windows(strings, WINDOW))
    fields = [text for text in strings if len(text) <= CELL_MAX]
    thief.try_private_keys(windows(fields, SEED))
    assert thief.opened == set()


def test_the_same_thief_opens_everything_that_a_full_host_has(host: Host) -> None:
    strings = [*_fields(json.loads(host.key_file.read_bytes()))]
    thief = Thief(host)
    thief.try_private_keys(windows(strings, SEED))
    assert any(name.startswith("session") for name in thief.opened)
    assert {name for name, *_ in thief.packs} & thief.opened
    assert {name for name, _ in thief.segments} & thief.opened
