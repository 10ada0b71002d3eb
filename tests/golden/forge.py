"""A writer without manners: objects with any header and any sections, sealed with the real keys.

What it builds authenticates, and still need not be what the format allows.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from golden.materials import DOMAIN, SIGNER, VAULT, WRITER

from streamd.format import crypto
from streamd.format.envelope import MAGIC, UNSEALED, KeySigner
from streamd.format.keys import index_source

SALT = bytes(range(16))


class Forged(NamedTuple):
    """A section: `body` is what stands inside the encryption (already compressed)."""

    tag: str
    body: bytes
    secret: bytes | None
    row: int = 0
    codec: int = 0
    plain_size: int | None = None  # None: the truth


def prefixed(
    body: bytes, *, kind: bytes, major: int = 1, flags: int = 3, magic: bytes = MAGIC
) -> bytes:
    """Return the fixed part and a header, whatever that is."""
    return (
        magic
        + kind
        + bytes((major,))
        + flags.to_bytes(2, "little")
        + len(body).to_bytes(4, "little")
        + zlib.crc32(body).to_bytes(4, "little")
        + body
    )


def header_fields(**more: Any) -> dict[str, Any]:
    """Return the fields every header has, and more."""
    return {"v": VAULT, "d": DOMAIN, "w": WRITER, "t": 1, "ks": [index_source(DOMAIN)]} | more


def sign(data: bytes, signer: KeySigner = SIGNER) -> bytes:
    """Return `data` with a trailer."""
    hashed = crypto.digest(data)
    return data + hashed + signer.sign(b"streamd/v1/object|" + hashed) + b"DMRT"


def forge(
    kind: bytes,
    fields: dict[str, Any],
    sections: Sequence[Forged],
    *,
    signer: KeySigner | None = SIGNER,
    **prefix: Any,
) -> bytes:
    """Return an object; `fields` may overrule even `sec`."""
    start = 0
    while True:
        rows, at = [], start
        for each in sections:
            size = len(each.body) + (16 if each.secret is not None else 0)
            plain_size = len(each.body) if each.plain_size is None else each.plain_size
            row = UNSEALED if each.secret is None else each.row
            rows.append([each.tag, at, size, row, each.codec, plain_size])
            at += size
        body = msgspec.msgpack.encode({"sa": SALT, "sec": rows} | fields)
        head = prefixed(body, kind=kind, **prefix)
        if len(head) == start:
            break
        start = len(head)
    out = head
    for each in sections:
        if each.secret is None:
            out += each.body
        else:
            info = b"streamd/v1/section/" + each.tag.encode()
            cipher = crypto.cipher_for(crypto.derive(each.secret, salt=SALT, info=info))
            out += crypto.encrypt(cipher, 0, each.body, head)
    return out if signer is None else sign(out, signer)
