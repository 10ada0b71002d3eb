"""What one daemon leaves for the next, so that a planned restart is neither a gap nor a scan.

It counts once: taking it removes it, in the same transaction, so a process that dies later leaves
nothing behind and the next one compares everything.
"""

import sqlite3
from typing import Final

import msgspec

from streamd.catalog.db import get_bytes

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Handover(msgspec.Struct, frozen=True, array_like=True):
    """How a source stood when its daemon stopped in good order, with everything noticed noted."""

    boot: bytes  # the kernel's: queues do not survive it
    trees: bytes  # what was watched where, see `sources.port.WatchBatch.trees`
    settings: bytes  # what decides which entries are protected, and how


def take(connection: sqlite3.Connection, name: str) -> Handover | None:
    """Return what was left for a source, and remove it; None: nothing that can be relied on."""
    data = get_bytes(connection, _key(name))
    connection.execute("DELETE FROM meta WHERE key = ?", (_key(name),))
    if not data:
        return None
    try:
        left = msgspec.msgpack.decode(data, type=Handover)
    except msgspec.MsgspecError:
        return None  # another version's
    return left if left.boot == boot_id() else None


def leave(connection: sqlite3.Connection, left: dict[str, Handover]) -> None:
    """Leave this for the next daemon."""
    connection.executemany(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)",
        [(_key(name), msgspec.msgpack.encode(handover)) for name, handover in left.items()],
    )


def boot_id() -> bytes:
    """Return the number of this boot; empty when the kernel does not say."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return file.read().strip()
    except OSError:
        return b""


def _key(name: str) -> str:
    return f"handover:{name}"
