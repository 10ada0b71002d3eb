"""Readers that say all that is in an object, as plain JSON: what the vectors are compared with."""

from collections.abc import Callable
from typing import Any

import msgspec
from golden import keyring
from golden.materials import (
    ADMIN_PUBLIC,
    IDENTITY,
    KEK,
    VAULT,
    WRITER_PUBLIC,
    key_chain,
    recorded_session,
)

from streamd.format import chunklist, envelope, keys, ring
from streamd.format.checkpoint import (
    decode_checkpoint,
    decode_page,
)
from streamd.format.control import (
    decode_condemned,
    decode_epoch,
    decode_finalised,
)
from streamd.format.crypto import Kem
from streamd.format.frame import FrameOpener
from streamd.format.history_run import (
    decode_run,
)
from streamd.format.index_run import (
    decode_manifest,
    decode_shard,
)
from streamd.format.keys import Role
from streamd.format.pack import (
    FrameHolder,
    decode_pack_index,
    verify_pack_name,
)
from streamd.format.segment import decode_segment
from streamd.format.vault_config import (
    Certificate,
    VaultConfig,
    decode_signed,
)

CHAIN = key_chain()
META, DATA = recorded_session("meta"), recorded_session("data")
OTHER, CURVE = recorded_session("data-2"), recorded_session("data-x25519")
SOURCE = CHAIN.domain_keys.source_id("home")
PACKS = {"pack", "pack-by-range"}


def as_json(value: object) -> Any:
    """Return `value` as plain JSON; bytes become base64."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _secret_for(source: keys.KeySource) -> bytes:
    if source == CURVE.source:  # the one session under the other key encapsulation
        return key_chain(Kem.X25519).secret_for(source)
    return CHAIN.secret_for(source)


def _frames(holder: FrameHolder, data: bytes) -> list[dict[str, object]]:
    opener = FrameOpener(_secret_for, CHAIN.domain_keys, IDENTITY)
    found = []
    for row in holder.table.frames:
        at = holder.frames_at + row.offset
        body = data[at : at + row.stored_size]
        plain = bytes(opener.open(holder.table, row, holder.origins[row.origin], body))
        found.append(
            {
                "codec": row.codec,
                "ordinal": row.ordinal,
                "chunk_sizes": list(holder.table.sizes_of(row)),
                "plain": plain.hex() if len(plain) < 512 else "blake3:" + _hash(plain),
            }
        )
    return found


def _hash(data: bytes) -> str:
    return envelope.crypto.digest(data).hex()


def _pack(data: bytes, name: str | None) -> object:
    if name is not None:
        verify_pack_name(name, data)
    return {"frames": _frames(decode_pack_index(data, _secret_for), data)}


def _segment(data: bytes) -> object:
    segment = decode_segment(data, WRITER_PUBLIC)
    inline = {}
    for role in (Role.DATA, Role.META):
        holder = segment.frames(role, _secret_for)
        inline[role.name] = [] if holder is None else _frames(holder, data)
    return as_json(
        {
            "position": segment.position,
            "previous": segment.previous.hex(),
            "hash": segment.hash.hex(),
            "times": [segment.start_us, segment.end_us],
            "sources": [source.hex() for source in segment.sources],
            "ack": segment.ack,
            "records": [
                [r.op, r.dt_us, r.source_ix, r.key.hex(), r.value.hex()]
                for r in segment.records(_secret_for)
            ],
            "inline": inline,
        }
    )


def _epoch(data: bytes) -> object:
    record = decode_epoch(data, WRITER_PUBLIC)
    return {
        "epoch": record.epoch,
        "created_us": record.created_us,
        "reason": record.reason,
        "previous_hash": record.previous_hash.hex(),
        "previous_seq": record.previous_seq,
    }


def _history(data: bytes) -> object:
    root, rows = decode_run(data, WRITER_PUBLIC, _secret_for)
    return as_json({"root": root, "rows": rows})


def _page(rows: list[Any]) -> object:
    return as_json({"count": len(rows), "first": rows[0], "last": rows[-1]})


READERS: dict[str, Callable[[bytes, str], object]] = {
    "pack": _pack,
    "pack-by-range": lambda data, _: _pack(data, None),
    "segment": lambda data, _: _segment(data),
    "epoch": lambda data, _: _epoch(data),
    "checkpoint": lambda data, _: as_json(decode_checkpoint(data, WRITER_PUBLIC, _secret_for)),
    "condemn": lambda data, _: as_json(decode_condemned(data, WRITER_PUBLIC, _secret_for)),
    "final": lambda data, _: as_json(decode_finalised(data, WRITER_PUBLIC, _secret_for)),
    "index-shard": lambda data, _: as_json(decode_shard(data, WRITER_PUBLIC, _secret_for)),
    "index-manifest": lambda data, _: as_json(decode_manifest(data, WRITER_PUBLIC, _secret_for)),
    "history": lambda data, _: _history(data),
    "ring": lambda data, _: as_json(ring.decode_ring(data, KEK)),
    "ring-2": lambda data, _: as_json(ring.decode_ring(data, keyring.KEK_2, vault=VAULT)),
    "slot": lambda data, _: keyring.read_slot(data),
    "kit": lambda data, _: keyring.read_kit(data),
    "config": lambda data, _: as_json(decode_signed(data, ADMIN_PUBLIC, VaultConfig)),
    "certificate": lambda data, _: as_json(decode_signed(data, ADMIN_PUBLIC, Certificate)),
    "host-key": lambda data, _: as_json(keys.decode_host_key(data, "host.key")),
    "checkpoint-page": lambda data, _: _page(decode_page(data)),
    "chunk-list-page": lambda data, _: _page(chunklist.decode_page(data)),
}
