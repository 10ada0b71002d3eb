"""Which chunks are still needed, and by which object each of them is held.

Needed is whatever a checkpoint that stays, a segment that stays, or the catalog's present state
refers to. The set is in memory while it is small (`maintenance.claims`), else on disk.
Anything unreadable on the way ends the marking: then nothing may be deleted.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from streamd.errors import VaultDamaged
from streamd.format import checkpoint, chunklist, wire
from streamd.format.checkpoint import CheckpointRoot, Row
from streamd.format.crypto import Buffer
from streamd.format.keys import Role
from streamd.maintenance.claims import Claims
from streamd.model.entry import FileVersion
from streamd.model.ids import SourceId
from streamd.model.record import Op, Record, StateSum, is_version_key, version_values
from streamd.vault.chunk_reader import ChunkReader
from streamd.vault.parallel import in_thread

_SELECT_MAX: Final = 500
_BATCH: Final = 5_000
_PAGES_AT_ONCE: Final = 512
_VERSION: Final = msgspec.msgpack.Decoder(FileVersion)
_SET: Final = int(Op.SET)
_ID_SIZE: Final = 32


class LiveSet:
    """The chunks needed, and who holds them. Blocking, but for the `mark_…` coroutines."""

    def __init__(self) -> None:
        self._claims = Claims()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE doomed (id BLOB, name TEXT, PRIMARY KEY (id, name))")
        self._seen_pages: set[bytes] = set()
        self._lists: dict[int, set[bytes]] = {}  # chunk-list pages to be read, by level

    def close(self) -> None:
        """Give everything back."""
        self._claims.close()
        self._db.close()

    # -- marking ---------------------------------------------------------------------------------

    def add(self, ids: Iterable[bytes]) -> None:
        """These chunks are needed."""
        self._claims.add(ids)

    def add_versions(self, values: Iterable[bytes]) -> None:
        """What these encoded file versions refer to is needed."""
        ids: list[bytes] = []
        decode = _VERSION.decode
        try:
            for value in values:
                version = decode(value)
                content = version.content
                if len(content) == 1 and not version.levels and (only := content[0].id) is not None:
                    ids.append(only)  # as nearly all are
                    continue
                direct = [run.id for run in content if run.id is not None]
                ids.extend(direct)
                if direct and version.levels:
                    self._defer(version.levels, direct)
        except wire.MALFORMED as error:
            raise VaultDamaged(f"a file version does not parse: {error}") from error
        self.add(ids)

    def _defer(self, level: int, ids: Iterable[bytes]) -> None:
        if not 0 < level <= chunklist.LEVELS_MAX:
            raise VaultDamaged("a chunk list has an impossible depth")
        fresh = set(ids) - self._seen_pages
        self._seen_pages |= fresh
        self._lists.setdefault(level, set()).update(fresh)

    def _add_list_page(self, level: int, body: Buffer) -> None:
        ids = [run.id for run in chunklist.decode_page(body) if run.id is not None]
        self.add(ids)
        if level > 1:
            self._defer(level - 1, ids)

    async def mark_lists(
        self, chunks: ChunkReader, on_damage: Callable[[VaultDamaged], None] | None = None
    ) -> None:
        """Follow the chunk lists that were met so far.

        With `on_damage` it goes on without the pages that cannot be read, else VaultDamaged is
        raised.
        """
        for level in range(chunklist.LEVELS_MAX, 0, -1):
            wanted = self._lists.pop(level, set())
            try:
                async for pages in chunks.read_chunks(wanted, Role.META):
                    for body in pages.values():
                        await in_thread(partial(self._add_list_page, level, body))
            except VaultDamaged as damage:
                if on_damage is None:
                    raise
                on_damage(damage)

    async def mark_records(self, records: Sequence[Record]) -> None:
        """What these journal records refer to is needed."""
        values = [record.value for record in records if _is_version(record)]
        if values:
            await in_thread(partial(self.add_versions, values))

    async def mark_checkpoint(self, root: CheckpointRoot, chunks: ChunkReader) -> None:
        """A checkpoint's pages, and what its rows refer to, are needed."""
        fresh = [page.id for page in root.pages if page.id not in self._seen_pages]
        self._seen_pages.update(fresh)
        self.add(fresh)
        for start in range(0, len(fresh), _PAGES_AT_ONCE):
            part = fresh[start : start + _PAGES_AT_ONCE]
            async for pages in chunks.read_chunks(part, Role.META):
                await in_thread(partial(self._add_pages, list(pages.values())))

    def has_marked(self, root: CheckpointRoot) -> None:
        """All rows of this checkpoint were added already: its pages are needed, too."""
        pages = [page.id for page in root.pages]
        self._seen_pages.update(pages)
        self.add(pages)

    def _add_pages(self, bodies: Iterable[Buffer]) -> None:
        for body in bodies:
            self.add_rows(checkpoint.decode_page(body))

    def add_rows(self, rows: Iterable[Row]) -> None:
        """What these rows of a state refer to is needed."""
        self.add_versions(version_values(rows))

    async def mark_catalog(
        self, connection: sqlite3.Connection, marked: Mapping[SourceId, StateSum]
    ) -> None:
        """What the present state refers to is needed.

        It is `marked` already for sources whose rows were read and have this sum.
        """
        connection.execute("BEGIN")
        sources = connection.execute("SELECT number, id, total, key_count FROM source")
        known = [
            number
            for number, source, total, count in sources.fetchall()
            if marked.get(source) == StateSum(total, count)
        ]
        marks = ",".join("?" * len(known))
        found = connection.execute(
            f"SELECT version FROM node WHERE source NOT IN ({marks})",  # noqa: S608 - question marks only
            known,
        )
        values = (row[0] for row in found)
        while part := await in_thread(lambda: list(islice(values, _BATCH))):
            await in_thread(partial(self.add_versions, part))

    # -- who holds what --------------------------------------------------------------------------

    def claim(self, ids: bytes, number: int) -> set[bytes]:
        """Say that object `number` holds these chunks (side by side).

        Returns those that are needed and that nobody held so far.
        """
        wanted = [ids[at : at + _ID_SIZE] for at in range(0, len(ids), _ID_SIZE)]
        return self._claims.claim(wanted, number)

    def move(self, ids: Iterable[bytes], number: int) -> None:
        """Object `number` holds these chunks from now on."""
        self._claims.move(ids, number)

    def holders_of(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the holders of those among `ids` that are needed and held."""
        return self._claims.holders_of(ids)

    def count_unheld(self) -> int:
        """Return how many needed chunks no readable object holds."""
        return self._claims.count_unheld()

    def doom(self, ids: Iterable[bytes], name: str) -> None:
        """These chunks go with the object `name`, and no other is known to hold them."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO doomed VALUES (?, ?)", [(chunk, name) for chunk in ids]
        )
        self._db.execute("COMMIT")

    def doomed_among(self, ids: Sequence[bytes]) -> dict[bytes, list[str]]:
        """Return the objects that those of `ids` would go with that were doomed."""
        found: dict[bytes, list[str]] = {}
        for start in range(0, len(ids), _SELECT_MAX):
            part = ids[start : start + _SELECT_MAX]
            marks = ",".join("?" * len(part))
            for chunk, name in self._db.execute(
                f"SELECT id, name FROM doomed WHERE id IN ({marks})",  # noqa: S608 - question marks only
                part,
            ):
                found.setdefault(chunk, []).append(name)
        return found

    def all_ids(self) -> Iterator[bytes]:
        """Return every chunk that is needed."""
        return self._claims.ids()


def _is_version(record: Record) -> bool:
    return record.op == _SET and is_version_key(record.key)
