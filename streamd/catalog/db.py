"""The catalog's database: one writer thread, any number of readers.

Every change goes through `Catalog.write`, which runs a function in the writer thread inside one
transaction; it commits when the function returns and rolls back when it raises. A commit is durable
(WAL, synchronous FULL): the write side of the vault relies on the catalog never being behind the
journal. Readers have connections of their own and see the last commit.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Concatenate, Final, ParamSpec, TypeVar

from streamd.errors import DiskFull, StreamdError
from streamd.observe.logging import get_logger

SCHEMA: Final = 5
# From which schema, and how. What is new is filled in when an entry is captured the next time.
_CUTS: Final = (
    "CREATE TABLE cuts (number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE,"
    " known BLOB NOT NULL)"
)
_UPGRADES: Final = {
    3: f"ALTER TABLE node ADD COLUMN generation INTEGER NOT NULL DEFAULT 0; {_CUTS}",
    4: _CUTS,
}
FILE_NAME: Final = "catalog.sqlite"
_CACHE_KIB: Final = 32 * 1024
_READER_CACHE_KIB: Final = 8 * 1024
# To look chunks up by their hash: no two are near each other, so only the upper levels are worth
# keeping. There is such a reader for each sealing thread.
INDEX_CACHE_KIB: Final = 2 * 1024
_BUSY_MS: Final = 30_000
_SCRUBBED: Final = "scrubbed"  # in table meta: freed pages hold nothing any more
_FULL_RETRY_SECONDS: Final = 5.0
_LOG: Final = get_logger("catalog")

P = ParamSpec("P")
T = TypeVar("T")


class CatalogDamaged(Exception):
    """The catalog cannot be used; it is set aside and rebuilt. Never leaves the daemon."""


class Catalog:
    """Owns the writer's connection and thread."""

    def __init__(self, directory: str) -> None:
        """Open or create the catalog in `directory`. Raises CatalogDamaged, DiskFull."""
        self.path = os.path.join(directory, FILE_NAME)
        self.on_write: Callable[[], None] = lambda: None  # called on the loop, after each `write`
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        try:
            self._connection = _connect(self.path, _CACHE_KIB)
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._thread.shutdown()
            raise _translated(error, self.path) from error

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            from importlib import resources  # for a new catalog only: it loads a lot

            schema = resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
            connection.executescript(f"BEGIN; {schema} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif version in _UPGRADES:
            connection.executescript(
                f"BEGIN; {_UPGRADES[version]}; PRAGMA user_version = {SCHEMA}; COMMIT;"
            )
        elif version != SCHEMA:
            raise CatalogDamaged(f"the catalog has schema {version}, this streamd {SCHEMA}")

    async def write(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work(connection, …)` in one durable transaction in the writer thread.

        While the disk is full it waits and tries again, so `work` must not remember anything of
        an attempt that was rolled back.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = await loop.run_in_executor(
                    self._thread, lambda: self.write_now(work, *args, **kwargs)
                )
            except DiskFull as error:
                _LOG.warning("disk-full", what=str(error), remedy=error.advice())
                await asyncio.sleep(_FULL_RETRY_SECONDS)
            else:
                self.on_write()
                return result

    def write_now(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work` in one transaction here and now: for start-up, before the loop runs."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection, *args, **kwargs)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            raise _translated(error, self.path) from error
        return result

    async def read(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work(connection, …)`, which only reads, in the writer thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: work(self._connection, *args, **kwargs)
        )

    async def let_go(self) -> None:
        """Give back the memory of pages that are kept; the kernel has them nevertheless."""
        await self.read(lambda connection: connection.execute("PRAGMA shrink_memory"))

    async def mind_role(self, *, may_read: bool) -> None:
        """On a host that may not read the vault, leave no trace of what was deleted.

        Then the file is compacted once, which takes as long as copying it; if there is no space
        for that, it is said in the log and tried again at the next start.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, lambda: self._mind_role(may_read=may_read))

    def _mind_role(self, *, may_read: bool) -> None:
        connection = self._connection
        is_scrubbed = bool(get_int(connection, _SCRUBBED))
        connection.execute(f"PRAGMA secure_delete = {'OFF' if may_read else 'ON'}")
        if may_read == (not is_scrubbed):
            return
        if may_read:
            put_value(connection, _SCRUBBED, 0)
            return
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            _LOG.warning("catalog-not-compacted", what=str(error))
            return
        put_value(connection, _SCRUBBED, 1)

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a read-only connection to one thread at a time."""
        connection = self.open_reader()
        try:
            yield connection
        finally:
            connection.close()

    def open_reader(self, *, cache_kib: int = _READER_CACHE_KIB) -> sqlite3.Connection:
        """Return a read-only connection that keeps so many pages; the caller closes it."""
        connection = _connect(self.path, cache_kib)
        connection.execute("PRAGMA query_only = 1")
        return connection

    async def aclose(self) -> None:
        """Finish what is queued and close."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=False)

    def close(self) -> None:
        """Close without a loop."""
        self._connection.close()
        self._thread.shutdown(wait=False)


def _connect(path: str, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _translated(error: sqlite3.DatabaseError, path: str) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"the catalog cannot grow: {error}", path=os.path.dirname(path))
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR}:
        return CatalogDamaged(f"{path}: {error}")
    return StreamdError(f"catalog: {error}")


def check_pages(connection: sqlite3.Connection, *, unless: str, above_bytes: int) -> None:
    """Look at every page of the catalog. Raises CatalogDamaged.

    One that is larger than `above_bytes` is spared if the value `unless` is set.
    """
    try:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if pages * size > above_bytes and get_int(connection, unless):
            return
        row = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise CatalogDamaged(str(error)) from error
    if row is None or row[0] != "ok":
        raise CatalogDamaged(f"a page is damaged: {row and row[0]}")


# -- single values ---------------------------------------------------------------------------------


def get_int(connection: sqlite3.Connection, key: str, default: int = 0) -> int:
    """Return a number of table meta."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else int(row[0])


def get_bytes(connection: sqlite3.Connection, key: str, default: bytes = b"") -> bytes:
    """Return bytes of table meta."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else bytes(row[0])


def put_value(connection: sqlite3.Connection, key: str, value: int | bytes) -> None:
    """Set a value of table meta."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


# -- from outside ----------------------------------------------------------------------------------


def read_foreign(directory: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what `work` reads from the catalog of a process that may be running.

    None if there is no catalog, or none that can be read: for those who can do without.
    """
    path = os.path.join(directory, FILE_NAME)
    if not os.access(path, os.R_OK):
        return None
    try:
        connection = _connect(path, _READER_CACHE_KIB)
        try:
            connection.execute("PRAGMA query_only = 1")
            return work(connection)
        finally:
            connection.close()
    except sqlite3.Error:
        return None
