"""The state of one source at one instant: its directory tree, as rows by key.

Small states never leave memory, large ones go to a temporary database (`vault.rows`). Keys and
values are those of the journal, so that any state can be compared with another, or become a
checkpoint, byte by byte.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from streamd.errors import FormatUnsupported, VaultDamaged
from streamd.format import batch, state_sum, wire
from streamd.format.checkpoint import JournalMark, Row
from streamd.model.entry import Dirent, EntryType, FileVersion, SourceInfo
from streamd.model.ids import ROOT_FID, Fid, SourceId
from streamd.model.record import (
    SOURCE_KEY,
    Op,
    Record,
    StateSum,
    dirent_key,
    dirent_prefix,
    version_key,
    version_keys,
)
from streamd.vault.journal_reader import Damage
from streamd.vault.rows import Rows

_SELECT_MAX: Final = 500
_BATCH: Final = 10_000
_FID_MAX: Final = 1 << 64
_DIRENT: Final = msgspec.msgpack.Decoder(Dirent)
_VERSION: Final = msgspec.msgpack.Decoder(FileVersion)
_INFO: Final = msgspec.msgpack.Decoder(SourceInfo)
_STATE: Final = msgspec.msgpack.Decoder(StateSum)
_SET: Final = int(Op.SET)
_DEL: Final = int(Op.DEL)
_STATE_OP: Final = int(Op.STATE)
_NO_CHANGE: Final = frozenset({Op.MARK, Op.GAP, Op.CKPT, Op.ACK, Op.STATE, Op.SEAL, Op.NOTE})
_RESET: Final = int(Op.RESET)
_SLASH: Final = b"/"


class TreeEntry(NamedTuple):
    """One entry of the tree under its path. `version` is None if the journal lacks it."""

    path: bytes
    dirent: Dirent
    version: FileVersion | None


VIRTUAL_ROOT: Final = TreeEntry(b"", Dirent(ROOT_FID, EntryType.DIRECTORY), None)


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of `name` in `parent`; below the virtual root a name is a whole path."""
    if not parent:
        return name
    return parent + name if parent.endswith(_SLASH) else parent + _SLASH + name


