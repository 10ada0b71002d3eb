"""Follow one path through a source's history.

The source's state is replayed from the beginning of what is kept. After each commit that touches
an entry on the way to the path, what stands there now is compared with what stood there before.
"""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import msgspec

from streamd.cli.entries import differences
from streamd.cli.replay import Commit, Kept, steps
from streamd.cli.selection import Selection
from streamd.format import wire
from streamd.model.entry import Dirent, EntryType, FileVersion
from streamd.model.ids import ROOT_FID, Fid
from streamd.model.record import Gap, Op, Record, dirent_key, parse_dirent_key, version_key
from streamd.vault.state_reader import StateReader
from streamd.vault.tree_state import TreeState, join

_DIRENT: Final = msgspec.msgpack.Decoder(Dirent)
_GAP: Final = msgspec.msgpack.Decoder(Gap)
_NS_PER_US: Final = 1_000
_MICROSECONDS: Final = 1_000_000
_PENDING_MAX: Final = 10_000
_DEPTH_MAX: Final = 4096  # a hostile journal may contain cycles
_SLASH: Final = b"/"


class Happening(NamedTuple):
    """One thing that happened to the path; events as in `cli.history.HistoryLine`."""

    at_us: int
    event: str
    what: tuple[str, ...] = ()
    version: FileVersion | None = None
    is_captured: bool = False  # the version was recorded at that instant
    other: bytes = b""
    until_us: int = 0

    @property
    def delay_seconds(self) -> float | None:
        """Return the time from the change to its capture, if this is a capture."""
        if self.version is None or not self.is_captured or not self.version.ctime_ns:
            return None
        return (self.at_us - self.version.ctime_ns // _NS_PER_US) / _MICROSECONDS


async def follow(
    reader: StateReader, chosen: Selection, damage: list[str]
) -> AsyncIterator[Happening]:
    """Yield what happened to the selected path, oldest first."""
    state = TreeState(chosen.source.id)
    follower = _Follower(chosen.path, state)
    try:
        async for step in steps(reader, chosen.name, damage=damage):
            if isinstance(step, Kept):
                state.close()
                state = await reader.load_checkpoint(step.root)
                happenings = follower.kept(step.at_us, state)
            else:
                happenings = follower.commit(step)
            for happening in happenings:
                yield happening
    finally:
        state.close()


class _Stop(NamedTuple):
    """An entry on the way to the path."""

    fid: int
    path: bytes
    key: bytes


class _Sight(NamedTuple):
    """What stands at the path."""

    keys: frozenset[bytes] = frozenset()  # a change of one of these may change the rest
    way: tuple["_Stop", ...] = ()  # from the configured path downwards
    version: FileVersion | None = None
    fid: int = 0  # 0: nothing


class _Follower:
    """Replays commits into a state and watches one path in it."""

    def __init__(self, path: bytes, state: TreeState) -> None:
        self._path = path
        self._state = state
        self._pending: list[Record] = []
        self._sight = self._look()
        self._elsewhere: dict[int, bytes] = {}  # other names that files on the way were given

    def kept(self, at_us: int, state: TreeState) -> list[Happening]:
        """Go on from a state that was kept whole."""
        self._pending.clear()
        self._elsewhere.clear()
        self._state = state
        before, self._sight = self._sight, self._look()
        now = self._sight
        if now.version is None:
            return [Happening(at_us, "absent")] if before.version is not None else []
        what = () if before.version is None else differences(before.version, now.version)
        if before.version is not None and not what:
            return []
        return [Happening(at_us, "kept", what, now.version)]

    def commit(self, step: Commit) -> list[Happening]:
        """Apply a commit, and return what it did to the path."""
        gaps = [self._gap(record) for record in step.records if record.op == Op.GAP]
        found = [gap for gap in gaps if gap is not None]
        changes = [record for record in step.records if record.op in (Op.SET, Op.DEL, Op.RESET)]
        if any(record.op == Op.RESET for record in changes):
            return found + self._begun_anew(step.at_us, changes)
        self._remember_names(changes)
        if all(record.key not in self._sight.keys for record in changes):
            self._pending.extend(changes)
            if len(self._pending) >= _PENDING_MAX:
                self._flush()
            return found
        self._flush()
        touched = {record.key for record in changes}
        stood = {key: self._dirent(key) for key in touched if parse_dirent_key(key)}
        is_known = {
            dirent.fid
            for record in changes
            if record.op == Op.SET
            and (dirent := _dirent_of(record)) is not None
            and self._state.get(version_key(Fid(dirent.fid))) is not None
        }
        self._pending = changes
        self._flush()
        before, self._sight = self._sight, self._look()
        return found + self._compared(step.at_us, before, touched, stood, is_known)

    def _begun_anew(self, at_us: int, changes: list[Record]) -> list[Happening]:
        """Forget everything and go on: what is still there appears again as it is captured."""
        self._pending = changes
        self._flush()
        self._elsewhere.clear()
        before, self._sight = self._sight, self._look()
        if before.version is None and self._sight.version is None:
            return []
        if self._sight.version is None:
            return [Happening(at_us, "absent")]
        return [Happening(at_us, "appeared", (), self._sight.version, True)]

    def _flush(self) -> None:
        self._state.apply(self._pending, check=False)
        self._pending = []

    # -- what is there ---------------------------------------------------------------------------

    def _look(self) -> _Sight:
        roots = [
            self._path[:end] or _SLASH
            for end in range(len(self._path) + 1)
            if end == len(self._path) or self._path[end : end + 1] == _SLASH
        ]
        keys = {dirent_key(ROOT_FID, root) for root in roots}
        sight = _Sight(frozenset(keys))
        for root in reversed(roots):
            dirent = self._dirent(dirent_key(ROOT_FID, root))
            if dirent is not None:
                sight = self._descend(root, dirent, keys)
                if sight.fid:
                    return sight
        return sight

    def _descend(self, root: bytes, dirent: Dirent, keys: set[bytes]) -> _Sight:
        """Go down from a configured path as far as the path exists, and note the keys met."""
        way = [_Stop(dirent.fid, root, dirent_key(ROOT_FID, root))]
        names = [name for name in self._path[len(root) :].split(_SLASH) if name]
        for name in names:
            if dirent.type != EntryType.DIRECTORY:
                return _Sight(frozenset(keys), tuple(way))
            key = dirent_key(Fid(dirent.fid), name)
            keys.add(key)
            below = self._dirent(key)
            if below is None:
                return _Sight(frozenset(keys), tuple(way))
            dirent = below
            way.append(_Stop(dirent.fid, join(way[-1].path, name), key))
        keys.add(version_key(Fid(dirent.fid)))
        version = self._state.version(dirent.fid)
        return _Sight(frozenset(keys), tuple(way), version, dirent.fid if version else 0)

    def _dirent(self, key: bytes) -> Dirent | None:
        value = self._state.get(key)
        return None if value is None else wire.decode(_DIRENT, value, "a directory entry")

    def _gap(self, record: Record) -> Happening | None:
        gap = wire.decode(_GAP, record.value, "a gap")
        if gap.scope and not (self._path + _SLASH).startswith(gap.scope.rstrip(_SLASH) + _SLASH):
            return None
        return Happening(gap.start_us, "gap", (gap.reason,), until_us=gap.end_us)

    # -- what happened ---------------------------------------------------------------------------

    def _remember_names(self, changes: list[Record]) -> None:
        """Note names that a file on the way gets elsewhere: it may lose the one we know."""
        way = {stop.fid for stop in self._sight.way}
        for record in changes:
            if record.op == Op.SET and record.key not in self._sight.keys:
                dirent = _dirent_of(record)
                if dirent is not None and dirent.fid in way:
                    self._elsewhere[dirent.fid] = record.key

    def _compared(
        self,
        at_us: int,
        before: _Sight,
        touched: set[bytes],
        stood: dict[bytes, Dirent | None],
        known: set[int],
    ) -> list[Happening]:
        now = self._sight
        found: list[Happening] = []
        if before.version is not None and before.fid != now.fid:
            target = self._moved_to(before)
            if target:
                found.append(Happening(at_us, "moved-out", other=target))
            elif now.version is None:
                found.append(Happening(at_us, "deleted"))
        if now.version is None:
            return found
        is_captured = version_key(Fid(now.fid)) in touched
        if before.fid == now.fid and before.version is not None:
            what = differences(before.version, now.version)
            if is_captured and (what or now.version != before.version):
                event = Happening(at_us, "changed", what or ("ctime",), now.version, is_captured)
                is_noise = now.version.type == EntryType.DIRECTORY and not what
                return [] if is_noise else [event]
            return found
        origin = self._moved_from(before, now, stood, known)
        if origin:
            found.append(Happening(at_us, "moved-in", (), now.version, is_captured, other=origin))
        elif before.version is not None and not found:
            what = differences(before.version, now.version)
            found.append(Happening(at_us, "changed", ("replaced", *what), now.version, is_captured))
        else:
            found.append(Happening(at_us, "appeared", (), now.version, is_captured))
        return found

    def _moved_to(self, before: _Sight) -> bytes:
        """Return where the file is now, if it, or a directory above it, has another name."""
        now_way = {stop.fid for stop in self._sight.way}
        for stop in reversed(before.way):
            key = self._elsewhere.get(stop.fid)
            dirent = None if key is None else self._dirent(key)
            if key is None or dirent is None or dirent.fid != stop.fid or stop.fid in now_way:
                continue
            below = self._path[len(stop.path) :]
            if self._fid_below(dirent, below) == before.fid:
                return self._path_of(key, self._sight, {}) + below
        return b""

    def _fid_below(self, dirent: Dirent, below: bytes) -> int:
        """Return the file that a relative path names below an entry; 0 if there is none."""
        at: Dirent | None = dirent
        for name in below.split(_SLASH):
            if name and at is not None:
                at = self._dirent(dirent_key(Fid(at.fid), name))
        return 0 if at is None else at.fid

    def _moved_from(
        self, before: _Sight, now: _Sight, stood: dict[bytes, Dirent | None], known: set[int]
    ) -> bytes:
        """Return where the file was before, if it, or a directory above it, had another name.

        What decides is the lowest entry on the way that the commit changed: all below it was
        there before, wherever that was.
        """
        for stop in reversed(now.way):
            replaced = stood.get(stop.key)
            if stop.key not in stood or (replaced is not None and replaced.fid == stop.fid):
                continue
            if stop.fid not in known:  # new: spares looking for another name everywhere
                return b""
            places = [
                key for key, each in stood.items() if each is not None and each.fid == stop.fid
            ]
            if not places and self._has_one_name(stop.fid):
                places = self._names_of(stop.fid)  # the old name is about to go
            for key in places:
                if key != stop.key:
                    return self._path_of(key, before, stood) + self._path[len(stop.path) :]
            return b""
        return b""

    def _has_one_name(self, fid: int) -> bool:
        version = self._state.version(fid)
        return version is not None and (version.nlink <= 1 or version.type == EntryType.DIRECTORY)

    def _names_of(self, fid: int) -> list[bytes]:
        """Return the keys of a file's entries. Looks through the whole state."""
        return [
            key
            for key, value in self._state.rows()
            if parse_dirent_key(key) and wire.decode(_DIRENT, value, "a directory entry").fid == fid
        ]

    def _path_of(self, key: bytes, sight: _Sight, stood: dict[bytes, Dirent | None]) -> bytes:
        """Return the path of an entry; `?` stands for directories that are gone.

        `sight` and `stood`, what the last commit replaced, make it the path before that commit.
        """
        earlier = {dirent.fid: key for key, dirent in stood.items() if dirent is not None}
        place = parse_dirent_key(key)
        assert place is not None
        parent, path = int(place[0]), place[1]
        known = {stop.fid: stop.path for stop in sight.way}
        for _ in range(_DEPTH_MAX):
            if parent == ROOT_FID:
                return path
            if parent in known:
                return join(known[parent], path)
            above = [earlier[parent]] if parent in earlier else self._names_of(parent)
            place = parse_dirent_key(above[0]) if above else None
            if place is None:
                break
            parent, path = place[0], join(place[1], path)
        return b"?/" + path


def _dirent_of(record: Record) -> Dirent | None:
    if parse_dirent_key(record.key) is None:
        return None
    return wire.decode(_DIRENT, record.value, "a directory entry")
