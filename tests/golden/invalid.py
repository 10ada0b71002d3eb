"""Objects that must be refused, each with the error that a reader owes.

Many of them authenticate: whoever made them had the keys, and the reader checks all the same.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import lz4.block
import msgspec
import zstandard
from golden.forge import Forged, forge, header_fields, prefixed, sign
from golden.keyring import invalid_keys
from golden.materials import (
    ADMIN,
    DOMAIN,
    IDENTITY,
    KEK,
    WRITER,
    KeySource,
    chunk_ids,
    fixed,
)
from golden.specimens import CHAIN, DATA, META, SOURCE, specimens

from streamd.format import crypto, envelope, keys, layout
from streamd.format.frame import frame_aad, frame_cipher
from streamd.format.vault_config import Certificate, encode_signed

INDEX_KEY = CHAIN.domain_keys.index_key
pack_bytes = msgspec.msgpack.encode


class Invalid(NamedTuple):
    """An object, the reader that must refuse it, the class of the error, and why."""

    file: str
    reader: str
    name: str
    data: bytes
    error: str
    why: str


def _flip(data: bytes, at: int, mask: int = 1) -> bytes:
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


def _resigned(data: bytes) -> bytes:
    return sign(data[: -envelope.TRAILER_SIZE])


def segment_with(records: Any, **section: Any) -> bytes:
    """Return a well-signed segment with these records (bytes: exactly those, already packed)."""
    body = records if isinstance(records, bytes) else pack_bytes(records)
    fields = header_fields(ks=[META.source], src=[SOURCE], t=5, t1=9, e=1, s=0, p=bytes(32))
    return forge(b"J", fields, [Forged("j", body, META.secret, **section)])


def list_with(body: Any, **fields: Any) -> bytes:
    """Return a well-signed condemn list."""
    return forge(b"G", header_fields(g=4, **fields), [Forged("g", pack_bytes(body), INDEX_KEY)])


def pack_with(frames: list[tuple[bytes, bytes, dict[str, Any]]], **fields: Any) -> bytes:
    """Return a pack; a frame is its stored bytes, its chunk ids, and columns that differ."""
    columns: list[Any] = [len(frames), b"", b"", b"", b"", b"", b"", b"", b""]
    for ordinal, (data, ids, change) in enumerate(frames):
        sizes = change.get("sizes", [len(data) - 16])
        row = [
            change.get("origin", 0),
            change.get("ordinal", ordinal),
            change.get("stored", len(data)),
            change.get("plain", sum(sizes)),
        ]
        for column, value in enumerate(row, 1):
            columns[column] += value.to_bytes(4, "little")
        columns[5] += bytes((change.get("codec", 0),))
        columns[6] += len(sizes).to_bytes(4, "little")
        columns[7] += ids
        columns[8] += b"".join(size.to_bytes(4, "little") for size in sizes)
    table = {"ks": [keys.index_source(DOMAIN), DATA.source], "og": [[1, bytes(16)]], "r": 1}
    return forge(
        b"P",
        header_fields(**(table | fields)),
        [
            Forged("i", pack_bytes(columns), INDEX_KEY),
            Forged("c", b"".join(data for data, _, _ in frames), None),
        ],
        signer=None,
    )


def frame_of(
    plain: bytes, ids: bytes, *, identity: bytes = IDENTITY, ordinal: int = 0, codec: int = 0,
    plain_size: int | None = None,
) -> bytes:  # fmt: skip
    """Return a frame under the data session and an all-zero origin salt."""
    aad = frame_aad(identity, codec, len(plain) if plain_size is None else plain_size, ids)
    return bytes(crypto.encrypt(frame_cipher(DATA.secret, bytes(16)), ordinal, plain, aad))


def _envelopes() -> Iterator[tuple[str, str, bytes, str, str]]:
    good = specimens()["condemn.bin"].data
    damaged, newer = "VaultDamaged", "FormatUnsupported"
    yield "magic", "condemn", _resigned(_flip(good, 0)), damaged, "the magic differs"
    yield "major", "condemn", _resigned(_flip(good, 9, 3)), newer, "format major 2"
    yield "flags", "condemn", _resigned(_flip(good, 10, 4)), newer, "an unknown flag is set"
    yield (
        "kind",
        "condemn",
        specimens()["final.bin"].data,
        damaged,
        "a final list, not a condemn list",
    )
    yield "crc", "condemn", _resigned(_flip(good, 16)), damaged, "the header's CRC differs"
    long = good[:12] + (2**20 + 1).to_bytes(4, "little") + good[16:]
    yield "header-length", "condemn", _resigned(long), damaged, "the header is longer than 1 MiB"
    for label, body, why in (
        ("header-utf8", b"\x81\xa3why\xa2\xff\xfe", "a string of the header is not UTF-8"),
        ("header-depth", b"\x81\xa1z" + b"\x91" * 9000 + b"\xc0", "absurd nesting in the header"),
        ("header-array", b"\x91\xc0", "the header is not a map"),
        ("header-count", b"\xdf\xff\xff\xff\xff", "a map of 4 294 967 295 fields, cut off"),
    ):
        yield label, "condemn", sign(prefixed(body, kind=b"G")), damaged, why
    row = ["g", 20, 40, 0, 0, 24]
    yield (
        "section-offset",
        "condemn",
        list_with([4, [], []], sec=[row]),
        damaged,
        ("a section overlaps the header"),
    )
    yield (
        "section-end",
        "condemn",
        list_with([4, [], []], sec=[["g", 207, 2**63, 0, 0, 24]]),
        (damaged),
        "a section that ends far outside of the object",
    )
    twice = [Forged("g", pack_bytes([4, [], []]), INDEX_KEY)] * 2
    yield (
        "section-twice",
        "condemn",
        forge(b"G", header_fields(g=4), twice),
        damaged,
        ("one tag twice: one key and one nonce for two sections"),
    )
    yield (
        "trailer-cut",
        "segment",
        specimens()["segment-plain.bin"].data[:-1],
        damaged,
        ("the last byte is missing"),
    )
    yield (
        "trailer-none",
        "segment",
        specimens()["segment-plain.bin"].data[:-100],
        damaged,
        ("the trailer is missing"),
    )
    plain = specimens()["segment-plain.bin"].data
    yield "signer", "segment", sign(plain[:-100], ADMIN), damaged, "signed by another key"
    yield "hash", "segment", _flip(plain, 700), damaged, "one bit differs"
    yield (
        "section-bit",
        "segment",
        _resigned(_flip(plain, 1500)),
        damaged,
        ("one bit of an encrypted section differs, properly signed"),
    )


def _sections() -> Iterator[tuple[str, str, bytes, str, str]]:
    damaged, newer = "VaultDamaged", "FormatUnsupported"
    raw = pack_bytes([[0, 0, 0, b"k", b"v" * 500]])
    packer = zstandard.ZstdCompressor(write_content_size=False)
    declared = zstandard.ZstdCompressor().compress(raw)
    yield (
        "plain-size",
        "segment",
        segment_with(raw, plain_size=2**26 + 1),
        damaged,
        ("a section declares 64 MiB and 1 byte"),
    )
    yield (
        "raw-size",
        "segment",
        segment_with(raw, plain_size=len(raw) - 1),
        damaged,
        ("an uncompressed section is longer than it declares"),
    )
    yield (
        "zstd-long",
        "segment",
        segment_with(packer.compress(raw), codec=2, plain_size=99),
        (damaged),
        "zstd output is longer than declared",
    )
    yield (
        "zstd-short",
        "segment",
        segment_with(packer.compress(raw), codec=2, plain_size=len(raw) + 1),
        damaged,
        "zstd output is shorter than declared",
    )
    yield (
        "zstd-bomb",
        "segment",
        segment_with(declared, codec=2, plain_size=99),
        damaged,
        ("the zstd frame's own size contradicts the section's"),
    )
    yield (
        "zstd-tail",
        "segment",
        segment_with(packer.compress(raw) + b"\x00", codec=2, plain_size=len(raw)),
        damaged,
        "a byte stands after the zstd frame",
    )
    yield (
        "lz4-long",
        "segment",
        segment_with(lz4.block.compress(raw, store_size=False), codec=1, plain_size=99),
        damaged,
        "LZ4 output is longer than declared",
    )
    yield "codec", "segment", segment_with(raw, codec=3), newer, "compression 3"
    suite = msgspec.structs.replace(META.source, suite=2)
    kem = msgspec.structs.replace(META.source, kem=9)
    other = msgspec.structs.replace(META.source, session=bytes(8))
    for label, source, error, why in (
        ("suite", suite, newer, "encryption suite 2"),
        ("kem", kem, newer, "key encapsulation 9"),
        ("session", other, "KeyRejected", "the sealed key belongs to another session number"),
        ("generation", msgspec.structs.replace(META.source, generation=7), "KeyRejected",
         "a key generation that the host does not have"),
    ):  # fmt: skip
        fields = header_fields(ks=[source], src=[SOURCE])
        yield label, "segment", forge(b"J", fields, [Forged("j", raw, META.secret)]), error, why
    for label, records, why in (
        ("records-time", [[0, 5, 0, b"k", b"v"], [0, 4, 0, b"k", b"v"]], "time goes backwards"),
        ("records-source", [[0, 0, 1, b"k", b"v"]], "a record of a source the header lacks"),
        ("records-negative", [[0, 0, -2, b"k", b"v"]], "a record of source -2"),
        ("records-type", [[0, 0, 0, "k", b"v"]], "a key that is a string, not bytes"),
        ("records-short", [[0, 0, 0, b"k"]], "a record without value"),
    ):
        yield label, "segment", segment_with(records), damaged, why
    yield (
        "condemn-generation",
        "condemn",
        list_with([5, [], []]),
        damaged,
        ("the list is of generation 5, its header of 4"),
    )
    page = [b"k", fixed("page"), 64]
    for label, merkle, source, why in (
        ("checkpoint-merkle", bytes(32), SOURCE, "the hash over the pages differs"),
        ("checkpoint-source", crypto.digest(fixed("page")), bytes(16), "another source"),
    ):
        root = pack_bytes([source, 1, [], [bytes(32), 64], merkle, [page]])
        fields = header_fields(ks=[META.source], src=[SOURCE])
        yield (
            label,
            "checkpoint",
            forge(b"C", fields, [Forged("c", root, META.secret)]),
            (damaged),
            why,
        )
    yield "page-empty", "checkpoint-page", b"\x90", damaged, "a page without rows"
    yield (
        "list-endless",
        "chunk-list-page",
        pack_bytes([[None, 1]] * 4097),
        damaged,
        ("a page of 4097 runs"),
    )


def _packs() -> Iterator[tuple[str, str, bytes, str, str]]:
    damaged, ids = "VaultDamaged", chunk_ids(CHAIN, [b"chunk"])
    other = fixed("another vault", 16) + DOMAIN
    two = [(frame_of(b"chunk", ids), ids, {"ordinal": 1}),
           (frame_of(b"chunk", ids, ordinal=1), ids, {"ordinal": 0})]  # fmt: skip
    forged = frame_of(b"chunk", ids[::-1])
    for label, frames, why in (
        ("pack-vault", [(frame_of(b"chunk", ids, identity=other), ids, {})],
         "a frame of another vault"),
        ("pack-swap", two, "two frames whose ordinals are exchanged"),
        ("pack-chunk", [(forged, ids[::-1], {})], "a chunk that does not match its id"),
        ("pack-sizes", [(frame_of(b"chunk", ids), ids, {"sizes": [6], "plain": 5})],
         "chunk sizes that do not fill the frame"),
        ("pack-origin", [(frame_of(b"chunk", ids), ids, {"origin": 1})], "an origin that is not there"),
        ("pack-frames", [(frame_of(b"chunk", ids), ids, {"stored": 22})],
         "the frames are longer than their section"),
        ("pack-plain", [(frame_of(b"chunk", ids), ids, {"plain": 2**22 + 1})],
         "a frame of 4 MiB and 1 byte"),
    ):  # fmt: skip
        yield label, "pack-by-range", pack_with(frames), damaged, why
    bomb = lz4.block.compress(bytes(10**6), store_size=False)
    frame = frame_of(bomb, ids, codec=1, plain_size=5)
    yield (
        "pack-bomb",
        "pack-by-range",
        pack_with([(frame, ids, {"codec": 1, "sizes": [5]})]),
        (damaged),
        "a frame whose LZ4 output is longer than declared",
    )
    good = pack_with([(frame_of(b"chunk", ids), ids, {})])
    yield "pack-name", "pack", good, damaged, "a pack that is not named by its hash"
    yield (
        "pack-key",
        "pack-by-range",
        pack_with([], og=[[2, bytes(16)]]),
        damaged,
        ("an origin names a key that is not there"),
    )


def _documents() -> Iterator[tuple[str, str, bytes, str, str]]:
    damaged = "VaultDamaged"
    ring_data = specimens()["ring.bin"].data
    yield "ring-signer", "ring", sign(ring_data[:-100]), damaged, "not signed by its admin key"
    source = KeySource(1, 0, 4, 1, bytes(8), b"")
    fields = header_fields(ks=[source], d=b"", w=b"")
    yield (
        "ring-empty",
        "ring",
        forge(b"K", fields, [Forged("k", b"\x80", KEK)]),
        damaged,
        ("a ring without keys"),
    )
    slot = json.loads(specimens()["slot.json"].data)
    for label, change, error, why in (
        ("slot-memory", {"memory_kib": 2**20 + 1}, damaged, "a slot that asks for over 1 GiB"),
        ("slot-lanes", {"lanes": 0}, damaged, "a slot with no lanes"),
        ("slot-vault", {"vault": "AAAAAAAAAAAAAAAAAAAAAA=="}, damaged, "a slot of another vault"),
        ("slot-kind", {"kind": "passphrase"}, "KeyRejected", "a slot whose kind was changed"),
    ):
        yield label, "slot", json.dumps(slot | change, indent=2).encode() + b"\n", error, why
    config = specimens()["config.json"].data
    yield (
        "config-number",
        "config",
        config.replace(b'"number": 0', b'"number": 1'),
        damaged,
        ("a digit changed after signing"),
    )
    head, sig = config.rsplit(b'"sig": "', 1)
    yield (
        "config-case",
        "config",
        head + b'"sig": "' + sig.upper(),
        damaged,
        ("a signature in capitals: documents have one spelling"),
    )
    yield (
        "config-certificate",
        "config",
        specimens()["certificate.json"].data,
        damaged,
        ("a certificate where the configuration belongs"),
    )
    foreign = Certificate(vault="", domain="", writer="", number=0, public="", host="", created="")
    yield (
        "certificate-signer",
        "certificate",
        encode_signed(foreign, fixed("another admin")),
        (damaged),
        "a certificate signed by another admin",
    )
    host = json.loads(specimens()["host-key-full.json"].data) | {"domain_secret": "AAAA"}
    yield (
        "host-key-length",
        "host-key",
        json.dumps(host).encode(),
        "KeyFileInvalid",
        ("a domain secret of 3 bytes"),
    )


def shard_with(body: Any) -> bytes:
    """Return a well-signed index shard."""
    return forge(b"X", header_fields(g=7), [Forged("x", pack_bytes(body), INDEX_KEY)])


def manifest_with(**change: Any) -> bytes:
    """Return a well-signed index manifest of generation 7."""
    fields: dict[str, Any] = {
        "generation": 7,
        "bits": 1,
        "condemned": 0,
        "sources": [],
        "shards": [],
        "objects": [],
    }
    body = pack_bytes(list((fields | change).values()))
    return forge(b"X", header_fields(g=7), [Forged("m", body, INDEX_KEY)])


def history_with(rows: list[Any], **change: Any) -> bytes:
    """Return a well-signed history run of one page."""
    fields: dict[str, Any] = {
        "source": SOURCE,
        "level": 1,
        "start": 5,
        "end": 9,
        "cover": [WRITER, 1, 0, 1, 3, bytes(32)],
        "pages": [[rows[0][0] if rows else b"", len(rows)]],
    }
    body = pack_bytes(list((fields | change).values()))
    header = header_fields(ks=[META.source], src=[SOURCE], t=5, t1=9)
    page = Forged("0", pack_bytes(rows), META.secret)
    return forge(b"H", header, [Forged("h", body, META.secret), page])


def _runs() -> Iterator[tuple[str, str, bytes, str, str]]:
    low, high, one = bytes(31) + b"\1", b"\xff" * 32, (1).to_bytes(4, "little")
    shards = {
        "shard-order": ([0, 0, high + low, one * 2], "ids that descend"),
        "shard-twice": ([0, 0, low + low, one * 2], "one id twice"),
        "shard-other": ([0, 1, high, one], "an id of another shard"),
        "shard-bits": ([0, 9, low, one], "more shards than there may be"),
        "shard-columns": ([0, 0, low, one * 2], "columns of different lengths"),
        "shard-ids": ([0, 0, low + b"x", one], "a piece of an id"),
    }
    for label, (body, why) in shards.items():
        yield label, "index-shard", shard_with(body), "VaultDamaged", why
    manifests: dict[str, tuple[dict[str, Any], str]] = {
        "manifest-generation": ({"generation": 8}, "another generation than the header's"),
        "manifest-bits": ({"bits": 9}, "more shards than there may be"),
        "manifest-shard": ({"shards": [[2, "x", 1, b""]]}, "a shard beyond the last"),
        "manifest-shards": ({"shards": [[0, "x", 1, b""]] * 2}, "a shard twice"),
        "manifest-source": ({"objects": [["j", 1, 0, b"", 0, 1, 2, [0]]]}, "no such source"),
    }
    for label, (change, why) in manifests.items():
        yield label, "index-manifest", manifest_with(**change), "VaultDamaged", why
    row = [b"f1", 0, 5, 0, b"v"]
    histories: dict[str, tuple[list[Any], dict[str, Any], str]] = {
        "history-order": ([[b"f2", 1, 5, 0, b""], row], {}, "keys that descend"),
        "history-twice": ([row, row], {}, "one record twice"),
        "history-empty": ([], {}, "a page without rows"),
        "history-count": ([row], {"pages": [[b"f1", 2]]}, "fewer rows than the root says"),
        "history-key": ([row], {"pages": [[b"f0", 1]]}, "another first key than the root says"),
        "history-pages": ([row], {"pages": []}, "more pages than the root says"),
        "history-source": ([row], {"source": bytes(16)}, "another source than the header's"),
        "history-cover": ([row], {"cover": [WRITER, 2, 0, 1, 3, b""]}, "it ends before it begins"),
        "history-writer": ([row], {"cover": [b"", 1, 0, 1, 3, b""]}, "another writer's journal"),
    }
    for label, (rows, change, why) in histories.items():
        yield label, "history", history_with(rows, **change), "VaultDamaged", why


def _keys() -> Iterator[tuple[str, str, bytes, str, str]]:
    return invalid_keys({name: each.data for name, each in specimens().items()})


def invalid_objects() -> list[Invalid]:
    """Build every invalid vector."""
    found = []
    for part in (_envelopes, _sections, _packs, _documents, _runs, _keys):
        for label, reader, data, error, why in part():
            ending = "json" if data[:1] == b"{" else "txt" if reader == "kit" else "bin"
            name = layout.pack_name(DOMAIN, bytes(32)) if reader == "pack" else ""
            found.append(Invalid(f"{label}.{ending}", reader, name, data, error, why))
    assert len({each.file for each in found}) == len(found)
    return found
