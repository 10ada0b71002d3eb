"""A file system in memory that changes under our hands, and a Source over it.

`ModelFs` keeps a log of every state that every path ever had: the oracle. Inodes are used again
at once, times have the resolution of a kernel tick, and every look at it may be preceded by one
more change (`preempt`), as on a machine where others work too.
"""

import asyncio
import bisect
import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENOENT, ENOTDIR
from typing import TypeVar

from streamd.model.entry import EntryType
from streamd.model.host import HostStat, Identity
from streamd.sources.port import (
    VIRTUAL_ROOT,
    Listing,
    Outcome,
    Piece,
    ReadBatch,
    ReadRequest,
    ReadResult,
    WatchBatch,
)

DEV = 7
TICK_NS = 4_000_000  # resolution of the times that files get
PIECE = 8
HOLE = bytes(PIECE)
ATTRIBUTE = b"user.a"
NAMES = [b"a", b"b", b"c", b"d", b"\xff"]
V = TypeVar("V")
Value = tuple  # (type, mode, content or target, mtime_ns of anything but a directory, attribute)


@dataclass(eq=False)
class Node:
    ino: int
    type: EntryType
    mode: int
    content: bytes = b""
    attribute: bytes = b""  # an extended one, which no stat shows
    children: "dict[bytes, Node]" = field(default_factory=dict)
    mtime_ns: int = 0
    ctime_ns: int = 0
    nlink: int = 1
    parent: "Node | None" = None  # of a directory
    name: bytes = b""
    was_linked: bool = False  # has, or once had, several names
    generation: int = 0  # which use of the inode number this is
    values: "list[tuple[int, Value]]" = field(default_factory=list)  # what it was, since when

    @property
    def is_dir(self) -> bool:
        return self.type is EntryType.DIRECTORY

    def value(self) -> Value:
        mtime_ns = 0 if self.is_dir else self.mtime_ns
        return (self.type, self.mode, self.content, mtime_ns, self.attribute)

    def xattrs(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((ATTRIBUTE, self.attribute),) if self.attribute else ()

    def stat(self) -> HostStat:
        is_sized = self.type in (EntryType.REGULAR, EntryType.SYMLINK)
        return HostStat(
            self.type,
            self.mode,
            1000,
            1000,
            len(self.content) if is_sized else 0,
            self.mtime_ns,
            self.ctime_ns,
            DEV,
            self.ino,
            self.nlink,
            0,
        )


class ModelFs:
    """The tree, its operations, and the states that its paths had."""

    def __init__(self, now_us: Callable[[], int], roots: Sequence[bytes] = (b"/r",)) -> None:
        self._now_us = now_us
        self._free: list[int] = []
        self._next_ino = 100
        self._generation = 0
        self.roots = tuple(roots)
        self.top = {root: self._new(EntryType.DIRECTORY, 0o755) for root in roots}
        for root, node in self.top.items():
            node.name = root
        self.listeners: list[Callable[[Node, bytes, Node, bool, bool], None]] = []
        self.history: dict[bytes, list[tuple[int, Value | None]]] = {}
        self.nodes: dict[bytes, list[tuple[int, Node | None]]] = {}
        self._last: dict[bytes, tuple[Node, Value]] = {}
        self.last_change_us = 0
        self._log()

    # -- the oracle ------------------------------------------------------------------------------

    def _log(self, *, at_us: int = 0) -> None:
        now = {path: (node, node.value()) for path, node in self.walk()}
        at_us = self.last_change_us = at_us or self._now_us()
        for path in now.keys() | self._last.keys():
            node, value = now.get(path, (None, None))
            before, value_before = self._last.get(path, (None, None))
            if value != value_before:
                self.history.setdefault(path, []).append((at_us, value))
            if node is not before:
                self.nodes.setdefault(path, []).append((at_us, node))
            if node is not None and (not node.values or node.values[-1][1] != value):
                node.values.append((at_us, value))
        self._last = now

    def values_in(self, path: bytes, from_us: int, to_us: int) -> list[Value | None]:
        """Return what a path may be said to have been during an interval, its ends included."""
        return list(_in(self.history.get(path, []), from_us, to_us))

    def nodes_in(self, path: bytes, from_us: int, to_us: int) -> list[Node | None]:
        """Return which nodes were at a path during an interval, its ends included."""
        return list(_in(self.nodes.get(path, []), from_us, to_us))

    def walk(self):
        """Yield (path, node), parents first."""
        stack = list(self.top.items())
        while stack:
            path, node = stack.pop()
            yield path, node
            stack.extend((path + b"/" + name, child) for name, child in node.children.items())

    def path_of(self, node: Node) -> bytes | None:
        """Return where a directory is; None: nowhere any more."""
        parts = []
        while node.parent is not None:
            if node.parent.children.get(node.name) is not node:
                return None
            parts.append(node.name)
            node = node.parent
        return b"/".join([node.name, *reversed(parts)]) if node.name in self.top else None

    def find(self, path: bytes) -> Node | int:
        """Return the node at a path, or why there is none."""
        for root, node in self.top.items():
            if path == root or path.startswith(root + b"/"):
                at = node
                for name in filter(None, path[len(root) :].split(b"/")):
                    if not at.is_dir:
                        return ENOTDIR
                    below = at.children.get(name)
                    if below is None:
                        return ENOENT
                    at = below
                return at
        return ENOENT

    # -- operations ------------------------------------------------------------------------------

    def _tick(self) -> int:
        return self._now_us() * 1000 // TICK_NS * TICK_NS

    def _new(self, kind: EntryType, mode: int, content: bytes = b"") -> Node:
        if self._free:
            ino = self._free.pop()
        else:
            ino, self._next_ino = self._next_ino, self._next_ino + 1
        now, self._generation = self._tick(), self._generation + 1
        generation = self._generation
        return Node(ino, kind, mode, content, mtime_ns=now, ctime_ns=now, generation=generation)

    def _done(self, directory: Node, name: bytes, node: Node, *, deep=False, inside=False) -> None:
        self._log()
        for listener in self.listeners:
            listener(directory, name, node, deep, inside)

    def _attach(self, directory: Node, name: bytes, node: Node) -> None:
        directory.children[name] = node
        if node.is_dir:
            node.parent, node.name = directory, name
        directory.mtime_ns = directory.ctime_ns = self._tick()

    def _release(self, node: Node) -> None:
        node.nlink -= 1
        node.ctime_ns = self._tick()
        if node.nlink == 0 or node.is_dir:
            self._free.append(node.ino)

    def create(
        self, directory: Node, name: bytes, kind: EntryType, content: bytes = b"", mode: int = 0o644
    ) -> Node:
        node = self._new(kind, mode, content)
        self._attach(directory, name, node)
        self._done(directory, name, node, deep=node.is_dir)
        return node

    def write(self, directory: Node, name: bytes, content: bytes, *, keep_mtime=False) -> None:
        node = directory.children[name]
        node.content, node.ctime_ns = content, self._tick()
        if not keep_mtime:
            node.mtime_ns = node.ctime_ns
        self._done(directory, name, node, inside=True)

    def chmod(self, directory: Node, name: bytes, mode: int) -> None:
        node = directory.children[name]
        node.mode, node.ctime_ns = mode, self._tick()
        self._done(directory, name, node, inside=True)

    def set_mtime(self, directory: Node, name: bytes, mtime_ns: int) -> None:
        node = directory.children[name]
        node.mtime_ns, node.ctime_ns = mtime_ns, self._tick()
        self._done(directory, name, node, inside=True)

    def set_attribute(self, directory: Node, name: bytes, value: bytes) -> None:
        node = directory.children[name]
        node.attribute, node.ctime_ns = value, self._tick()
        self._done(directory, name, node, inside=True)

    def link(self, source: Node, directory: Node, name: bytes) -> None:
        source.nlink += 1
        source.was_linked = True
        source.ctime_ns = self._tick()
        self._attach(directory, name, source)
        self._done(directory, name, source)

    def remove(self, directory: Node, name: bytes) -> None:
        """Remove an entry, and one by one all below it before."""
        node = directory.children[name]
        for below in list(node.children):
            self.remove(node, below)
        del directory.children[name]
        directory.mtime_ns = directory.ctime_ns = self._tick()
        self._release(node)
        self._done(directory, name, node, deep=False)

    def rename(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """Rename; what stood at the new place (never a full directory) is gone."""
        node, over = old.children[old_name], new.children.get(new_name)
        if over is node:
            return
        del old.children[old_name]
        node.ctime_ns = old.mtime_ns = old.ctime_ns = self._tick()
        self._attach(new, new_name, node)
        if over is not None:
            self._release(over)
        self._log()
        for listener in self.listeners:
            listener(old, old_name, node, node.is_dir, False)
            listener(new, new_name, node, node.is_dir, False)

    def exchange(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        first, second = old.children[old_name], new.children[new_name]
        if first is second:
            return
        # Two directories that change places are captured one after the other if they are found by
        # different looks; until then a place may be empty. The oracle allows that, for this only.
        del old.children[old_name], new.children[new_name]
        self._log()
        self._attach(new, new_name, first)
        self._attach(old, old_name, second)
        first.ctime_ns = second.ctime_ns = self._tick()
        self._log(at_us=self.last_change_us)
        for listener in self.listeners:
            listener(old, old_name, second, True, False)
            listener(new, new_name, first, True, False)


def identities_in(nodes: Mapping[bytes, Node], names: Iterable[bytes]) -> dict[bytes, Identity]:
    """Return which files are there under these names."""
    return {
        name: Identity(DEV, nodes[name].ino, nodes[name].generation, 0)
        for name in names
        if name in nodes
    }


def _in(rows: list[tuple[int, V]], from_us: int, to_us: int) -> Iterator[V | None]:
    first = bisect.bisect_right(rows, from_us, key=lambda row: row[0])
    yield rows[first - 1][1] if first else None
    while first < len(rows) and rows[first][0] <= to_us:
        yield rows[first][1]
        first += 1


class Mutator:
    """Does one random thing at a time to a model."""

    def __init__(self, fs: ModelFs, rng: random.Random) -> None:
        self._fs = fs
        self._rng = rng
        self.count = 0

    def directories(self) -> list[Node]:
        return [node for _, node in self._fs.walk() if node.is_dir]

    def entries(self) -> list[tuple[Node, bytes, Node]]:
        return [
            (directory, name, node)
            for directory in self.directories()
            for name, node in directory.children.items()
        ]

    def content(self) -> bytes:
        rng = self._rng
        kind = rng.random()
        if kind < 0.15:
            return b""
        size = rng.randrange(1, 200) if kind < 0.85 else rng.randrange(400, 900)
        blocks = [rng.choice((b"same....", HOLE, rng.randbytes(PIECE))) for _ in range(size // 8)]
        return b"".join(blocks) + rng.randbytes(size % PIECE)

    def step(self) -> None:
        """Change something."""
        self.count += 1
        rng, fs = self._rng, self._fs
        directory, name = rng.choice(self.directories()), rng.choice(NAMES)
        entries = self.entries()
        if name not in directory.children and (rng.random() < 0.35 or not entries):
            self._create(directory, name, entries)
            return
        if not entries:
            return
        parent, old, node = rng.choice(entries)
        action = rng.random()
        if action < 0.3 and node.type is EntryType.REGULAR:
            content = node.content + self.content() if rng.random() < 0.3 else self.content()
            fs.write(parent, old, content, keep_mtime=rng.random() < 0.1)
        elif action < 0.36:
            fs.chmod(parent, old, rng.choice([0o600, 0o644, 0o755]))
        elif action < 0.42:
            fs.set_attribute(parent, old, rng.choice([b"", b"one", b"two"]))
        elif action < 0.58:
            self._remove(parent, old, node)
        elif action < 0.85:
            self._rename(parent, old, node, directory, name)
        else:
            self._exchange(parent, old, node, rng.choice(entries))

    def use_inodes_again(self, count: int) -> None:
        """Replace some entries by others with the same inode numbers, there or under a new name.

        Nothing but the generation tells them apart for sure: size and mtime are the same, too.
        """
        rng, fs = self._rng, self._fs
        for _ in range(count):
            lone = [one for one in self.entries() if one[2].nlink == 1 and not one[2].was_linked]
            if not lone:
                return
            parent, old, node = rng.choice(lone)
            free = [name for name in NAMES if name not in parent.children]
            name = rng.choice([old, *free])
            fs.remove(parent, old)
            new = fs.create(parent, name, node.type, node.content, node.mode)
            assert new.ino == node.ino
            if not new.is_dir:
                fs.set_mtime(parent, name, node.mtime_ns)

    def _create(self, directory: Node, name: bytes, entries) -> None:
        rng, fs = self._rng, self._fs
        kind = rng.random()
        files = [node for _, _, node in entries if node.type is EntryType.REGULAR]
        if kind < 0.3:
            fs.create(directory, name, EntryType.DIRECTORY, mode=0o755)
        elif kind < 0.4:
            fs.create(directory, name, EntryType.SYMLINK, rng.choice([b"x", b"../y"]), 0o777)
        elif kind < 0.55 and files:
            fs.link(rng.choice(files), directory, name)
        elif kind < 0.6:
            fs.create(directory, name, EntryType.FIFO)
        else:
            fs.create(directory, name, EntryType.REGULAR, self.content())

    def _remove(self, parent: Node, old: bytes, node: Node) -> None:
        self._fs.remove(parent, old)
        if self._rng.random() < 0.3:  # and something else of that name at once
            kind = self._rng.choice([EntryType.REGULAR, EntryType.DIRECTORY, EntryType.SYMLINK])
            content = b"" if kind is EntryType.DIRECTORY else self.content() or b"t"
            self._fs.create(parent, old, kind, content)

    def _rename(self, parent: Node, old: bytes, node: Node, directory: Node, name: bytes) -> None:
        over = directory.children.get(name)
        if self._is_within(directory, node):
            return
        if over is not None and (over.is_dir != node.is_dir or over.children):
            return
        self._fs.rename(parent, old, directory, name)

    def _exchange(self, parent: Node, old: bytes, node: Node, other) -> None:
        directory, name, second = other
        if not self._is_within(directory, node) and not self._is_within(parent, second):
            self._fs.exchange(parent, old, directory, name)

    @staticmethod
    def _is_within(directory: Node, node: Node) -> bool:
        at: Node | None = directory
        while at is not None:
            if at is node:
                return True
            at = at.parent
        return False


@dataclass
class Weather:
    """How often unpleasant things happen; chances."""

    preempt: float = 0.0  # before each look
    fuzzy: float = 0.0  # each file that is read
    gap: float = 0.0  # each batch of events
    nameless: float = 0.0  # each event of a file: only its inode is told
    late: float = 0.0  # each batch: only a part of it comes now
    joined: float = 0.0  # each look of which identities are wanted: they come along
    slow: float = 0.0  # seconds that each part of a large file may take to be read


class ScriptedSource:
    """Implements `sources.port.Source` over a ModelFs."""

    def __init__(
        self,
        fs: ModelFs,
        *,
        hasher: Callable[[bytes], bytes],
        now_us: Callable[[], int],
        rng: random.Random,
        weather: Weather | None = None,
        mutate: Callable[[], None] = lambda: None,
        name: str = "sim",
    ) -> None:
        self.fs = fs
        self.name = name
        self.roots = fs.roots
        self.watch_modes = dict.fromkeys(fs.roots, "fanotify")
        self.weather = weather or Weather()
        self.read_paths: list[bytes] = []
        self.examined: list[bytes] = []
        self.before_look: Callable[[], None] = lambda: None
        self._hasher = hasher
        self._now_us = now_us
        self._rng = rng
        self._mutate = mutate
        self._events: list[tuple[int, Node, bytes, Node, bool, bool]] = []
        self._known: dict[Node, bytes | None] = {}  # directories' paths
        self._hurried = asyncio.Event()

    # -- watching --------------------------------------------------------------------------------

    async def watch(self):
        self._events = []
        self.fs.listeners.append(self._listen)
        try:
            await asyncio.sleep(self._rng.random() * 0.05)
            yield WatchBatch(drained_us=self._now_us())
            while True:
                pause = self._rng.choice([0.02, 0.1, 1.0]) * self._rng.random()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._hurried.wait()
                self._hurried.clear()
                yield self._drain()
        finally:
            self.unwatch()

    def hurry(self) -> bool:
        self._hurried.set()
        return True

    def unwatch(self) -> None:
        """Stop listening: the process is gone."""
        if self._listen in self.fs.listeners:
            self.fs.listeners.remove(self._listen)

    def _listen(self, directory: Node, name: bytes, node: Node, deep: bool, inside: bool) -> None:
        # As a watcher does, we remember where directories were, for those that are gone by then.
        self._known[directory] = self.fs.path_of(directory) or self._known.get(directory)
        self._events.append((self.fs.last_change_us, directory, name, node, deep, inside))

    def _drain(self) -> WatchBatch:
        rng, weather = self._rng, self.weather
        events, now_us = self._events, self._now_us()
        if events and rng.random() < weather.gap:
            self._events = []
            return WatchBatch(gap="overflow", drained_us=now_us)
        if len(events) > 1 and rng.random() < weather.late:
            count = rng.randrange(1, len(events))
            now_us = events[count][0] - 1
            events, self._events = events[:count], events[count:]
        else:
            self._events = []
        batch = WatchBatch(drained_us=now_us, event_count=len(events))
        for _, directory, name, node, deep, is_inside in events:
            # An event without a name is about content; who enters or leaves a directory has one.
            is_nameless = is_inside and not node.is_dir and rng.random() < weather.nameless
            if is_nameless or (not node.is_dir and node.was_linked and node.nlink):
                batch.inodes.add((DEV, node.ino))
            path = self.fs.path_of(directory) or self._known.get(directory)
            if path is not None and not is_nameless:
                full = path + b"/" + name
                batch.paths[full] = batch.paths.get(full, False) or deep
        return batch

    # -- looking ---------------------------------------------------------------------------------

    def _look(self) -> None:
        self.before_look()
        if self._rng.random() < self.weather.preempt:
            self._mutate()

    def examine(
        self, directory: bytes, names: Sequence[bytes] | None, *, identities: bool = False
    ) -> Listing:
        self._look()
        self.examined.append(directory)
        if directory == VIRTUAL_ROOT:
            wanted = (
                self.fs.top if names is None else [name for name in names if name in self.roots]
            )
            listing = Listing(
                {name: self.fs.top[name].stat() for name in wanted if name in self.fs.top}
            )
            return self._joined(listing, self.fs.top, identities=identities)
        node = self.fs.find(directory)
        if isinstance(node, int):
            return Listing(error=node)
        if not node.is_dir:
            return Listing(error=ENOTDIR)
        wanted = list(node.children) if names is None else names
        listing = Listing(own=node.stat())
        for name in wanted:
            if self._rng.random() < self.weather.preempt / 8:
                self._mutate()
            child = node.children.get(name)
            if child is not None:
                listing.entries[name] = child.stat()
        return self._joined(listing, node.children, identities=identities)

    def _joined(
        self, listing: Listing, nodes: Mapping[bytes, Node], *, identities: bool
    ) -> Listing:
        if identities and self.weather.joined and self._rng.random() < self.weather.joined:
            self._look()
            listing.identities = identities_in(nodes, listing.entries)
        return listing

    def identify(
        self, directory: bytes, names: Sequence[bytes], *, births: bool = False
    ) -> dict[bytes, Identity]:
        del births  # there is always a generation
        self._look()
        if directory == VIRTUAL_ROOT:
            nodes = self.fs.top
        else:
            node = self.fs.find(directory)
            nodes = {} if isinstance(node, int) else node.children
        return identities_in(nodes, names)

    # -- reading --------------------------------------------------------------------------------

    def part_seconds(self) -> float:
        """Return how long the next part of a large file takes."""
        return self._rng.random() ** 3 * self.weather.slow if self.weather.slow else 0.0

    def read(self, requests: Sequence[ReadRequest]) -> ReadBatch:
        arena = bytearray()
        results = [self._read(request, arena) for request in requests]
        return ReadBatch(memoryview(bytes(arena)), results, len(arena))

    def open_large(self, request: ReadRequest) -> "ScriptedLargeRead":
        return ScriptedLargeRead(self, request)

    def _read(self, request: ReadRequest, arena: bytearray) -> ReadResult:
        self._look()
        self.read_paths.append(request.path)
        node = self.fs.find(request.path)
        if isinstance(node, int):
            return ReadResult(Outcome.VANISHED, request.expected)
        if not _is_expected(node, request):
            return ReadResult(Outcome.TYPE_CHANGED, request.expected)
        if node.type is EntryType.SYMLINK:
            return ReadResult(Outcome.OK, node.stat(), target=node.content, xattrs=node.xattrs())
        content, outcome, stat = node.content, Outcome.OK, node.stat()
        if node.type is EntryType.REGULAR and self._rng.random() < self.weather.fuzzy:
            content, outcome = content[: len(content) // 2] + b"torn", Outcome.FUZZY
            stat = stat._replace(size=len(content))
        return ReadResult(outcome, stat, self.pieces(content, arena), xattrs=node.xattrs())

    def pieces(self, content: bytes, arena: bytearray) -> list[Piece]:
        found = []
        for at in range(0, len(content), PIECE):
            part = content[at : at + PIECE]
            if part == HOLE:
                found.append(Piece(None, 0, PIECE))
            else:
                found.append(Piece(self._hasher(part), len(arena), len(part)))
                arena += part
        return found


def _is_expected(node: Node, request: ReadRequest) -> bool:
    seen = node.ino, node.type, node.generation
    return seen == (request.expected.ino, request.expected.type, request.generation)


class ScriptedLargeRead:
    """A file in two parts; one that changed in between is fuzzy."""

    def __init__(self, source: ScriptedSource, request: ReadRequest) -> None:
        self._source = source
        self._request = request
        self._pieces: list[Piece] = []
        self._parts = 0
        self._size = 0
        self._first: Node | None = None
        self._stat = request.expected
        self._outcome = Outcome.OK

    def thread_seconds(self) -> float:
        return self._source.part_seconds() if self._parts < 2 else 0.0

    def next(self) -> tuple[memoryview, list[Piece]] | None:
        self._source._look()
        node = self._source.fs.find(self._request.path)
        if self._parts == 0:
            if isinstance(node, int):
                self._outcome, self._parts = Outcome.VANISHED, 2
            elif not _is_expected(node, self._request):
                self._outcome, self._parts = Outcome.TYPE_CHANGED, 2
            else:
                self._first, self._stat = node, node.stat()
        if self._parts == 2:
            return None
        assert self._first is not None
        if self._first.stat()[:7] != self._stat[:7]:
            self._outcome = Outcome.FUZZY
        content, half = self._first.content, len(self._first.content) // 2 // PIECE * PIECE
        part = content[half:] if self._parts else content[:half]
        self._parts += 1
        arena = bytearray()
        pieces = self._source.pieces(part, arena)
        self._size += len(part)
        return memoryview(bytes(arena)), pieces

    def finish(self) -> ReadResult:
        first = self._first
        if self._outcome not in (Outcome.OK, Outcome.FUZZY) or first is None:
            return ReadResult(self._outcome, self._stat)
        if first.stat()[:7] != self._stat[:7]:
            self._outcome = Outcome.FUZZY
        xattrs = first.xattrs()
        self._source._look()
        if self._source.fs.find(self._request.path) is not first:
            return ReadResult(Outcome.TYPE_CHANGED, self._request.expected)
        return ReadResult(self._outcome, self._stat._replace(size=self._size), xattrs=xattrs)

    def close(self) -> None:
        pass
