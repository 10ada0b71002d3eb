"""The re-check before anything is deleted: did somebody refer to a condemned chunk after all?

A batch that looked into the chunk index before the condemned chunks were taken out of it may have
found one there, and have been committed since. Everything committed since the marking began is read
again; a chunk that it refers to, and that only a condemned object holds as far as the index knows,
saves that object.
"""

import asyncio
import sqlite3
from typing import Final

from streamd.catalog import objects
from streamd.format import segment
from streamd.format.envelope import Kind
from streamd.maintenance.live import LiveSet
from streamd.maintenance.site import Site
from streamd.storage.port import BlobName
from streamd.vault.chunk_reader import ChunkReader

_POLL_SECONDS: Final = 0.05
_LOOK_AT: Final = 5_000  # chunks looked up at a time


async def read_fresh_segments(site: Site, live: LiveSet, since: int) -> None:
    """Mark what segments newer than object `since`, and those not yet put, refer to."""
    keys = site.vault.keys
    verify_key = site.vault.verify_keys[keys.writer]
    for name, data in await site.catalog.read(_segments, since):
        # What is not put yet is in the catalog; it may have been put since we asked, though.
        found = data if data is not None else await site.vault.store.get(BlobName(name))
        decoded = segment.decode_segment(found, verify_key)
        await live.mark_records(decoded.records(keys.secret_for))


def _segments(connection: sqlite3.Connection, since: int) -> list[tuple[str, bytes | None]]:
    return connection.execute(
        "SELECT o.name, u.data FROM object o LEFT JOIN unput u ON u.object = o.number"
        " WHERE o.kind = ? AND (o.number > ? OR u.data IS NOT NULL) ORDER BY o.number",
        (str(Kind.SEGMENT), since),
    ).fetchall()


async def segments_are_put(site: Site) -> None:
    """Wait until what is committed now can be read from the vault."""
    newest = await site.catalog.read(_newest_unput)
    while newest and await site.catalog.read(_is_unput_up_to, newest):  # noqa: ASYNC110 - the commit does not tell
        await asyncio.sleep(_POLL_SECONDS)


def _newest_unput(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(object), 0) FROM unput").fetchone()
    return int(row[0])


def _is_unput_up_to(connection: sqlite3.Connection, number: int) -> bool:
    row = connection.execute("SELECT 1 FROM unput WHERE object <= ? LIMIT 1", (number,)).fetchone()
    return row is not None


async def find_cancelled(site: Site, live: LiveSet, since: int) -> set[str]:
    """Return the condemned objects that are needed by what was committed since."""
    fresh = LiveSet()
    try:
        await segments_are_put(site)
        await read_fresh_segments(site, fresh, since)
        await fresh.mark_lists(ChunkReader(site.vault))
        cancelled: set[str] = set()
        part: list[bytes] = []
        for chunk in fresh.all_ids():
            part.append(chunk)
            if len(part) == _LOOK_AT:
                cancelled |= await _cancel(site, live, part)
                part = []
        return cancelled | await _cancel(site, live, part)
    finally:
        fresh.close()


async def _cancel(site: Site, live: LiveSet, ids: list[bytes]) -> set[str]:
    doomed = live.doomed_among(ids)
    holders = await site.catalog.read(_holders, list(doomed))
    # A pack may have been put before the marking and its batch committed after the unlinking: then
    # the index names the very object that is condemned, and that is nobody else's promise.
    saved = {
        chunk: names for chunk, names in doomed.items() if holders.get(chunk, names[0]) in names
    }
    if saved:
        await site.catalog.write(_show_again, saved)
    return {name for names in saved.values() for name in names}


def _holders(connection: sqlite3.Connection, ids: list[bytes]) -> dict[bytes, str]:
    """Return the name of the object that the index has for each chunk it knows."""
    found = objects.find_chunks(connection, ids)
    names = {
        number: str(row[0])
        for number in set(found.values())
        if (
            row := connection.execute(
                "SELECT name FROM object WHERE number = ?", (number,)
            ).fetchone()
        )
    }
    return {chunk: names[number] for chunk, number in found.items() if number in names}


def _show_again(connection: sqlite3.Connection, saved: dict[bytes, list[str]]) -> None:
    """The index says again where these chunks are."""
    for chunk, names in saved.items():
        row = connection.execute("SELECT number FROM object WHERE name = ?", names[:1]).fetchone()
        if row is not None:
            objects.add_chunks(connection, row[0], [chunk])