class TreeState:
    """The tree of `source`. Blocking; one thread at a time. Close it, or use it in a `with`."""

    def __init__(self, source: SourceId, *, asked_us: int = 0) -> None:
        self.source = source
        self.asked_us = asked_us
        self.at_us = 0  # the instant that this is the state of
        self.is_exact = True  # nothing is known to lie between `at_us` and `asked_us`
        self.note = ""  # why it is not, in words
        self.damage: list[Damage] = []  # met while reading
        self.marks: tuple[JournalMark, ...] = ()  # how far into each journal
        self.sums_checked = 0  # STATE records that agreed
        self._total = 0
        self._count = 0
        self._rows = Rows()

    def close(self) -> None:
        """Give the rows back."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- building --------------------------------------------------------------------------------

    @property
    def state(self) -> StateSum:
        """The sum over all live keys."""
        return StateSum(state_sum.to_bytes(self._total), self._count)

    def load(self, rows: Iterable[Row]) -> None:
        """Put rows, in key order, into an empty state. Raises VaultDamaged for a repeated key."""
        rest = iter(rows)
        while some := list(islice(rest, _BATCH)):
            if self._rows.change(fresh := dict(some)) or len(fresh) < len(some):
                raise VaultDamaged("a checkpoint has a key twice")
            self._total += batch.sum_rows(some)
            self._count += len(some)

    def apply(self, records: Iterable[Record], *, check: bool = True) -> None:
        """Replay records of this source. Raises VaultDamaged if a STATE record contradicts us, and
        FormatUnsupported for an operation that is unknown: it may change the state.

        Without `check`, STATE records are passed over.
        """
        pending: dict[bytes, bytes | None] = {}
        for record in records:
            if record.op == _SET:
                pending[record.key] = record.value
            elif record.op == _DEL:
                pending[record.key] = None
            elif record.op == _RESET:
                pending = {}
                self._empty()
            elif record.op == _STATE_OP and check:
                self._flush(pending)
                pending = {}
                self.expect(wire.decode(_STATE, record.value, "a state sum"))
            elif record.op not in _NO_CHANGE:
                raise FormatUnsupported(f"a record has the operation {record.op}, unknown here")
            if len(pending) >= _BATCH:
                self._flush(pending)
                pending = {}
        self._flush(pending)

    def expect(self, stated: StateSum) -> None:
        """Raise VaultDamaged unless this is the state that `stated` sums up."""
        if stated != self.state:
            raise VaultDamaged("the replayed state is not the one that was recorded")
        self.sums_checked += 1

    def _empty(self) -> None:
        self._rows.clear()
        self._total = self._count = 0

    def _flush(self, pending: dict[bytes, bytes | None]) -> None:
        if not pending:
            return
        before = self._rows.change(pending)
        fresh = [(key, value) for key, value in pending.items() if value is not None]
        self._total += batch.sum_rows(fresh) - batch.sum_rows(list(before.items()))
        self._count += len(fresh) - len(before)

    # -- reading ---------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Return all (key, value) in key order: what a checkpoint holds."""
        return self._rows.all()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key."""
        return self._rows.get(key)

    def info(self) -> SourceInfo:
        """Return the source's name and paths. Raises VaultDamaged if the journal lacks them."""
        value = self.get(SOURCE_KEY)
        if value is None:
            raise VaultDamaged("a source has no name")
        return wire.decode(_INFO, value, "a source's name")

    def children(self, fid: int) -> list[tuple[bytes, Dirent]]:
        """Return the entries of a directory, sorted by name. Raises VaultDamaged."""
        low = dirent_prefix(_checked(fid))
        high = (
            low[:1] + (fid + 1).to_bytes(8, "big")
            if fid + 1 < _FID_MAX
            else low[:1] + b"\xff" * 264
        )
        at, decode = len(low), _DIRENT.decode  # behind the prefix stands the name
        try:
            return [(key[at:], decode(value)) for key, value in self._rows.between(low, high)]
        except wire.MALFORMED as error:
            raise VaultDamaged(f"a directory entry does not parse: {error}") from error

    def entry(self, parent: int, name: bytes) -> Dirent | None:
        """Return one entry of a directory. Raises VaultDamaged."""
        value = self.get(dirent_key(_checked(parent), name)) if name else None
        return None if value is None else wire.decode(_DIRENT, value, "a directory entry")

    def version(self, fid: int) -> FileVersion | None:
        """Return a file's version. Raises VaultDamaged."""
        value = self.get(version_key(_checked(fid)))
        return None if value is None else wire.decode(_VERSION, value, "a file version")

    def versions(self, fids: Iterable[int]) -> dict[int, FileVersion]:
        """Return the versions of many files at once. Raises VaultDamaged."""
        decode, wanted = _VERSION.decode, list(fids)
        try:
            keys = dict(zip(version_keys(wanted), wanted, strict=True))
            return {
                keys[key]: decode(value) for key, value in self._rows.values(list(keys)).items()
            }
        except OverflowError as error:
            raise VaultDamaged("a file has an impossible number") from error
        except wire.MALFORMED as error:
            raise VaultDamaged(f"a file version does not parse: {error}") from error

    def resolve(self, path: bytes) -> TreeEntry | None:
        """Return what an absolute host path names; the empty path is the virtual root."""
        if not path:
            return VIRTUAL_ROOT
        path = path.rstrip(_SLASH) or _SLASH
        roots = [
            (name, dirent)
            for name, dirent in self.children(ROOT_FID)
            if path == name or path.startswith(name.rstrip(_SLASH) + _SLASH)
        ]
        for name, dirent in sorted(roots, key=lambda root: -len(root[0])):
            found = self._descend(name, dirent, path[len(name) :])
            if found is not None:
                return TreeEntry(path, found, self.version(found.fid))
        return None

    def _descend(self, root: bytes, dirent: Dirent, below: bytes) -> Dirent | None:
        del root
        at: Dirent | None = dirent
        for name in below.split(_SLASH):
            if at is None:
                return None
            if name:
                at = self.entry(at.fid, name) if at.type == EntryType.DIRECTORY else None
        return at

    def walk(self, start: TreeEntry | bytes = b"") -> Iterator[TreeEntry]:
        """Yield `start` and everything below it: a directory before what it holds.

        A directory that is met twice is not entered again: a hostile journal may contain cycles.
        """
        top = self.resolve(start) if isinstance(start, bytes) else start
        if top is None:
            return
        yield top
        stack, entered = [top], set[int]()
        while stack:
            parent = stack.pop()
            if parent.dirent.type != EntryType.DIRECTORY or parent.dirent.fid in entered:
                continue
            entered.add(parent.dirent.fid)
            below: list[TreeEntry] = []
            children = self.children(parent.dirent.fid)
            for begin in range(0, len(children), _SELECT_MAX):
                some = children[begin : begin + _SELECT_MAX]
                versions = self.versions(dirent.fid for _, dirent in some)
                for name, dirent in some:
                    entry = TreeEntry(join(parent.path, name), dirent, versions.get(dirent.fid))
                    if dirent.type == EntryType.DIRECTORY:
                        below.append(entry)
                    yield entry
            stack.extend(reversed(below))


def decode_version(value: bytes) -> FileVersion:
    """Parse a stored version. Raises VaultDamaged."""
    return wire.decode(_VERSION, value, "a file version")


def _checked(fid: int) -> Fid:
    if not 0 <= fid < _FID_MAX:
        raise VaultDamaged("a file has an impossible number")
    return Fid(fid)
