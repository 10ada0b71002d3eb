"""The head of this writer's journal, as the catalog knows it.

The catalog is never behind the journal: a segment is remembered here, bytes and all, before it is
put.
"""

import sqlite3
from itertools import chain
from typing import Final

import msgspec

from streamd.catalog.db import get_int, put_value
from streamd.catalog.rows import places
from streamd.format.layout import JournalPosition
from streamd.format.segment import FIRST_PREVIOUS
from streamd.model.ids import FID_EPOCH_SHIFT

_HEAD: Final = ("epoch", "next_seq", "head_hash", "last_us", "sealed")  # keys in table meta
_ONE: Final = "(SELECT value FROM meta WHERE key = ?)"
_LOAD: Final = f"SELECT {','.join([_ONE] * len(_HEAD))}"  # one row, one step
_STORE: Final = f"INSERT OR REPLACE INTO meta VALUES {places(len(_HEAD), 2)}"


class JournalHead(msgspec.Struct, frozen=True):
    """Where the next segment goes. Epoch 0: nothing was ever written."""

    epoch: int
    next_seq: int
    hash: bytes  # of the last segment
    last_us: int  # time of the last record
    is_sealed: bool  # the epoch has ended

    @property
    def next_position(self) -> JournalPosition:
        """The position of the next segment."""
        return JournalPosition(self.epoch, self.next_seq)


def load_head(connection: sqlite3.Connection) -> JournalHead:
    """Return the head."""
    epoch, next_seq, last, last_us, is_sealed = connection.execute(_LOAD, _HEAD).fetchone()
    return JournalHead(
        epoch=epoch or 0,
        next_seq=next_seq or 0,
        hash=last or FIRST_PREVIOUS,
        last_us=last_us or 0,
        is_sealed=bool(is_sealed),
    )


def store_head(connection: sqlite3.Connection, head: JournalHead) -> None:
    """Remember the head."""
    values = (head.epoch, head.next_seq, head.hash, head.last_us, int(head.is_sealed))
    connection.execute(_STORE, list(chain.from_iterable(zip(_HEAD, values, strict=True))))


BLIND_KEY: Final = "blind_since_us"  # the tree was lost, and this host may not read it


def begin_blind(connection: sqlite3.Connection, since_us: int) -> None:
    """Note that the journal says more than this catalog knows, up to `since_us`."""
    put_value(connection, BLIND_KEY, max(since_us, 1))


def blind_since(connection: sqlite3.Connection, info: bytes) -> int:
    """Return since when a source, whose description is `info`, is not known; 0: it is.

    Once it was described again, the journal was told to begin it anew.
    """
    return 0 if info else get_int(connection, BLIND_KEY)


def inherit_coverage(connection: sqlite3.Connection, name: str, info: bytes) -> None:
    """A source of which nothing is known any more was covered until the catalog was lost."""
    since_us = blind_since(connection, info)
    if since_us and not get_int(connection, f"covered:{name}"):
        put_value(connection, f"covered:{name}", since_us)


def next_fid_floor(connection: sqlite3.Connection) -> int:
    """Begin a new range of fids: no fid at or above the result was ever given out."""
    generation = get_int(connection, "fid_generation") + 1
    put_value(connection, "fid_generation", generation)
    return generation << FID_EPOCH_SHIFT
