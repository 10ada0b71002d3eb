"""The mutator's own memory of a tree: what is where, without asking the file system.

Names form a tree of `Folder`s; files are inodes that several names may share. The model answers
"which paths does this inode have?" and "what is below this folder?", and picks names at random in
constant time.
"""

import hashlib
import random
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

# [kind, mode, uid, gid, size, hash, mtime_ns or None, target, xattr digest, inode number]
State = list[object] | None  # None: there is nothing at this path


def text(name: bytes) -> str:
    """Return a name of bytes as JSON can carry it."""
    return name.decode("utf-8", "surrogateescape")


class Pool(Generic[Item]):
    """A set with a random choice in constant time."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._where: dict[Item, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        if item not in self._where:
            self._where[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: Item) -> None:
        at = self._where.pop(item, None)
        if at is None:
            return
        last = self._items.pop()
        if at < len(self._items):
            self._items[at] = last
            self._where[last] = at

    def choice(self, rng: random.Random) -> Item:
        return self._items[int(rng.random() * len(self._items))]


class Node:
    """Anything with a name: its attributes, and where it is."""

    kind = ""
    _numbers = 0

    def __init__(self, mode: int) -> None:
        Node._numbers += 1
        self.number = Node._numbers
        self.mode = mode
        self.uid = 0
        self.gid = 0
        self.places: set[tuple[Folder, bytes]] = set()

    def state(self) -> State:
        """Return what a restore of this node has to show."""
        return [self.kind, self.mode, self.uid, self.gid, 0, "", None, "", "", self.number]

    def paths(self) -> list[bytes]:
        """Return every path inside the protected tree."""
        found = (folder.path_of(name) for folder, name in self.places)
        return [path for path in found if path is not None]


class Folder(Node):
    """A directory. Its modification time is not modelled."""

    kind = "directory"

    def __init__(self, mode: int, *, path: bytes | None = None) -> None:
        super().__init__(mode)
        self.children: dict[bytes, Node] = {}
        self.root_path = path  # b"" for the protected root; None unless a root

    def own_path(self) -> bytes | None:
        """Return the path from the protected root, or None when outside of it."""
        parts = []
        folder = self
        while folder.places:
            ((above, name),) = folder.places
            parts.append(name)
            folder = above
        if folder.root_path is None:
            return None
        return b"/".join(reversed(parts))

    def path_of(self, name: bytes) -> bytes | None:
        own = self.own_path()
        if own is None:
            return None
        return own + b"/" + name if own else name

    def put(self, name: bytes, node: Node) -> None:
        self.children[name] = node
        node.places.add((self, name))

    def take(self, name: bytes) -> Node:
        node = self.children.pop(name)
        node.places.discard((self, name))
        return node

    def below(self) -> Iterator[tuple["Folder", bytes, Node]]:
        """Yield everything below, parents first."""
        for name, node in list(self.children.items()):
            yield self, name, node
            if isinstance(node, Folder):
                yield from node.below()

    def contains(self, other: "Folder") -> bool:
        """Return whether `other` is this folder or lies below it."""
        folder = other
        while folder is not self:
            if not folder.places:
                return False
            ((folder, _),) = folder.places
        return True


class Symlink(Node):
    """A symbolic link."""

    kind = "symlink"

    def __init__(self, target: bytes) -> None:
        super().__init__(0o777)
        self.target = target

    def state(self) -> State:
        state = super().state()
        assert state is not None
        state[7] = text(self.target)
        return state


class File(Node):
    """A regular file. A large one keeps only the running hash: it may grow or be emptied."""

    kind = "file"
    LARGE_BYTES = 256 << 10

    def __init__(self, mode: int) -> None:
        super().__init__(mode)
        self.data: bytes | None = b""
        self.size = 0
        self.mtime_ns: int | None = None
        self.xattrs: dict[str, bytes] = {}
        self._hasher = hashlib.blake2b(digest_size=12)

    @property
    def is_large(self) -> bool:
        """Whether the content is no longer at hand."""
        return self.data is None

    def set(self, data: bytes) -> None:
        self._hasher = hashlib.blake2b(data, digest_size=12)
        self.size = len(data)
        self.data = data if len(data) <= self.LARGE_BYTES else None

    def append(self, data: bytes) -> None:
        self._hasher.update(data)
        self.size += len(data)
        if self.data is not None:
            self.data = self.data + data if self.size <= self.LARGE_BYTES else None

    def state(self) -> State:
        state = super().state()
        assert state is not None
        state[4:7] = [self.size, self._hasher.hexdigest(), self.mtime_ns]
        state[8] = xattr_digest(tuple(sorted(self.xattrs.items())))
        return state


def content_digest(path: bytes) -> str:
    """Return the hash of a file on disk, as states record it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()


def xattr_digest(items: tuple[tuple[str, bytes], ...]) -> str:
    """Return one short text for all extended attributes that the mutator sets; "" for none."""
    own = [item for item in items if item[0].startswith("user.")]
    return hashlib.blake2b(repr(own).encode(), digest_size=8).hexdigest() if own else ""
