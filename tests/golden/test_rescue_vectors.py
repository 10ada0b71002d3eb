"""The rescue script, made from docs/format.md alone, meets the same vectors as streamd."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from golden.materials import (
    ADMIN_PUBLIC,
    DOMAIN,
    DOMAIN_SECRET,
    IDENTITY,
    KEK,
    RECOVERY_CODE,
    SESSIONS,
    VAULT,
    VECTORS,
    WRITER_PUBLIC,
)
from rescue_script import load

rescue = load()
MANIFEST: dict[str, Any] = json.loads((VECTORS / "manifest.json").read_text("utf-8"))
# What restoring does not need. Of condemn and final lists, envelope and section are still read.
ACCELERATORS = {"index-shard", "index-manifest", "history"}
UNREAD = {"invalid/condemn-generation.bin"}
VALID = {row["file"]: row for row in MANIFEST["valid"] if row["reader"] not in ACCELERATORS}
INVALID = {
    row["file"]: row
    for row in MANIFEST["invalid"]
    if row["reader"] not in ACCELERATORS and row["file"] not in UNREAD
}
FAULTS = {
    "VaultDamaged": rescue.Damaged,
    "FormatUnsupported": rescue.Unsupported,
    "KeyRejected": rescue.WrongKey,
    "KeyFileInvalid": rescue.BadKeyFile,
    "KitInvalid": rescue.Usage,
}
KEYS = {
    name: bytes.fromhex(MANIFEST["keys"][name]) for name in MANIFEST["keys"] if "_private_" in name
}
ID_KEY = bytes.fromhex(MANIFEST["derivations"]["id_key"])
SECRETS = {
    "recovery-code": RECOVERY_CODE.replace("-", "").encode(),
    "passphrase": MANIFEST["keys"]["passphrase"].encode(),
    "key-file": bytes.fromhex(MANIFEST["keys"]["slot_key_file"]),
}


def keys(kem: int) -> Any:
    kind = "mlkem768_x25519" if kem == 2 else "x25519"
    private = {
        "meta": {1: KEYS["meta_private_mlkem768_x25519"]},
        "data": {1: KEYS[f"data_private_{kind}"]},
        "domains": {rescue.base32(DOMAIN): DOMAIN_SECRET},
    }
    return rescue.Keys(VAULT, private, ADMIN_PUBLIC)


HYBRID, CURVE = keys(2), keys(1)
CURVE_SESSION = json.loads(SESSIONS.read_text("utf-8"))["data-x25519"]["session"]


def secret_of(row: tuple[Any, ...]) -> bytes:
    return (CURVE if row[4].hex() == CURVE_SESSION else HYBRID).secret_of(row, DOMAIN)


def frames(envelope: Any, role: int, data: bytes) -> list[dict[str, Any]]:
    held = rescue.frames_of(envelope, role, secret_of)
    found = []
    for frame in held[0] if held else ():
        at = held[1] + frame.at
        sealed = data[at : at + frame.stored]
        plain = rescue.open_frame(frame, held[2][frame.origin], sealed, IDENTITY, ID_KEY, secret_of)
        found.append(
            {
                "codec": frame.codec,
                "ordinal": frame.ordinal,
                "chunk_sizes": list(frame.sizes),
                "plain": plain.hex() if len(plain) < 512 else "blake3:" + rescue.h(plain).hex(),
            }
        )
    return found


def pack(data: bytes, name: str) -> Any:
    if name:  # a reader of ranges cannot check it; one that has the whole object does
        rescue.need(name.split("/")[4] == rescue.base32(rescue.h(data)), "not its name")
    envelope = rescue.Envelope(data, "P")
    return {"frames": frames(envelope, envelope.header["r"], data)}


def segment(data: bytes) -> Any:
    read = rescue.Segment(data, [WRITER_PUBLIC])
    return {
        "position": list(read.position),
        "previous": read.previous.hex(),
        "hash": read.hash.hex(),
        "times": [read.header["t"], read.header["t1"]],
        "sources": [source.hex() for source in read.sources],
        "ack": read.header["ack"],
        "records": [
            [op, dt, number, key.hex(), value.hex()]
            for op, dt, number, key, value in read.records(secret_of)
        ],
        "inline": {"DATA": frames(read, 1, data), "META": frames(read, 2, data)},
    }


def as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return value


def page(data: bytes, shape: Any) -> Any:
    rows = rescue.read_page(data, shape)
    return as_json({"count": len(rows), "first": rows[0], "last": rows[-1]})


def epoch(data: bytes) -> Any:
    head = rescue.Envelope(data, "E", [WRITER_PUBLIC]).header
    return {
        "epoch": head["e"],
        "created_us": head["t"],
        "reason": head["why"],
        "previous_hash": head["p"].hex(),
        "previous_seq": head["s"],
    }


def ring(data: bytes, kek: bytes) -> Any:
    private, public = rescue.read_ring(data, VAULT, kek)
    return as_json({"private": private, "public": public})


def slot(data: bytes) -> Any:
    read = rescue.read_slot(data, VAULT)
    return {"kek": rescue.open_slot(read, SECRETS[read["kind"]], {}).hex()}


def listed(data: bytes, kind: str) -> Any:
    envelope = rescue.Envelope(data, kind, [WRITER_PUBLIC])
    return rescue.unpack(envelope.plain("g", secret_of), list)


def kit(data: bytes) -> Any:
    found = rescue.read_kit(data)
    slot_in_it = rescue.read_slot(found["SLOT"], found["vault"])
    secret = SECRETS["recovery-code"]
    kek = rescue.open_slot(slot_in_it, secret, {})
    private, _ = rescue.read_ring(found["RING"], found["vault"], kek)
    return {
        "vault": rescue.base32(found["vault"]),
        "url": found["url"],
        "admin": rescue.base32(found["admin"]),
        "slot": found["slot"],
        "code": found.get("recovery-code", ""),
        "created": found["created"],
        "edition": slot_in_it["edition"],
        "generations": sorted(private["meta"]),
    }


READERS: dict[str, Callable[[bytes, str], Any]] = {
    "pack": pack,
    "pack-by-range": lambda data, _: pack(data, ""),
    "segment": lambda data, _: segment(data),
    "epoch": lambda data, _: epoch(data),
    "checkpoint": lambda data, _: as_json(
        list(rescue.read_checkpoint(data, [WRITER_PUBLIC], secret_of))
    ),
    "condemn": lambda data, _: listed(data, "G"),
    "final": lambda data, _: listed(data, "F"),
    "ring": lambda data, _: ring(data, KEK),
    "ring-2": lambda data, _: ring(data, bytes.fromhex(MANIFEST["keys"]["key_encryption_key_2"])),
    "slot": lambda data, _: slot(data),
    "kit": lambda data, _: kit(data),
    "config": lambda data, _: rescue.read_config(data, ADMIN_PUBLIC),
    "certificate": lambda data, _: rescue.read_certificate(data, ADMIN_PUBLIC),
    "checkpoint-page": lambda data, _: page(data, rescue.PAGE),
    "chunk-list-page": lambda data, _: page(data, rescue.LIST_PAGE),
    "host-key": lambda data, _: rescue.read_key_file(data),
}


@pytest.mark.parametrize("file", VALID)
def test_the_rescue_script_reads_what_streamd_reads(file: str) -> None:
    row = VALID[file]
    found = READERS[row["reader"]]((VECTORS / file).read_bytes(), row["name"])
    if row["reader"] in {"condemn", "final", "host-key"}:
        assert found  # it needs fewer facts of these
    elif row["reader"] == "config":
        assert found == {"ring": "", **row["expected"]}
    else:
        assert found == row["expected"]


@pytest.mark.parametrize("file", INVALID)
def test_the_rescue_script_refuses_what_streamd_refuses(file: str) -> None:
    row = INVALID[file]
    with pytest.raises(rescue.Fault) as caught:
        READERS[row["reader"]]((VECTORS / file).read_bytes(), row["name"])
    assert caught.type is FAULTS[row["error"]], caught.value


def test_the_reader_of_last_resort_needs_no_blake3(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = [rescue.h(bytes(size), key) for size in SIZES for key in (None, ID_KEY)]
    monkeypatch.setattr(rescue, "fast_blake3", None)
    assert [rescue.h(bytes(size), key) for size in SIZES for key in (None, ID_KEY)] == fast
    for file in ("segment-inline.bin", "pack-three-origins.bin", "ring.bin", "checkpoint.bin"):
        test_the_rescue_script_reads_what_streamd_reads(file)


SIZES = (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 5000, 9216)
