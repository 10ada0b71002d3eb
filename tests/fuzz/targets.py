"""What is fuzzed: every parser of the format, streamd's and the rescue script's, with cryptography off.

With it on, no mutation gets past the first check. So here whatever should be signed is, what should
be encrypted stands in the clear, and checksums fit: what is left is what somebody reaches who holds
all keys, or finds a way around them. A case is one byte that chooses the target, and its input.
`open_gates` patches the modules for good: use it in a process of its own.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from golden.keyring import read_kit, read_slot
from golden.materials import ADMIN_PUBLIC, IDENTITY, KEK, VAULT, WRITER_PUBLIC
from golden.specimens import CHAIN, specimens
from rescue_script import load

from streamd.errors import StreamdError
from streamd.format import (
    checkpoint,
    chunklist,
    codec,
    control,
    crypto,
    envelope,
    frame,
    history_run,
    index_run,
    keys,
    layout,
    pack,
    ring,
    segment,
    vault_config,
    wire,
)
from streamd.format.envelope import HEADER_AT, HEADER_SIZE_MAX, Kind
from streamd.format.frame import FrameOpener
from streamd.format.keys import Role
from streamd.model.entry import Dirent, SourceInfo
from streamd.model.record import Gap, Mark, StateSum
from streamd.vault.tree_state import decode_version

rescue = load()
Target = Callable[[bytes], object]
SECRET = bytes(32)
SEED_MAX = 4000  # small cases run fast, and sizes are declared, not written


def _clear(cipher: object, ordinal: int, data: Any, aad: bytes) -> bytes:
    del cipher, ordinal, aad
    if len(data) < crypto.TAG_SIZE:
        raise streamd_damage()
    return bytes(data[: -crypto.TAG_SIZE])


def streamd_damage() -> StreamdError:
    from streamd.errors import VaultDamaged

    return VaultDamaged("an encrypted part does not authenticate")


def open_gates() -> None:
    """Switch cryptography off in this process."""
    crypto.decrypt = _clear
    crypto.is_signed = lambda *_: True
    crypto.open_sealed = lambda *_: SECRET
    envelope.verify_signature = lambda data, key: bytes(32) if len(data) >= 120 else _refuse()
    for module in (checkpoint, control, history_run, index_run, ring, segment):
        for name in ("verify_signature",):
            if hasattr(module, name):
                setattr(module, name, envelope.verify_signature)
    rescue.unseal = lambda key, number, data, aad: (
        bytes(data[:-16]) if len(data) >= 16 else rescue.need(False, "short")
    )
    rescue.is_signed = lambda *_: True
    rescue.hpke_open = lambda *_: SECRET
    rescue.Envelope.verified = staticmethod(
        lambda data, _: rescue.need(len(data) >= 120, "short") or bytes(32)
    )


def _refuse() -> bytes:
    raise streamd_damage()


def clear_of(data: bytes, secret_for: Callable[[Any], bytes]) -> bytes:
    """Return a specimen with its sealed sections in the clear, for the corpus."""
    out = bytearray(data)
    parsed = envelope.parse(data, Kind(chr(data[8])))
    for section in parsed.header.sec:
        if section.source >= 0:
            source = parsed.header.ks[section.source]
            key = envelope._section_key(secret_for(source), parsed.header.sa, section.tag)
            plain = crypto.decrypt(
                crypto.cipher_for(key), 0, parsed.raw(section), parsed.associated
            )
            end = section.offset + section.size
            out[section.offset : end] = bytes(plain) + bytes(crypto.TAG_SIZE)
    return bytes(out)


def fitted(data: bytes) -> bytes:
    """Return an object whose fixed part is right: magic, version, flags, CRC."""
    if len(data) < HEADER_AT:
        return data
    size = int.from_bytes(data[12:16], "little") % (HEADER_SIZE_MAX + 2)
    body = data[HEADER_AT : HEADER_AT + size]
    head = envelope.MAGIC + data[8:9] + b"\x01\x03\x00" + len(body).to_bytes(4, "little")
    return head + zlib.crc32(body).to_bytes(4, "little") + data[HEADER_AT:]


def secret_for(_: object) -> bytes:
    return SECRET


# -- streamd ---------------------------------------------------------------------------------------


def _segment(data: bytes) -> None:
    read = segment.decode_segment(data, WRITER_PUBLIC)
    with contextlib.suppress(StreamdError):
        read.records(secret_for)
    for role in (Role.DATA, Role.META):
        with contextlib.suppress(StreamdError):
            _open_all(read.frames(role, secret_for), data)


def _pack(data: bytes) -> None:
    _open_all(pack.decode_pack_index(data, secret_for), data)


def _open_all(holder: Any, data: bytes) -> None:
    opener = FrameOpener(secret_for, CHAIN.domain_keys, IDENTITY)
    for row in holder.table.frames[:20] if holder else ():
        at = holder.frames_at + row.offset
        with contextlib.suppress(StreamdError):
            opener.open(
                holder.table, row, holder.origins[row.origin], data[at : at + row.stored_size]
            )


def _values(data: bytes) -> None:
    for kind in (Dirent, SourceInfo, Gap, Mark, StateSum):
        with contextlib.suppress(StreamdError):
            wire.decode(__import__("msgspec").msgpack.Decoder(kind), data, "a value")
    decode_version(data)


def _names(data: bytes) -> None:
    name = data.decode("latin-1")
    for parse in PARSERS:
        parse(name)


PARSERS = [getattr(layout, name) for name in dir(layout) if name.startswith("parse_")]
STREAMD: dict[str, Target] = {
    "segment": lambda data: _segment(fitted(data)),
    "pack": lambda data: _pack(fitted(data)),
    "checkpoint": lambda d: checkpoint.decode_checkpoint(fitted(d), WRITER_PUBLIC, secret_for),
    "condemn": lambda d: control.decode_condemned(fitted(d), WRITER_PUBLIC, secret_for),
    "final": lambda d: control.decode_finalised(fitted(d), WRITER_PUBLIC, secret_for),
    "epoch": lambda d: control.decode_epoch(fitted(d), WRITER_PUBLIC),
    "ring": lambda d: ring.decode_ring(fitted(d), KEK),
    "history": lambda d: history_run.decode_run(fitted(d), WRITER_PUBLIC, secret_for),
    "shard": lambda d: index_run.decode_shard(fitted(d), WRITER_PUBLIC, secret_for),
    "manifest": lambda d: index_run.decode_manifest(fitted(d), WRITER_PUBLIC, secret_for),
    "envelope": lambda d: envelope.parse(d, Kind.SEGMENT),
    "frame-table": lambda d: frame.decode_table(d, 2),
    "page": checkpoint.decode_page,
    "chunk-list-page": chunklist.decode_page,
    "lz4": lambda d: codec.decompress(d, 1, 5000),
    "zstd": lambda d: codec.decompress(b"\x28\xb5\x2f\xfd" + d, 2, 5000),
    "values": _values,
    "names": _names,
    "config": lambda d: vault_config.decode_signed(d, ADMIN_PUBLIC, vault_config.VaultConfig),
    "certificate": lambda d: vault_config.decode_signed(d, ADMIN_PUBLIC, vault_config.Certificate),
    "host-key": lambda d: keys.decode_host_key(d, "x"),
    "slot": lambda d: read_slot(_tame(d)),
    "kit": read_kit,
}


def _tame(data: bytes) -> bytes:
    """Return a slot that asks for no work: stretching is bounded, and slow for a fuzzer."""
    return data.replace(b'"argon2id"', b'"argon2i"')


# -- the rescue script -----------------------------------------------------------------------------


def _rescue_segment(data: bytes) -> None:
    read = rescue.Segment(data, [WRITER_PUBLIC])
    with contextlib.suppress(rescue.Fault):
        read.records(secret_for)
    for role in (1, 2):
        with contextlib.suppress(rescue.Fault):
            _rescue_frames(rescue.frames_of(read, role, secret_for), data)


def _rescue_pack(data: bytes) -> None:
    parsed = rescue.Envelope(data, "P")
    _rescue_frames(rescue.frames_of(parsed, parsed.header["r"], secret_for), data)


def _rescue_frames(held: Any, data: bytes) -> None:
    for one in held[0][:20] if held else ():
        sealed = data[held[1] + one.at : held[1] + one.at + one.stored]
        with contextlib.suppress(rescue.Fault):
            rescue.open_frame(one, held[2][one.origin], sealed, IDENTITY, SECRET, secret_for)


RESCUE: dict[str, Target] = {
    "segment": lambda d: _rescue_segment(fitted(d)),
    "pack": lambda d: _rescue_pack(fitted(d)),
    "checkpoint": lambda d: rescue.read_checkpoint(fitted(d), [WRITER_PUBLIC], secret_for),
    "ring": lambda d: rescue.read_ring(fitted(d), VAULT, KEK),
    "page": lambda d: rescue.read_page(d, rescue.PAGE),
    "chunk-list-page": lambda d: rescue.read_page(d, rescue.LIST_PAGE),
    "values": rescue.read_version,
    "msgpack": lambda d: rescue.unpack(d, dict),
    "config": lambda d: rescue.read_config(d, ADMIN_PUBLIC),
    "certificate": lambda d: rescue.read_certificate(d, ADMIN_PUBLIC),
    "host-key": rescue.read_key_file,
    "slot": lambda d: rescue.read_slot(d, VAULT),
    "kit": rescue.read_kit,
    "names": lambda d: rescue.from_base32(d.decode("latin-1")),
}
TARGETS: list[tuple[str, Target, type[Exception]]] = [
    *((f"streamd {name}", target, StreamdError) for name, target in STREAMD.items()),
    *((f"rescue {name}", target, rescue.Fault) for name, target in RESCUE.items()),
]
READER_OF = {"condemn.bin": "condemn", "final.bin": "final", "history.bin": "history"}


def run_case(case: bytes) -> None:
    """Run one case: whatever the bytes are, the target returns or raises what it declares."""
    if not case:
        return
    _, target, declared = TARGETS[case[0] % len(TARGETS)]
    with contextlib.suppress(declared):
        target(case[1:])


def seeds() -> Iterator[bytes]:
    """Yield cases to start from: every specimen, for every target that it could be meant for."""
    for specimen in specimens().values():
        data = specimen.data
        if specimen.file.endswith(".bin") and specimen.reader not in {
            "checkpoint-page",
            "chunk-list-page",
        }:
            with contextlib.suppress(StreamdError):
                data = clear_of(data, _real_secret)
        for number, (name, _, _) in enumerate(TARGETS):
            if name.split()[1] in specimen.reader or specimen.reader in name:
                yield bytes((number,)) + data[:SEED_MAX]


def _real_secret(source: Any) -> bytes:
    return KEK if source.role == Role.RING else CHAIN.secret_for(source)
