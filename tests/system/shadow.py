"""The mutator's model bound to directories on disk: where names are, and what changes do to paths.

Nothing here decides what to do; the operations are in `system.mutator`.
"""

import os
import random
from collections.abc import Iterable

from system.model import File, Folder, Node, Pool, State

Place = tuple[Folder, bytes]
Effects = dict[bytes, list[State]]

FULL_FOLDER = 200  # names; more would make a rename of a folder touch too many paths


class Shadow:
    """What is below `root`, and in the folder beside it that takes what moves out of the tree."""

    def __init__(self, root: str, *, seed: int) -> None:
        self._rng = random.Random(seed)
        self._root = os.fsencode(root)
        self._outside = self._root + b".outside"
        self._home, self._away = Folder(0o755, path=b""), Folder(0o755)
        self._files: Pool[Place] = Pool()
        self._links: Pool[Place] = Pool()
        self._folders: Pool[Folder] = Pool()
        self._folders.add(self._home)
        os.makedirs(self._root, exist_ok=True)
        os.makedirs(self._outside, exist_ok=True)

    def _full(self, folder: Folder, name: bytes) -> bytes:
        parts = [name]
        while folder.places:
            ((above, own),) = folder.places
            parts.append(own)
            folder = above
        parts.append(self._root if folder is self._home else self._outside)
        return b"/".join(reversed(parts))

    def _any_file(self) -> tuple[Folder, bytes, File] | None:
        if not len(self._files):
            return None
        folder, name = self._files.choice(self._rng)
        node = folder.children[name]
        assert isinstance(node, File)
        return folder, name, node

    def _some_place(self, name: bytes) -> Place:
        folder = self._folders.choice(self._rng)
        while len(folder.children) >= FULL_FOLDER and len(self._folders) > 1:
            folder = self._folders.choice(self._rng)
        return folder, name

    def _some_folder(self) -> tuple[Folder, Place] | None:
        folder = self._folders.choice(self._rng)
        if folder is self._home or sum(1 for _ in folder.below()) > FULL_FOLDER:
            return None
        (place,) = folder.places
        return folder, place

    def _sees(self, node: Node, effects: Effects, state: State) -> None:
        """Note a state of an inode under each of its names."""
        for path in node.paths():
            effects.setdefault(path, []).append(state)

    def _rehang(self, source: Place, target: Place, effects: Effects) -> None:
        """Follow a rename of anything in the model, noting what it does to all paths."""
        node = source[0].children[source[1]]
        self._gone(source, node, effects)
        source[0].take(source[1])
        target[0].put(target[1], node)
        self._here(target, node, effects)

    def _gone(self, place: Place, node: Node, effects: Effects) -> None:
        for folder, name, _ in below(place, node):
            path = folder.path_of(name)
            if path is not None:
                effects.setdefault(path, []).append(None)

    def _here(self, place: Place, node: Node, effects: Effects) -> None:
        for folder, name, found in below(place, node):
            path = folder.path_of(name)
            if path is not None:
                effects.setdefault(path, []).append(found.state())

    def _unlink(self, place: Place, effects: Effects) -> None:
        os.unlink(self._full(*place))
        self._gone(place, place[0].children[place[1]], effects)
        place[0].take(place[1])
        self._files.discard(place)
        self._links.discard(place)

    def _pools(self, place: Place, node: Node, *, add: bool) -> None:
        for folder, name, found in below(place, node):
            if isinstance(found, Folder):
                (self._folders.add if add else self._folders.discard)(found)
            else:
                pool = self._files if isinstance(found, File) else self._links
                (pool.add if add else pool.discard)((folder, name))


def below(place: Place, node: Node) -> Iterable[tuple[Folder, bytes, Node]]:
    yield place[0], place[1], node
    if isinstance(node, Folder):
        yield from node.below()
