"""Read history runs: many segments' records of one source, sorted by key.

A run is an accelerator. One that cannot be read is passed over, and the segments that it covers are
read in its place.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from streamd.errors import VaultDamaged
from streamd.format import envelope, layout
from streamd.format.envelope import HEADER_AT, Envelope, Kind
from streamd.format.history_run import (
    HEAD_GUESS,
    HistoryRoot,
    HistoryRow,
    decode_page,
    decode_root,
    decode_run,
    pages_with,
)
from streamd.format.layout import HistorySpan
from streamd.model.ids import SourceId, WriterId
from streamd.storage.port import BlobName
from streamd.vault.parallel import in_thread
from streamd.vault.vault import Vault


class ListedRun(NamedTuple):
    """A run as the listing has it."""

    span: HistorySpan
    name: BlobName
    size_bytes: int


class OpenRun(msgspec.Struct, frozen=True):
    """A run whose root was read. Its pages are fetched when they are asked for."""

    name: BlobName
    size_bytes: int
    root: HistoryRoot
    beginning: Envelope


class HistoryReader:
    """Reads the runs of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def listed(self, source: SourceId | None = None) -> list[ListedRun]:
        """Return the runs of a source, or of all, in order of time."""
        prefix = layout.history_prefix(self._vault.keys.domain, source)
        found = []
        async for info in self._vault.store.scan(prefix):
            span = layout.parse_history_name(info.name)
            if span is not None:
                found.append(ListedRun(span, info.name, info.size_bytes))
        return sorted(found, key=lambda run: (run.span.start_us, run.span.end_us, run.name))

    async def names(self) -> list[BlobName]:
        """Return the names of all runs."""
        return [run.name for run in await self.listed()]

    async def read_whole(self, name: BlobName) -> tuple[HistoryRoot, list[HistoryRow]]:
        """Return a run with all its rows, authenticated. Raises VaultDamaged, KeyRejected."""
        data = await self._vault.store.get(name)
        header = envelope.parse(data, Kind.HISTORY).header
        keys = self._vault.keys
        verify_key = self._vault.verify_keys.get(WriterId(header.w))
        if verify_key is None or (header.v, header.d) != (keys.vault, keys.domain):
            raise VaultDamaged("a history run is not of a writer of this domain")
        root, rows = await in_thread(partial(decode_run, data, verify_key, keys.secret_for))
        self._check_name(name, root)
        return root, rows

    async def open(self, run: ListedRun) -> OpenRun:
        """Read the root of a run. Raises VaultDamaged, BlobNotFound, KeyRejected."""
        data = await self._range(run, HEAD_GUESS)
        if (end := envelope.header_end(data)) > len(data):
            data = await self._range(run, end)
        parsed = envelope.parse(data, Kind.HISTORY)
        section = parsed.section("h")
        if section is not None and (end := section.offset + section.size) > len(data):
            parsed = envelope.parse(await self._range(run, end), Kind.HISTORY)
        root = decode_root(parsed, self._vault.keys.secret_for)
        self._check_name(run.name, root)
        return OpenRun(run.name, run.size_bytes, root, parsed)

    async def rows(self, run: OpenRun, prefixes: Sequence[bytes] | None) -> list[HistoryRow]:
        """Return notes, and rows whose key begins with one of `prefixes` (None: all), by number.

        Raises VaultDamaged, BlobNotFound.
        """
        root, secret_for = run.root, self._vault.keys.secret_for
        wanted = range(len(root.pages)) if prefixes is None else pages_with(root, prefixes)
        parsed = run.beginning
        if wanted:
            last = parsed.section(str(max(wanted)))
            if last is None:
                raise VaultDamaged("a history run has other pages than it says")
            if last.offset + last.size > len(parsed.data):
                # One read for all of them: they are few megabytes, and requests cost more.
                listed = ListedRun(_NO_SPAN, run.name, run.size_bytes)
                data = await self._range(listed, last.offset + last.size)
                parsed = envelope.parse(data, Kind.HISTORY)
        rows: list[HistoryRow] = []
        for number in wanted:
            page = await in_thread(partial(decode_page, parsed, root, number, secret_for))
            rows += [
                row
                for row in page
                if prefixes is None or not row.key or row.key.startswith(tuple(prefixes))
            ]
        rows.sort(key=lambda row: row.number)
        return rows

    async def _range(self, run: ListedRun, size: int) -> bytes:
        size = min(size, run.size_bytes)
        if size < HEADER_AT:
            raise VaultDamaged("the object is cut off")
        return await self._vault.store.get(run.name, offset=0, size=size)

    def _check_name(self, name: BlobName, root: HistoryRoot) -> None:
        span = layout.parse_history_name(name)
        says = root.source, root.level, root.start_us // 1000, root.end_us // 1000
        if span is None or says != (
            span.source,
            span.level,
            span.start_us // 1000,
            span.end_us // 1000,
        ):
            raise VaultDamaged("a history run stands under another's name")


_NO_SPAN = HistorySpan(SourceId(b""), 0, 0, 0)
